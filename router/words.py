"""Tokenizing by a memory of words: most words of a prompt were seen before.

BERT's tokenizers cut a text at whitespace and punctuation and then read each word by itself. So the
tokens of a text are those of its words, and a word's tokens can be kept. The library reads only the
words that are new, all of a text at once: what is kept is its answer, never a second opinion.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

WORDS_KEPT: Final = 32_768
LONGEST_WORD: Final = 64  # characters; longer ones are rare, and could fill the memory

# Every version of Unicode agrees on these characters: they are part of a word (symbols are, too), a
# word by themselves (punctuation, ideographs), or whitespace. A text with any other character is
# tokenized whole: a sigma's lower case depends on its place, and marks join what is before them.
_SYMBOLS: Final = "€™←-⋿─-❧➔-➿\ufe0f\u200d🇦-🇿🌀-🙏🚀-🛅🤐-🧿"
_LETTERS: Final = f"a-z0-9¢-¦¨-ª¬®-µ¸-º¼-¾×ß-žα-ρτ-ωа-яё⁰⁴-⁹₀-₉{_SYMBOLS}"
_ALONE: Final = "!-/:-@\\[-`{-~¡§«¶·»¿‐-…′″‹›、。！，：；？（）一-龥"
_WORD: Final = re.compile(f"[{_LETTERS}]+|[{_ALONE}]")
_UNSURE: Final = re.compile(f"[^ \t\n\r\u00a0{_LETTERS}{_ALONE}]")


class Words:
    """Token ids of texts; safe to share between threads.

    Attributes:
        tokenizer: the tokenizer, set to neither truncate nor pad.
    """

    __slots__ = ("_added", "_by_word", "_known", "tokenizer")

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Take a tokenizer of any kind; only an uncased BERT's tokens are kept by word."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.tokenizer = tokenizer
        self._by_word = _reads_word_by_word(tokenizer)
        self._added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        self._known: dict[str, bytes] = {}

    def ids(self, text: str) -> NDArray[np.int64]:
        """Token ids, int64[t], without special tokens.

        Raises:
            ValueError: the tokenizer failed on the text.
        """
        words = self._split(text)
        if words is None:
            return self._read(text)
        known = self._known  # another thread may put an empty one in its place
        try:
            return np.frombuffer(b"".join(map(known.__getitem__, words)), dtype=np.int64)
        except KeyError:
            new = [word for word in dict.fromkeys(words) if word not in known]
        if new and not self._learn(new, known):  # another thread may just have learned them all
            return self._read(text)
        return np.frombuffer(b"".join(map(known.__getitem__, words)), dtype=np.int64)

    def places(self, text: str) -> list[tuple[int, int]]:
        """Where in the text each token of `ids` stands, (start, end) in characters."""
        found: list[tuple[int, int]] = encode(self.tokenizer, text).offsets
        return found

    def _split(self, text: str) -> list[str] | None:
        """The words of a text, in lower case; None where it has to be tokenized whole."""
        if not self._by_word or any(token in text for token in self._added):
            return None
        lower = text.lower()
        return None if _UNSURE.search(lower) else _WORD.findall(lower)

    def _read(self, text: str) -> NDArray[np.int64]:
        return np.array(encode(self.tokenizer, text).ids, dtype=np.int64)

    def _learn(self, words: Sequence[str], known: dict[str, bytes]) -> bool:
        """Tokenize new words and keep their tokens; False if that cannot be done word by word."""
        joined = " ".join(words)
        # In lower case, or joined, they may spell an added token that is not in the text itself.
        if max(map(len, words)) > LONGEST_WORD or any(token in joined for token in self._added):
            return False
        read = encode(self.tokenizer, joined)
        # By where a token stands, as the library may cut a word in two: it takes the stroke off ≠.
        begins = list(accumulate((len(word) + 1 for word in words[:-1]), initial=0))
        parts: list[list[int]] = [[] for _ in words]
        for token, (start, _) in zip(read.ids, read.offsets, strict=True):
            parts[bisect_right(begins, start) - 1].append(token)
        if not all(parts):
            return False
        if len(self._known) + len(words) > WORDS_KEPT:
            self._known = {}
        known.update(zip(words, (np.array(part).tobytes() for part in parts), strict=True))
        return True


def _reads_word_by_word(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer is uncased BERT's, and looks for nothing across words."""
    normalizer = tokenizer.normalizer
    return (
        isinstance(tokenizer.model, WordPiece)
        and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
        and isinstance(normalizer, BertNormalizer)
        and normalizer.clean_text
        and normalizer.handle_chinese_chars
        and normalizer.lowercase
        and not any(token.normalized for token in tokenizer.get_added_tokens_decoder().values())
    )


def encode(tokenizer: Tokenizer, text: str, special: bool = False) -> Any:
    """A text by a tokenizer (`tokenizers.Encoding`), with its special tokens if asked for.

    Raises:
        ValueError: the tokenizer panicked.
    """
    try:
        return tokenizer.encode(text, add_special_tokens=special)
    except BaseException as error:
        raise_panic(error)
        raise


def raise_panic(error: BaseException) -> None:
    """Raise ValueError if `error` is a panic of Rust, which the tokenizers library lets through.

    Its class cannot be imported, and derives from BaseException, so `except Exception` would miss
    it: `route` would raise, and a damaged tokenizer would not be refused.
    """
    if type(error).__name__ == "PanicException":
        raise ValueError(f"tokenizer: {error}") from error
