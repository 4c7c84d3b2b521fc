"""A chat that LINE exported as text -> messages: a day on a line of its own, then time, name and text between tabs.

A text of several lines stands in quotes. The export of the computer has spaces instead of tabs. Passed over are
stickers, pictures, calls and notices.
"""

from __future__ import annotations

import re
from functools import partial
from itertools import takewhile

from chat_app.data.readers.chat_exports.clock_times import parse_clock, parse_day
from chat_app.data.readers.chat_exports.line_log import Begun, LineLogReader, sample_lines
from chat_app.data.readers.protocol import InputFile

CLOCK = r"(?:[^\W\d_]{2}\s?)?\d{1,2}:\d{2}(?:\s?[AaPp]\.?[Mm]\.?)?"
TABBED = re.compile(rf"({CLOCK})\t([^\t]*)(?:\t(.*))?")
SPACED = re.compile(rf"({CLOCK}) (\S.*)")
DAY = re.compile(
    r"(?:[^\W\d_]{1,4}\.?, ?\d{1,2}/\d{1,2}/\d{4}"
    r"|\d{4}[./]\d{1,2}[./]\d{1,2}\s?(?:[(（][^()（）]{1,6}[)）]|[^\W\d_]{3,12})"
    r"|\d{4}[年년]\s?\d{1,2}[月월]\s?\d{1,2}[日일].{0,8})"
)
TITLE = re.compile(r"\ufeff?\[LINE\]\s?(.+)")
PARTNER = re.compile(
    r"Chat history (?:with|in) (.+)|(.+?)(?:との|の)トーク履歴|[與与](.+?)的聊天[記记][錄录]|(.+?)님과의 대화"
    r"|Histórico .* com (.+)"
)
# Only the program writes these: [Sticker], [写真], and without brackets on a computer; calls begin with a telephone.
MEDIA = re.compile(r"\[[^\[\]\n]{1,24}\]|☎.*", re.DOTALL)
MEDIA_LINES = """
sticker stickers photo photos image video file album note スタンプ 写真 画像 動画 ファイル アルバム ノート
ボイスメッセージ 贴图 貼圖 照片 圖片 图片 影片 视频 檔案 文件 語音訊息 记事本 記事本 相簿 스티커 사진 동영상 파일
"""
MEDIA_WORDS = frozenset(MEDIA_LINES.split())


FIRST_LINES = 6


class LineReader(LineLogReader):
    """Reads a chat that LINE exported as text."""

    @classmethod
    def sniff(cls, file: InputFile) -> LineReader | None:
        """A reader if LINE's title stands above, or days stand alone between lines with a time, a name and a text."""
        lines = sample_lines(file)
        top = lines[:FIRST_LINES]
        if not (TITLE.match(lines[0] if lines else "") or any(DAY.fullmatch(line.strip()) for line in top)):
            return None
        titled = TITLE.match(lines[0]) if lines else None
        tabbed = sum(bool((match := TABBED.fullmatch(line)) and match[3]) for line in lines)
        spaced = sum(SPACED.fullmatch(line) is not None for line in lines)
        days = sum(DAY.fullmatch(line.strip()) is not None for line in lines)
        if not days or not (tabbed or (spaced and titled) or (spaced > 1 and DAY.fullmatch(lines[0].strip()))):
            return None
        names = None if tabbed else _find_names(lines, titled[1] if titled else "")
        return cls.open_log("line", file, partial(LineParser, names))


class LineParser:
    """Finds days and messages. Without tabs `names` says where a name ends."""

    def __init__(self, names: tuple[str, ...] | None):
        self._names = names
        self._day: float | None = None
        self._quoted = False

    def parse(self, line: str) -> Begun | None:
        """A message with the first line of its text; a day or a notice ends the one before."""
        if not self._quoted and DAY.fullmatch(line.strip()):
            self._day = parse_day(line)
            return Begun()
        clock, author, text = self._split(line)
        if clock is None:
            self._quoted = self._quoted and not line.endswith('"')
            return None
        self._quoted = text.startswith('"') and (text.count('"') % 2 == 1)
        return Begun(author, text, None if self._day is None else self._day + clock)

    def clean(self, text: str) -> str:
        """The text without the quotes of several lines; empty for what is no text."""
        if "\n" in text and text.startswith('"') and text.endswith('"'):
            text = text[1:-1].replace('""', '"').strip()
        is_word = self._names is not None and text.casefold() in MEDIA_WORDS
        return "" if is_word or MEDIA.fullmatch(text) else text

    def _split(self, line: str) -> tuple[float | None, str, str]:
        if self._names is None:
            match = TABBED.fullmatch(line)
            clock = parse_clock(match[1]) if match else None
            if match is None or clock is None:
                return None, "", ""
            return clock, (match[2].strip() if match[3] is not None else ""), match[3] or ""
        match = SPACED.fullmatch(line)
        clock = parse_clock(match[1]) if match else None
        if match is None or clock is None:
            return None, "", ""
        rest = match[2]
        for name in self._names:
            if rest.startswith(f"{name} "):
                return clock, name, rest[len(name) + 1 :].strip()
        name, _, text = rest.partition(" ")
        return clock, name if text and not self._names else "", text.strip()


def _find_names(lines: list[str], title: str) -> tuple[str, ...]:
    """The two people of a chat without tabs: the one of the title, and what all other lines begin with."""
    found = PARTNER.fullmatch(title.strip())
    partner = next((part.strip() for part in found.groups() if part), "") if found else ""
    if not partner:
        return ()
    rests = [match[2] for line in lines if (match := SPACED.fullmatch(line))]
    others = [rest.split() for rest in rests if not rest.startswith(f"{partner} ")]
    same = list(takewhile(lambda words: len(set(words)) == 1, zip(*others, strict=False)))
    own = " ".join(words[0] for words in same) if len(others) > 1 else others[0][0] if others else ""
    return tuple(sorted((name for name in (partner, own) if name), key=len, reverse=True))
