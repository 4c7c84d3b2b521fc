"""How many people a machine can answer, computed from what `benchmarks.engine` measured on it.

    python -m benchmarks.engine | tee engine.txt
    python -m benchmarks.capacity engine.txt [--reply TOKENS] [--pause SECONDS] [--busy SHARE] [--replicas N]

people at once = busy share x tokens a second in all x seconds between two messages / tokens a reply
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

TOGETHER = 8  # So many chats run at once in the benchmark.
READING = 7.0  # Tokens a second: five words, a fast reader.
_ROW = re.compile(rf"\| {TOGETHER} chats, ([\w =]+), [^|]*\| ([0-9.e+]+) tokens/s \|")


def speeds(text: str) -> dict[str, float]:
    """Tokens a second in all, of several chats at once, by mode ("fast", "exact").

    Args:
        text: what the benchmark printed.
    """
    return {mode: float(speed) for mode, speed in _ROW.findall(text)}


def people(speed: float, reply: float, pause: float, busy: float) -> float:
    """How many can chat at once.

    Args:
        speed: tokens a second in all.
        reply: tokens of a reply.
        pause: seconds from one message of a person to the next.
        busy: the share of the time in which the machine writes.
    """
    return busy * speed * pause / reply


def table(found: dict[str, float], reply: float, pause: float, busy: float, replicas: int) -> list[str]:
    """The lines of the capacity table, in Markdown."""
    lines = [
        "| mode | tokens/s in all | tokens/s each of 8 | times a fast reader | replies a minute | people at once |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for mode, speed in found.items():
        each = speed / TOGETHER
        whole = speed * replicas
        lines.append(
            f"| {mode} | {whole:.0f} | {each:.1f} | {each / READING:.1f} | {60 * busy * whole / reply:.0f} | "
            f"{people(whole, reply, pause, busy):.0f} |"
        )
    return lines


def main() -> None:
    """Read and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="what benchmarks.engine printed")
    parser.add_argument("--reply", type=float, default=64, help="tokens of a reply (default: 64)")
    parser.add_argument("--pause", type=float, default=30, help="seconds between two messages (default: 30)")
    parser.add_argument("--busy", type=float, default=0.7, help="share of the time it may write (default: 0.7)")
    parser.add_argument("--replicas", type=int, default=1, help="machines of this kind (default: 1)")
    options = parser.parse_args()
    found = speeds(options.file.read_text(encoding="utf-8"))
    if not found:
        sys.exit(f"There is no row of {TOGETHER} chats in {options.file}: pip install ctranslate2 and measure again.")
    print(f"replies of {options.reply:g} tokens, a message every {options.pause:g} s, busy {options.busy:.0%}\n")
    print("\n".join(table(found, options.reply, options.pause, options.busy, options.replicas)))


if __name__ == "__main__":
    main()
