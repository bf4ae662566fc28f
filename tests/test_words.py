"""A memory of words says what the tokenizer itself says, of any text."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, Whitespace

from router import words as module
from router.words import Words
from tests.builders import make_tokenizer
from training.learn.embedders import STATIC

REAL = Tokenizer.from_file(str(STATIC / "tokenizer.json"))
KEPT = Words(Tokenizer.from_file(str(STATIC / "tokenizer.json")))
# Where texts of one kind meet characters of another, Unicode's rules are the hardest to follow.
MIXED = st.text(
    st.one_of(
        st.sampled_from("abcxyzABCXYZ0129 .,!?'-\n\t"),
        st.sampled_from(
            "éßſİıKÅẞñçĳŉ“”’–…×÷°²½µ\u00ad\u00a0\u0301дёйЩσΣπΩ→≤≠₂中国語。，한かカ😀❤👍🏽🇩\ufe0f\u200d\x00\x1c\u200b"
        ),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=60,
)


def truth(text: str) -> list[int]:
    return list(REAL.encode(text, add_special_tokens=False).ids)


@settings(max_examples=400)
@given(MIXED)
def test_any_text_has_the_tokens_of_the_tokenizer(text: str) -> None:
    for _ in range(2):  # once to learn the words, once from memory
        assert KEPT.ids(text).tolist() == truth(text)


def test_every_character_alone_and_inside_a_word() -> None:
    characters = [chr(c) for c in range(0x20000) if not 0xD800 <= c < 0xE000]
    quick = [c for c in characters if KEPT._split(f"ab{c}cd") is not None]
    assert len(quick) > 23_000 and {*"azAZ09.é’中дπΔ→≤₂€😀👍🏽🧠"} <= {*quick}
    for character in quick:
        for text in (
            character,
            f"ab{character}cd",
            f"{character}{character} A{character}",
            f"é{character}e π{character}",
        ):
            assert KEPT.ids(text).tolist() == truth(text)


def test_a_word_that_is_cut_beside_words_that_vanish() -> None:
    """≠ becomes =, which stands alone; of a variation selector nothing is left."""
    kept = Words(Tokenizer.from_file(str(STATIC / "tokenizer.json")))
    for text in ("a≠b \ufe0f \u200d", "x≠y❤\ufe0f z", "x≠y \ufe0f", "a≠b", "x≠y z"):
        assert kept.ids(text).tolist() == truth(text)


def test_what_is_remembered_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Words(make_tokenizer())
    first = kept.ids("What is the capital, capital of Zoologica 7?")

    class Closed:
        def encode(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("read again")

    monkeypatch.setattr(kept, "tokenizer", Closed())
    again = kept.ids("what is THE Capital, capital of zoologica 7?")
    np.testing.assert_array_equal(first, again)
    with pytest.raises(AssertionError):
        kept.ids("what is the plural?")


def test_special_tokens_in_a_text_are_what_the_tokenizer_makes_of_them() -> None:
    for text in ("a [MASK] b", "[CLS]", "x[SEP]y [sep] [ MASK ]"):
        assert KEPT.ids(text).tolist() == truth(text)
    assert 103 in KEPT.ids("a [MASK] b") and 103 not in KEPT.ids("a [mask] b")


def test_an_added_token_that_only_the_small_or_joined_words_spell() -> None:
    def made() -> Tokenizer:
        tokenizer = make_tokenizer()
        added = [AddedToken(content, normalized=False) for content in ("mask", "is a")]
        tokenizer.add_special_tokens(added)
        return tokenizer

    kept, plain = Words(made()), made()
    for text in ("what MASK is", "MASK", "what Masks", "is\n\nabc", "IS\nA", "mask is a", "IS A B"):
        for _ in range(2):
            assert kept.ids(text).tolist() == plain.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("text", ["", " \n\t ", "x" * 5000, "word " * 5000, "[" * 5000])
def test_lengths_at_both_ends(text: str) -> None:
    assert KEPT.ids(text).tolist() == truth(text)
    assert KEPT.ids(text).dtype == np.int64


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WORDS_KEPT", 50)
    kept, plain = Words(make_tokenizer()), make_tokenizer()
    for i in range(300):
        text = f"is {i} the sum of {i * 7} {'longword' * (i % 20)}"
        assert kept.ids(text).tolist() == plain.encode(text).ids
        assert len(kept._known) <= 50
    assert max(map(len, kept._known), default=0) <= module.LONGEST_WORD


def cased() -> Tokenizer:
    tokenizer = Tokenizer(WordPiece({"[UNK]": 0, "Word": 1, "word": 2}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return tokenizer


def by_whitespace() -> Tokenizer:
    tokenizer = make_tokenizer()
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer


def with_a_word_across_words() -> Tokenizer:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["new york"])
    return tokenizer


@pytest.mark.parametrize("make", [cased, by_whitespace, with_a_word_across_words])
def test_other_tokenizers_read_every_text_whole(make: Any) -> None:
    kept, plain = Words(make()), make()
    for text in ("Word word", "what's the sum?", "is NEW YORK new york a capital?") * 2:
        assert kept.ids(text).tolist() == plain.encode(text, add_special_tokens=False).ids
    assert not kept._known


def test_threads_share_one_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WORDS_KEPT", 40)
    kept = Words(make_tokenizer())
    texts = [f"solve {i} + {i * i} = {'please ' * (i % 5)}?" for i in range(200)]
    expected = [make_tokenizer().encode(text).ids for text in texts]
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: [kept.ids(text).tolist() for text in texts], range(8)):
            assert found == expected


def test_a_truncating_tokenizer_is_set_right(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    assert len(Words(tokenizer).ids("what is the capital of france")) == 6


def test_words_that_another_thread_learns_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "entirely new words"
    words, other = Words(make_tokenizer()), Words(make_tokenizer())
    expected = other.ids(text).tolist()

    class Slow(dict[str, bytes]):
        """At the first word that is missing the other thread has learned them all."""

        def __getitem__(self, word: str) -> bytes:
            if word not in self:
                self.update(other._known)
                raise KeyError(word)
            return super().__getitem__(word)

    monkeypatch.setattr(words, "_known", Slow())
    assert words.ids(text).tolist() == expected
