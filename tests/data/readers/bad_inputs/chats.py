"""Bad exports of chats: one person, no times, notices only, broken or of wrong types."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.data.readers.bad_inputs.case import Bad, lines
from tests.data.readers.bad_inputs.packed import zipped
from tests.data.readers.bad_inputs.values import WHOLE

STAMP = "31.12.23, 23:59 - "


def cases() -> Iterator[Bad]:
    """All of them."""
    yield from _whatsapp()
    yield from _telegram()
    yield from _discord()
    yield from _slack()


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _changed(name: str, **fields: Any) -> dict[str, Any]:
    value = copy.deepcopy(WHOLE[name])
    value.update(fields)
    return value


def _whatsapp() -> Iterator[Bad]:
    talk = lines(f"{STAMP}Anna: Hello", f"{STAMP}Ben: Hi")
    yield Bad("whatsapp-one-person.txt", lines(*[f"{STAMP}Anna: Hello {n}" for n in range(5)]))
    yield Bad("whatsapp-notices.txt", lines(f"{STAMP}Messages are end-to-end encrypted.", f"{STAMP}Anna joined"))
    yield Bad("whatsapp-media.txt", lines(*[f"{STAMP}{who}: <Media omitted>" for who in ("Anna", "Ben")]))
    yield Bad(
        "whatsapp-impossible-dates.txt", lines("99.99.99, 99:99 - Anna: Hello", "98.98.98, 98:98 - Ben: Hi"), 0, "lines"
    )
    yield Bad(
        "whatsapp-dates-of-no-calendar.txt", lines("45.45.23, 10:00 - Anna: Hello", "45.45.23, 10:01 - Ben: Hi"), 1
    )
    yield Bad("whatsapp-broken-line.txt", talk + b"31.12.23, 23:59 - Anna: \xff\xfe\n" + talk, 1)
    yield Bad("whatsapp-cut.txt", talk + b"31.12.23, 23:", 1)
    yield Bad("whatsapp-long-message.txt", talk + f"{STAMP}Anna: ".encode() + b"x\n" * 150_000 + talk, 1)
    yield Bad("whatsapp-many-people.txt", lines(*[f"{STAMP}P{n}: Hello" for n in range(3_000)]), 1)
    yield Bad("whatsapp-nobody.txt", lines(f"{STAMP}: Hello", f"{STAMP}: Hi"))
    yield Bad("whatsapp-backwards.txt", lines(*[f"{31 - 2 * n:02}.12.23, 10:00 - {'AB'[n % 2]}: x" for n in range(15)]))


def _telegram() -> Iterator[Bad]:
    value = WHOLE["telegram"]
    yield Bad("telegram-cut.json", json.dumps(value, indent=1).encode()[:-40])
    yield Bad("telegram-no-messages.json", _json(_changed("telegram", messages=[])))
    yield Bad("telegram-one-person.json", _json(_changed("telegram", messages=value["messages"][:1] * 3)))
    yield Bad("telegram-service.json", _json(_changed("telegram", messages=[{"type": "service", "action": "x"}] * 3)))
    wrong = [7, None, "x", [], {"type": "message", "from": 3, "text": "a"}, {"type": "message", "from": "A", "text": 5}]
    yield Bad("telegram-some-wrong.json", _json(_changed("telegram", messages=[*value["messages"], *wrong])), 1)
    late = [{**one, "date_unixtime": "1e99"} for one in value["messages"]]
    yield Bad("telegram-wrong-times.json", _json(_changed("telegram", messages=late)))
    timeless = [{key: one[key] for key in one if not key.startswith("date")} for one in value["messages"]]
    yield Bad("telegram-no-times.json", _json(_changed("telegram", messages=timeless)), 1)
    yield Bad("telegram-no-chats.json", _json({"chats": {"list": []}}))
    yield Bad("telegram-wrong-chats.json", _json({"chats": {"list": [None, 7, value]}}), 1)
    yield Bad(
        "telegram-page.html", b'<!DOCTYPE html>\n<html><body class="chat_page"><div class="text">Hi</div></body></html>'
    )


def _discord() -> Iterator[Bad]:
    value = WHOLE["discord"]
    yield Bad("discord-cut.json", json.dumps(value, indent=1).encode()[:-90])
    yield Bad("discord-no-messages.json", _json(_changed("discord", messages=[])))
    yield Bad("discord-messages-are-text.json", _json(_changed("discord", messages="none")))
    nameless = [{**one, "author": {}} for one in value["messages"]]
    yield Bad("discord-no-authors.json", _json(_changed("discord", messages=nameless)))
    timeless = [{**one, "timestamp": "yesterday"} for one in value["messages"]]
    yield Bad("discord-wrong-times.json", _json(_changed("discord", messages=timeless)))
    joined = [{**one, "type": "GuildMemberJoin"} for one in value["messages"]]
    yield Bad("discord-notices.json", _json(_changed("discord", messages=joined)))


def _slack() -> Iterator[Bad]:
    people = _json([{"id": "U1", "name": "ann"}, {"id": "U2", "name": "ben"}])
    day = _json(WHOLE["slack"])
    good = [("users.json", people), ("channels.json", b"[]"), ("general/2024-01-01.json", day)]
    yield Bad("slack-broken-day.zip", zipped(*good, ("general/2024-01-02.json", b"[{")), 1)
    yield Bad("slack-broken-people.zip", zipped(("users.json", b"{"), *good[1:]), 1)
    yield Bad("slack-day-is-an-object.zip", zipped(*good, ("general/2024-01-02.json", b"{}")), 1)
    yield Bad("slack-no-messages.zip", zipped(*good[:2], ("general/2024-01-01.json", b"[]")))
    yield Bad(
        "slack-wrong-messages.zip",
        zipped(*good, ("general/2024-01-02.json", b'[7, null, {"type": "message", "text": 5}]')),
        1,
    )
    yield Bad("slack-cut.zip", zipped(*good)[:-20])
    folder = [("general/2024-01-01.json", b"x"), ("users.json", b"x")]

    def no_json(path: Path) -> None:
        for name, content in folder:
            file = path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)

    yield Bad("slack-folder-of-no-json", no_json)
