"""A chat that KakaoTalk exported as text -> messages, from a computer ([name] [time] text) or a telephone (time, name :
text). Passed over are pictures, emoticons, calls, deleted messages and notices.
"""

from __future__ import annotations

import re

from chat_app.data.readers.chat_exports.clock_times import parse_clock, parse_day
from chat_app.data.readers.chat_exports.line_log import Begun, LineLogReader, sample_lines
from chat_app.data.readers.protocol import InputFile

CLOCK = r"(?:오전|오후|AM|PM)?\s?\d{1,2}:\d{2}(?:\s?[AaPp][Mm])?"
COMPUTER = re.compile(rf"\[([^\[\]\n]{{1,60}})\] \[({CLOCK})\] ?(.*)")
DATE = r"(?:\d{4}\s?[년.]\s?\d{1,2}\s?[월.]\s?\d{1,2}\s?[일.]|[A-Z][a-z]{2,8} \d{1,2}, \d{4},?)"
PHONE = re.compile(rf"({DATE})\s({CLOCK})(?:, (.{{1,60}}?) : (.*)|(?:, |:\s?)(.*))")
DAY = re.compile(
    rf"-{{3,}}\s.{{0,40}}\d.{{0,40}}\s-{{3,}}|{DATE}\s?[^\W\d_]{{1,3}}요일"
    r"|[A-Z][a-z]+day, [A-Z][a-z]+ \d{1,2}, \d{4}"
)
NOTICE = re.compile(
    r".{1,60}님(?:이|을|과) .{0,100}(?:들어왔습니다|나갔습니다|초대했습니다|초대하였습니다|내보냈습니다)\.?.*"
    r"|.{1,60} (?:joined|left) this chatroom\.?|.{1,60} invited .{1,100}\.|채팅방 관리자가 메시지를 가렸습니다\."
)
NOT_SAID = re.compile(
    r"사진(?: \d+장)?|동영상|이모티콘|음성메시지|삭제된 메시지입니다\.?|(?:보이스톡|페이스톡|그룹콜)(?: .*)?"
    r"|지도: .*|연락처: .*|파일: [^\n]*"
    r"|샵검색: .*|Photos?(?: \d+)?|\d+ photos|Videos?|Emoticons?|Voice [Nn]ote|File: [^\n]*|(?:Voice|Face) ?[Tt]alk .*"
    r"|(?:This message was deleted|Deleted message|Message deleted)\.?|Contact: .*|Map: .*"
)
SHARE = 0.5


class KakaoTalkReader(LineLogReader):
    """Reads a chat that KakaoTalk exported as text."""

    @classmethod
    def sniff(cls, file: InputFile) -> KakaoTalkReader | None:
        """A reader if the lines begin as KakaoTalk's do, or its title stands above them."""
        lines = [line for line in sample_lines(file) if line.strip()]
        known = sum(bool(COMPUTER.match(line) or _is_message(line) or DAY.fullmatch(line.strip())) for line in lines)
        spoken = any(COMPUTER.match(line) or _is_message(line) for line in lines)
        titled = any("카카오톡" in line or "KakaoTalk" in line for line in lines[:3])
        if not spoken or not (titled or known >= SHARE * len(lines)):
            return None
        return cls.open_log("kakaotalk", file, KakaoTalkParser)


class KakaoTalkParser:
    """Finds days and messages."""

    def __init__(self) -> None:
        self._day: float | None = None

    def parse(self, line: str) -> Begun | None:
        """A message with the first line of its text; a day or a notice ends the one before."""
        bare = line.strip()
        if DAY.fullmatch(bare):
            self._day = parse_day(bare)
            return Begun()
        if match := COMPUTER.match(line):
            clock = parse_clock(match[2])
            return Begun(" ".join(match[1].split()), match[3], None if self._day is None else self._day + (clock or 0))
        if match := PHONE.match(line):
            if match[3] is None:
                return Begun()
            day, clock = parse_day(match[1]), parse_clock(match[2])
            return Begun(" ".join(match[3].split()), match[4], None if day is None else day + (clock or 0))
        return Begun() if NOTICE.fullmatch(bare) else None

    def clean(self, text: str) -> str:
        """The text; empty for what is no text."""
        return "" if NOT_SAID.fullmatch(text) else text


def _is_message(line: str) -> bool:
    match = PHONE.match(line)
    return match is not None and match[3] is not None
