"""Detection of delimited tables and their dialect, from the first lines of a text.

Prose has commas, too, so a text is taken for a table only if its rows have the same width or its first row is a header.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import orjson

from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.tables import header_words
from chat_app.data.readers.tables.cells import holds_marks
from chat_app.data.readers.tables.csv_lenient import Dialect, Scan, scan_row
from chat_app.data.readers.tables.table_header import find_header
from chat_app.data.readers.text_source import Source, number_lines, read_beginning

DELIMITERS = ("\x1f", ",", ";", "|")
# In a table of one column a comma separates nothing, with or without quotes around the text.
ONE_COLUMN = "\x1f"
SAMPLE_LINES = 100
AGREED, MOSTLY = 0.9, 0.6
# The share of delimiters before a space: of commas between cells hardly any are, of those in prose nearly all.
SPACED = 0.1
SURE_QUOTED = 3
# Ranks of evidence beyond rows of equal width: the extension, a delimiter that prose never has, a header.
BY_NAME, BY_DELIMITER, BY_HEADER = 1, 2, 3
TABLE_EXTENSIONS = (".csv", ".tsv", ".tab", ".psv")


def detect_dialect(source: Source, options: ReadingOptions | None = None) -> Dialect | None:
    """How the cells of a table are separated; None for a text that is none, or that is read better in another way.

    What the person says (a delimiter, or that it is a table) goes before what the lines tell.

    Lines with tabs are left to the reader of tab-separated lines, where a quote is an ordinary character, unless their
    quoting is clearly that of a spreadsheet.
    """
    lines = _read_sample(source)
    if not any(line.strip() for line in lines):
        return None
    named = _parse_separator_line(lines[0])
    if named:
        return _fit_dialect(Dialect(named, 0, skip=1), lines[1:])
    options = options or ReadingOptions()
    if options.is_table:
        return _force_dialect(lines, options.parse_delimiter())
    if options.layout != "automatic":
        return None
    first = next(line for line in lines if line.strip())
    if _is_json(first):
        return None
    quote = detect_quote(lines)
    if quote != '"' and (found := _detect_single_quoted(lines)):
        return found
    tabs = _has_tabs(lines, first)
    if tabs and "\t" in first:
        return _detect_spreadsheet(lines)
    if source.extension in TABLE_EXTENSIONS and _is_marked_column(lines):
        return Dialect(ONE_COLUMN, 1)
    best: tuple[float, Dialect] | None = None
    for delimiter in DELIMITERS:
        if any(delimiter in line for line in lines):
            dialect = _fit_dialect(Dialect(delimiter, 0), lines)
            rank = _rank_dialect(dialect, lines, source.extension)
            if rank and (best is None or rank > best[0]):
                best = rank, dialect
    if tabs and (best is None or best[0] < BY_HEADER):
        return _detect_spreadsheet(lines)
    return best[1] if best else None


def _force_dialect(lines: Sequence[str], delimiter: str) -> Dialect:
    """The dialect of what the person says is a table: with that delimiter, else with the one that most rows have."""
    quote = detect_quote(lines)
    if delimiter:
        return _fit_dialect(Dialect(delimiter, 0, quote=quote), lines)
    fitted = [_fit_dialect(Dialect(sign, 0, quote=quote), lines) for sign in ("\t", *DELIMITERS)]
    return max(fitted, key=lambda one: (one.width > 1, _count_widths(_scan_rows(lines, one))[one.width], one.width))


def detect_quote(lines: Sequence[str]) -> str:
    """The sign that stands around the cells: a single quote where nearly every line begins and ends with one."""
    full = [stripped for line in lines if (stripped := line.strip())]
    single = sum(line[0] == line[-1] == "'" and len(line) > 2 for line in full)
    return "'" if single >= 2 and single >= AGREED * (len(full) - 1) and single >= MOSTLY * len(full) else '"'


def _detect_single_quoted(lines: Sequence[str]) -> Dialect | None:
    """The dialect of a table all of whose texts stand in single quotes."""
    for delimiter in ("\t", *DELIMITERS):
        if 2 * sum(f"'{delimiter}'" in line.replace(f"{delimiter} ", delimiter) for line in lines) > len(lines):
            fitted = _fit_dialect(Dialect(delimiter, 0, quote="'"), lines)
            scans = _scan_rows(lines, fitted)
            if sum(_is_odd(scan) for scan in scans) <= (1 - AGREED) * len(scans):
                return fitted
    return None


def _is_marked_column(lines: Sequence[str]) -> bool:
    """Whether a file called a table has one column only, in whose cells the marks of speakers stand."""
    one = Dialect(ONE_COLUMN, 1)
    scans = [scan for scan in _scan_rows(lines, one) if scan.outcome == "row" and any(map(str.strip, scan.cells))]
    name, *cells = [scan.cells[0] for scan in scans if len(scan.cells) == 1] or [""]
    return (
        len(cells) >= MOSTLY * (len(scans) - 1)
        and bool(cells)
        and header_words.find_meaning(name) in ("text", "dialog", "context")
        and holds_marks(cells[0])
    )


def _read_sample(source: Source) -> list[str]:
    head, more = read_beginning(source)
    found = [line or b"" for _, line in itertools.islice(number_lines([head]), SAMPLE_LINES + 1)]
    if len(found) > SAMPLE_LINES or (more and not head.endswith((b"\n", b"\r"))):
        found = found[:-1] or found  # it may be cut off
    return [line.decode("utf-8", "replace") + "\n" for line in found]


def _parse_separator_line(line: str) -> str | None:
    """The delimiter that a first line for Excel declares ("sep=;"), or None."""
    text = line.strip("\n").strip('"')
    return text[4] if len(text) == 5 and text.lower().startswith("sep=") else None


def _is_json(line: str) -> bool:
    text = line.strip()
    if text[:1] not in ("[", "{"):
        return False
    if text[1:].lstrip()[:1] in ("", '"', "[", "{", "]", "}"):
        return True
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _has_tabs(lines: Sequence[str], first: str) -> bool:
    full = [line for line in lines if line.strip()]
    tabs = sum("\t" in line for line in full)
    return tabs > 0 and ("\t" in first or 2 * tabs >= len(full))


def _detect_spreadsheet(lines: Sequence[str]) -> Dialect | None:
    """The dialect of tab-separated lines that a spreadsheet wrote, or None.

    A spreadsheet quotes exactly the cells that need it, and doubles quotes inside. Quotes typed by hand are elsewhere,
    too.
    """
    if not any('"' in line for line in lines):
        return None
    dialect = Dialect("\t", 0)
    scans = _scan_rows(lines, dialect)
    wide = Counter(len(scan.cells) for scan in scans if scan.outcome == "row" and scan.cells != [""])
    if not scans or len(wide) != 1 or any(scan.odd or scan.outcome != "row" for scan in scans[:-1]):
        return None
    if scans[-1].odd or scans[-1].outcome == "unclosed":
        return None
    if _is_quoted_by_column(lines, scans):
        return replace(dialect, width=next(iter(wide)))
    quoted = plainly = 0
    position = 0
    for scan in scans:
        if scan.outcome != "row":
            break
        raw = "".join(lines[position : position + scan.lines]).removesuffix("\n")
        position += scan.lines
        written = (
            '"' + cell.replace('"', '""') + '"' if any(sign in cell for sign in ',"\t\n') else cell
            for cell in scan.cells
        )
        bare = ('"' + cell.replace('"', '""') + '"' if any(s in cell for s in '"\t\n') else cell for cell in scan.cells)
        if raw not in ("\t".join(written), "\t".join(bare)):
            return None
        quoted += raw.count('"') > 0
        plainly += scan.lines > 1 or '""' in raw
    (width,) = wide
    sure = width > 1 and (plainly or quoted >= SURE_QUOTED)
    return replace(dialect, width=width) if sure else None


def _is_quoted_by_column(lines: Sequence[str], scans: Sequence[Scan]) -> bool:
    """Whether whole columns stand in quotes, as programs write them that quote all texts or everything.

    Each cell of such a column is in quotes in every row, and no other cell holds one.
    """
    rows = [line.removesuffix("\n").split("\t") for line in lines if line.strip()]
    if len(rows) < SURE_QUOTED or len(rows) != len(scans) or len({len(row) for row in rows}) != 1 or len(rows[0]) < 2:
        return False
    below = rows[1:] if not any('"' in cell for cell in rows[0]) else rows
    whole = 0
    for column in zip(*below, strict=True):
        full = [cell for cell in column if cell]
        quoted = [len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in full]
        if all(quoted) and full:
            whole += 1
        elif any('"' in cell for cell in full):
            return False
    return whole > 0


def _scan_rows(lines: Sequence[str], dialect: Dialect) -> list[Scan]:
    """Parse the rows of the sample. After an unclosed quote the next line begins a new row."""
    scans: list[Scan] = []
    position = 0
    while position < len(lines):
        scan = scan_row(itertools.islice(lines, position, None), dialect)
        scans.append(scan)
        position += scan.lines or 1
    return scans


def _fit_dialect(dialect: Dialect, lines: Sequence[str]) -> Dialect:
    """The dialect with its usual width, and with backslash escapes if they explain more of the quotes."""
    if any('\\"' in line for line in lines):
        slashed = replace(dialect, backslash=True)
        dialect = min(dialect, slashed, key=lambda one: sum(_is_odd(scan) for scan in _scan_rows(lines, one)))
    widths = _count_widths(_scan_rows(lines, dialect))
    return replace(dialect, width=max(widths, key=lambda width: (widths[width], width)) if widths else 1)


def _is_odd(scan: Scan) -> bool:
    return scan.odd or scan.outcome != "row"


def _count_widths(scans: Sequence[Scan]) -> Counter[int]:
    return Counter(len(scan.cells) for scan in scans if scan.outcome == "row" and any(map(str.strip, scan.cells)))


def _rank_dialect(dialect: Dialect, lines: Sequence[str], extension: str) -> float:
    """The rank of the evidence that the text is a table of this dialect; 0 if it is not."""
    if dialect.width < 2:
        return 0
    scans = [scan for scan in _scan_rows(lines, dialect) if scan.outcome == "row" and any(map(str.strip, scan.cells))]
    widths = _count_widths(scans)
    agreed = widths[dialect.width] / widths.total()
    rows = [scan.cells for scan in scans]
    place = find_header(rows, ReadingOptions())
    first = rows[max(place, 0)]
    known = sum(header_words.find_meaning(cell) is not None for cell in first)
    if len(first) > 1 and known > 1 and place >= 0:
        return BY_HEADER + agreed + len(first) / 1_000_000
    if dialect.delimiter == "\x1f":
        return BY_DELIMITER + agreed
    by_name = extension in TABLE_EXTENSIONS
    if agreed < (MOSTLY if by_name else AGREED):
        return 0
    if by_name:
        return BY_NAME + agreed + dialect.width / 1_000_000
    quoted = sum(_has_quoted_edges(lines, dialect.delimiter)) > 0
    spaced = sum(line.count(dialect.delimiter + " ") for line in lines)
    total = sum(line.count(dialect.delimiter) for line in lines)
    if not quoted and (widths.total() < 2 or (dialect.delimiter in ",;" and spaced > SPACED * total)):
        return 0
    return agreed + dialect.width / 1_000_000


def _has_quoted_edges(lines: Sequence[str], delimiter: str) -> Iterator[bool]:
    """For each line, whether it has a quoted cell beside a delimiter."""
    for line in lines:
        yield f'"{delimiter}"' in line or (line.startswith('"') and f'"{delimiter}' in line)
