"""Small cases whose scores can be computed by hand."""

from __future__ import annotations

import pytest

from chat_app.evaluation.metrics import bleu, distinct, mean_words, penalty, reward, words
from chat_app.evaluation.segmentation import choose_tokenizer, describe_tokenizer


def test_words() -> None:
    assert words("Don't stop, now!") == ["don't", "stop", ",", "now", "!"]


def test_bleu_of_the_same_text_is_100() -> None:
    assert bleu(["the cat sat on the mat"], ["the cat sat on the mat"]) == pytest.approx(100)
    assert bleu(["dogs"], ["the cat sat on the mat"]) < 5
    assert bleu([], []) == 0


def test_distinct() -> None:
    assert distinct(["a b a b"], 1) == 0.5
    assert distinct(["a b a b"], 2) == pytest.approx(2 / 3)
    assert distinct(["a"], 2) == 0


def test_reward_is_the_share_of_expected_words() -> None:
    assert reward(["we open at nine"], ["we close at nine"]) == 0.75
    assert reward(["nine nine"], ["nine"]) == 1
    assert reward([""], [""]) == 0


def test_penalty_is_the_share_of_immediate_repeats() -> None:
    assert penalty(["the the cat"]) == pytest.approx(1 / 3)
    assert penalty(["fine"]) == 0


class TestWithoutSpaces:
    """Languages that do not separate words by spaces."""

    def test_characters_are_words(self) -> None:
        assert words("你好，Hello 世界") == ["你", "好", "，", "hello", "世", "界"]
        assert reward(["我们九点开门"], ["我们九点关门"]) == pytest.approx(5 / 6)
        assert distinct(["我们我们"], 1) == 0.5
        assert mean_words(["你好。"]) == 2
        assert penalty(["好的的"]) == pytest.approx(1 / 3)

    @pytest.mark.parametrize(
        "text",
        [
            "你好，我很高兴见到你。",
            "今日はいい天気ですね、散歩しましょう",
            "สวัสดีครับ วันนี้อากาศดีมาก",
            "안녕하세요 만나서 정말 반갑습니다",
        ],
    )
    def test_bleu_of_the_same_text_is_100(self, text: str) -> None:
        assert bleu([text], [text]) == pytest.approx(100)

    def test_bleu_counts_what_is_shared(self) -> None:
        near, far = (
            bleu([reply], ["我们早上九点开门，晚上六点关门。"]) for reply in ("我们早上九点开门。", "对不起，我不知道")
        )
        assert near > 20 > far

    @pytest.mark.parametrize(
        ("texts", "tokenizer"),
        [
            (["We open at nine."], "13a"),
            (["Мы открываемся в девять."], "13a"),
            (["我们九点开门。", "OK"], "zh"),
            (["The word 你好 means hello, and that is all."], "13a"),
            (["ขอบคุณค่ะ"], "char"),
            (["...", "42"], "13a"),
            ([], "13a"),
        ],
    )
    def test_the_tokenizer_suits_the_script(self, texts: list[str], tokenizer: str) -> None:
        assert choose_tokenizer(texts) == tokenizer

    def test_japanese_is_no_chinese(self) -> None:
        assert choose_tokenizer(["今日はいい天気ですね"]) in ("char", "ja-mecab")

    def test_it_is_said(self) -> None:
        assert "over Chinese characters" in describe_tokenizer("zh")
        assert describe_tokenizer("13a") == ""
