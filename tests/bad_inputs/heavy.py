"""Reads the bad inputs that are huge, each in this process, and tells the most memory that reading it took.

`python -m tests.bad_inputs.heavy FOLDER` writes them into the folder one by one and prints a line of JSON for each.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from chat_app.errors import DataError
from chat_app.reading import Located, iterate
from tests.bad_inputs.case import Bad
from tests.bad_inputs.make import all_cases

NUMBERS = 1_000


def peak_megabytes() -> float:
    """The most memory that this process has had so far."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1e6 if sys.platform == "darwin" else 1e3)


def result(case: Bad, folder: Path) -> dict[str, object]:
    """What became of one file, and by how much it raised the peak of this process."""
    path = case.write(folder)
    before = peak_megabytes()
    count, error, numbers = 0, "", set()
    try:
        for item in iterate(path):
            count += isinstance(item, Located)
            if len(numbers) < NUMBERS:
                numbers.add(item.line)
    except DataError as refused:
        error = refused.sentence()
    path.unlink()
    grown = peak_megabytes() - before
    return {"name": case.name, "conversations": count, "error": error, "megabytes": grown, "numbers": list(numbers)}


def main() -> None:
    """Read them all."""
    for case in all_cases():
        if case.heavy:
            print(json.dumps(result(case, Path(sys.argv[1]))), flush=True)


if __name__ == "__main__":
    main()
