"""Words of a text in any language: scripts without spaces between words are taken a character at a time."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence

# Chinese characters, kana, Thai, Lao, Burmese, Khmer.
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
KANA = "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"
SOUTH_EAST = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
NO_SPACES = f"{KANA}{HAN}{SOUTH_EAST}"

_HAN, _KANA, _SOUTH_EAST = (re.compile(f"[{script}]") for script in (HAN, KANA, SOUTH_EAST))
_LETTER = re.compile(r"[^\W\d_]")
# A script counts as that of the texts from this share of their letters on: names in Latin letters stand in any text.
_MAIN_SHARE = 0.3

# What texts are taken apart into where it is not words that spaces separate.
_UNITS = {"zh": "Chinese characters", "ja-mecab": "Japanese words by MeCab", "char": "characters"}


def describe_tokenizer(name: str) -> str:
    """A sentence about a tokenizer of sacrebleu for people; empty for its default, which needs none."""
    if name not in _UNITS:
        return ""
    return f"These replies have no spaces between words: BLEU is counted over {_UNITS[name]}, all else over characters."


def choose_tokenizer(texts: Sequence[str]) -> str:
    """The tokenizer of sacrebleu that suits the script of texts.

    Returns:
        "zh" for Chinese, "ja-mecab" for Japanese where MeCab is installed, "char" for Japanese without it and for Thai,
        Lao, Burmese and Khmer, else sacrebleu's own default, "13a".
    """
    joined = "".join(texts)
    letters = len(_LETTER.findall(joined))
    han, kana, south_east = (len(script.findall(joined)) for script in (_HAN, _KANA, _SOUTH_EAST))
    if not letters or han + kana + south_east < _MAIN_SHARE * letters:
        return "13a"
    if south_east > han + kana:
        return "char"
    if kana > 0.05 * (han + kana):  # Japanese is never without kana for long; Chinese has none but in names.
        return "ja-mecab" if importlib.util.find_spec("MeCab") and importlib.util.find_spec("ipadic") else "char"
    return "zh"
