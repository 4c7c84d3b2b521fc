"""What is private and what only looks like it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_app.data.quality.excerpts import quote
from chat_app.data.quality.pii import PRIVATE_KINDS, find_private, mask_private, may_hold_private

PRIVATE = [
    ("emails", "Write to jo.bloggs+shop@mail.example.co.uk, please.", "Write to [e-mail], please."),
    ("emails", "ask <anna@example.org>!", "ask <[e-mail]>!"),
    ("phones", "You can call us on 01632 960142, any time.", "You can call us on [phone], any time."),
    ("phones", "It is +49 30 901820 or +44 (0)20 7946 0018.", "It is [phone] or [phone]."),
    ("phones", "mine is (212) 555-0123", "mine is [phone]"),
    ("phones", "212-555-0123 is new", "[phone] is new"),
    ("phones", "Ruf an: 0171 2345678", "Ruf an: [phone]"),
    ("phones", "my mobile is 07911123456", "my mobile is [phone]"),
    ("phones", "text me: 5551234567", "text me: [phone]"),
    ("cards", "4111 1111 1111 1111 is the card", "[card] is the card"),
    ("cards", "378282246310005", "[card]"),
    ("cards", "5555-5555-5555-4444", "[card]"),
    ("bank_accounts", "to DE89 3704 0044 0532 0130 00 please", "to [account] please"),
    ("bank_accounts", "GB29NWBK60161331926819", "[account]"),
    ("machine_addresses", "It runs on 203.0.113.17.", "It runs on [address]."),
    ("machine_addresses", "ping 2001:db8:85a3::8a2e:370:7334 now", "ping [address] now"),
    ("machine_addresses", "00:1A:2b:3c:4D:5e", "[address]"),
    ("machine_addresses", "ping fe80::1ff:fe23:4567:890a%eth0 now", "ping [address] now"),
    ("phones", "我的手机是13812345678", "我的手机是[phone]"),
    ("phones", "Call 9876543210 tonight", "Call [phone] tonight"),
    ("identity_numbers", "My number is 536-90-4399, ok?", "My number is [id], ok?"),
    ("identity_numbers", "SSN: 536904399", "SSN: [id]"),
    ("identity_numbers", "身份证 11010519491231002X 在这里", "身份证 [id] 在这里"),
    ("identity_numbers", "CPF 390.533.447-05.", "CPF [id]."),
    ("identity_numbers", "DNI 54362315K", "DNI [id]"),
    ("identity_numbers", "RCCMNL83S18D969H is mine", "[id] is mine"),
    ("identity_numbers", "hetu 131052-308T", "hetu [id]"),
    ("identity_numbers", "personnummer 880320-0016", "personnummer [id]"),
    ("identity_numbers", "PESEL 44051401359", "PESEL [id]"),
    (
        "identity_numbers",
        "NI number QQ 12 34 56 C is an example, AB 12 34 56 C is not",
        "NI number QQ 12 34 56 C is an example, [id] is not",
    ),
    ("identity_numbers", "Steuer-ID: 36 574 261 809", "Steuer-ID: [id]"),
    ("identity_numbers", "my passport is X1234567", "my passport is [id]"),
    ("identity_numbers", "passport AB123456", "passport [id]"),
    ("identity_numbers", "it is AB123456C", "it is [id]"),
    ("birth_dates", "I was born on 12 March 1984.", "I was born on [date of birth]."),
    ("birth_dates", "Date of birth: 03/04/1990", "Date of birth: [date of birth]"),
    ("birth_dates", "geboren am 3.4.1990", "geboren am [date of birth]"),
    ("birth_dates", "出生日期：1990年3月4日", "出生日期：[date of birth]"),
    ("streets", "I live at 221B Baker Street, upstairs.", "I live at [street], upstairs."),
    ("streets", "It is in the Lindenstraße 12a, Berlin.", "It is in the [street], Berlin."),
    ("streets", "J'habite 12 rue de la Paix à Paris.", "J'habite [street] à Paris."),
    ("streets", "Vivo en la Calle Mayor 5.", "Vivo en la [street]."),
    ("streets", "我住在中山路12号。", "我住在[street]。"),
    ("keys", "AKIA" + "IOSFODNN7EXAMPLE", "[key]"),
    ("keys", "ghp_" + "a1B2" * 9, "[key]"),
    ("keys", "sk-proj-" + "a1B2" * 6, "[key]"),
    ("keys", "hf_" + "a1B2c" * 7, "[key]"),
    ("keys", "xoxb-" + "123456789012-abcdef", "[key]"),
    ("keys", "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", "[key]"),
    ("keys", "-----BEGIN RSA PRIVATE " + "KEY-----\nMIIEow\nIBAA==\n-----END RSA PRIVATE KEY----- ok", "[key] ok"),
    ("keys", "api_key = '9f86d081884c7d659a2feaa0c55ad015'", "api_key = '[key]'"),
    ("keys", "Authorization: Bearer 9f86d081884c7d659a2f", "Authorization: Bearer [key]"),
    ("keys", "password: hunter2!", "password: [key]"),
]
HARMLESS = [
    "In 1987 and 2019-2020 it rained; 1998 1999 2000 too.",
    "It costs $1,299.00 or 1 000 000 000 yen, 12.50 - 14.50 a piece.",
    "From 09:30 to 10:45, on 12.10.2023, 2023-10-12 14:30 or 01/02/2003.",
    "Order 4471234567 and invoice 2023-000123456 are on their way.",
    "Call me in 2024 or 2025, at 10 or 11.",
    "Version 1.2.3.4, v10.15.7.1, Chrome 120.0.6099.109 and section 10.2.3.4.",
    "The ISBN is 978-0-306-40615-7.",
    "Order 536-90-43991, code 000-12-3456, ticket 110105194912310021 and part 12345678A.",
    "I was born in 1984 and moved on 12 March 2003.",
    "We have 3 shops in the High Street, 2 on the Main Road, and St. 4 is Saint Luke.",
    "Half of the 12 roads lead to Rome; drive 20 miles down the lane.",
    "4111 1111 1111 1112 fails the check, so does DE89 3704 0044 0532 0130 01.",
    "1234567890123456789012345678901234567890",
    "Pi is 3.14159265358979 and 0.123456789.",
    "127.0.0.1, 0.0.0.0, 255.255.255.0 and 999.1.1.1",
    "std::vector a::b 10:20:30:40:50:60 at 12:30:45",
    "me@home, @friend, a @ b.com, user@localhost",
    "The password is secret. The key: patience. Token of appreciation, internationalization of everything.",
    "My secret transportation2023 plan, the key internationalisation2 words.",
    "sk-ip the line, my task-list-of-very-long-things-to-do",
    "I scored 100 200 300 points and 7 8 9 10 11 12 13.",
]


@pytest.mark.parametrize(("kind", "text", "expected"), PRIVATE)
def test_private_data_is_found_and_masked(kind: str, text: str, expected: str) -> None:
    assert {span.kind for span in find_private(text)} == {kind}
    assert mask_private(text) == expected
    assert mask_private(text, {kind}) == expected
    assert mask_private(text, set(PRIVATE_KINDS) - {kind}) == text


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_private_is_left_alone(text: str) -> None:
    assert mask_private(text) == text


PIECES = st.sampled_from([text for _, text, _ in PRIVATE] + HARMLESS + ["@", ".", ":", " ", "1", "-", "+", "é", "\n"])


@settings(deadline=None, max_examples=60)
@given(st.lists(PIECES | st.text(max_size=20), max_size=5).map("".join))
def test_spans_are_in_order_and_the_quick_look_misses_none(text: str) -> None:
    spans = find_private(text)
    assert all(one.end <= other.start for one, other in pairwise(spans))
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    if spans:
        assert may_hold_private(text)


def test_a_quote_is_short_and_shows_nothing_private() -> None:
    text = "x " * 100 + "here is <br> jo@example.org\nand\u200b more " + "y " * 100
    expected = "…" + "x " * 8 + "here is <br> [e-mail] and? more " + "y " * 17
    assert quote(text, text.index("<br>")) == expected.strip() + "…"
    assert quote("Hi") == "Hi"


def test_a_quote_never_cuts_private_data_in_two() -> None:
    text = "a" * 50 + " someone.with.a.very.long.name@example.org is my address"
    for start in range(0, len(text)):
        assert "example" not in quote(text, start)
        assert "someone" not in quote(text, start)
