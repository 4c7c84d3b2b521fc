"""Makes the bad inputs: `python -m tests.data.readers.bad_inputs.make FOLDER`. The same bytes every time."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.data.readers.bad_inputs import chats, packed, places, tables, texts, values
from tests.data.readers.bad_inputs.case import Bad


def all_cases() -> list[Bad]:
    """Every bad input that is made, by name in the order of their kinds."""
    found = [case for kind in (texts, values, packed, tables, chats, places) for case in kind.cases()]
    names = [case.name for case in found]
    assert len(set(names)) == len(names), "two bad inputs have the same name"
    return found


def main() -> None:
    """Write all of them into a folder."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for case in all_cases():
        case.write(folder)


if __name__ == "__main__":
    main()
