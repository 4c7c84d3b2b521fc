"""python -m tests.browser.observed_app REPORT ARGUMENTS...: the app, which tells about itself when it gets SIGUSR1.

It writes its modules and its memory to the file REPORT.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import app

if __name__ == "__main__":
    report = Path(sys.argv[1])

    def tell(number: int, frame: object) -> None:
        """Write the report, at once as a whole."""
        import psutil

        memory = psutil.Process().memory_info().rss
        new = report.with_suffix(".new")
        new.write_text(json.dumps({"modules": sorted(sys.modules), "bytes": memory, "pid": os.getpid()}))
        new.replace(report)

    signal.signal(signal.SIGUSR1, tell)
    sys.exit(app.main(sys.argv[2:]))
