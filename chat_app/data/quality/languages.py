"""Language identification: the shares of languages in a random sample of texts."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

SAMPLE = 2_000
SEED = 42
LEAST_SHARE = 0.02
FEWEST_LETTERS = 15
MAX_CHARACTERS = 600
OTHER = "other"

_NAMES = dict(
    re.findall(
        r"(\w+):(\w+)",
        "af:Afrikaans am:Amharic ar:Arabic az:Azerbaijani be:Belarusian bg:Bulgarian bn:Bengali bs:Bosnian ca:Catalan "
        "cs:Czech cy:Welsh da:Danish de:German el:Greek en:English eo:Esperanto es:Spanish et:Estonian eu:Basque "
        "fa:Persian fi:Finnish fr:French ga:Irish gl:Galician gu:Gujarati he:Hebrew hi:Hindi hr:Croatian hu:Hungarian "
        "hy:Armenian id:Indonesian is:Icelandic it:Italian ja:Japanese ka:Georgian kk:Kazakh km:Khmer kn:Kannada "
        "ko:Korean la:Latin lo:Lao lt:Lithuanian lv:Latvian mk:Macedonian ml:Malayalam mn:Mongolian mr:Marathi "
        "ms:Malay mt:Maltese nb:Norwegian ne:Nepali nl:Dutch nn:Norwegian no:Norwegian pa:Punjabi pl:Polish ps:Pashto "
        "pt:Portuguese ro:Romanian ru:Russian si:Sinhala sk:Slovak sl:Slovenian sq:Albanian sr:Serbian sv:Swedish "
        "sw:Swahili ta:Tamil te:Telugu th:Thai tl:Tagalog tr:Turkish uk:Ukrainian ur:Urdu vi:Vietnamese yue:Cantonese "
        f"zh:Chinese zxx:{OTHER}",
    )
)


class Languages:
    """Keeps a uniform sample of the texts (reservoir sampling, Vitter's algorithm R) with a fixed seed."""

    def __init__(self) -> None:
        self._sample: list[str] = []
        self._seen = 0
        self._random = Random(SEED)

    def add(self, text: str) -> None:
        self._seen += 1
        if len(self._sample) < SAMPLE:
            self._sample.append(text[:MAX_CHARACTERS])
            return
        place = int(self._random.random() * self._seen)
        if place < SAMPLE:
            self._sample[place] = text[:MAX_CHARACTERS]

    def compute_shares(self) -> tuple[tuple[str, float], ...]:
        """Identify the languages of the sample.

        Returns:
            (name, share from 0 to 1), the most common first. "other" has the languages below 2 % and the texts that are
            too short to tell.
        """
        if not self._sample:
            return ()
        counts = Counter(_classify(text) for text in self._sample)
        least = LEAST_SHARE * len(self._sample)
        common = {name: count for name, count in counts.items() if name != OTHER and count >= least}
        shares = sorted(common.items(), key=lambda pair: (-pair[1], pair[0]))
        rest = len(self._sample) - sum(common.values())
        return tuple((name, count / len(self._sample)) for name, count in [*shares, *([(OTHER, rest)] if rest else [])])


def _classify(text: str) -> str:
    letters = sum(sign.isalpha() for sign in text)
    if letters < (FEWEST_LETTERS if text.isascii() else FEWEST_LETTERS // 3):
        return OTHER
    import py3langid

    code = str(py3langid.classify(text.encode("utf-8", "replace").decode("utf-8"))[0])
    return str(_NAMES.get(code, code))
