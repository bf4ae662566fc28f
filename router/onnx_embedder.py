"""A transformer as the embedder, by ONNX Runtime (extra `onnx`)."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from router.embedder import cut_tokens
from router.onnx_graph import check_graph
from router.words import Words, encode

MAX_TOKENS: Final = 512
INPUT: Final = "input_ids"
# Its operator takes 0.22 ms at 110 tokens, the two that it replaces 0.05 (onnxruntime 1.32).
_SLOW: Final = "SkipLayerNormFusion"
# x86 without VNNI adds pairs of int8 products in 16 bits and cuts off what does not fit: MiniLM's
# vectors had a mean cosine of .989 to the right ones. There whole sums take a fifth more time.
_WHOLE_SUMS: Final = ("session.x64quantprecision", "1")


class OnnxEmbedder:
    """An encoder whose graph takes token ids and gives the pooled vector of length one.

    A prompt is embedded alone and without padding, in training as in serving: weights of int8 are
    multiplied with activations quantised by their range over the whole input, so that padding or a
    neighbour in a batch would change the result. One thread a call; calls may run side by side.
    """

    __slots__ = ("_after", "_before", "_model", "_room", "_session", "_words", "dim", "max_tokens")

    def __init__(self, tokenizer: Tokenizer, model: bytes, max_tokens: int) -> None:
        """Build from checked bytes.

        Args:
            tokenizer: with the post-processor that adds special tokens.
            model: ONNX, input_ids int64[1, t] → float32[1, dim].
            max_tokens: longest input, special tokens included; longer ones keep head and tail.

        Raises:
            ValueError: the graph is refused (see `check_graph`), or does not fit the above.
            ImportError: onnxruntime is not installed.
        """
        if type(max_tokens) is not int or not 2 < max_tokens <= MAX_TOKENS:
            raise ValueError(f"embedder: max_tokens must be 3…{MAX_TOKENS}, got {max_tokens!r}")
        check_graph(model)
        self._words, self._model, self.max_tokens = Words(tokenizer), model, max_tokens
        self._before, self._after = framing(tokenizer)
        self._room = max_tokens - len(self._before) - len(self._after)
        if self._room < 1:
            raise ValueError(f"embedder: max_tokens {max_tokens} leaves no room for a text")
        self._session = _session(model)
        self.dim = self._probe(int(self._words.ids("a")[0]))

    @classmethod
    def load(cls, folder: Path, max_tokens: int) -> "OnnxEmbedder":
        """Read ``tokenizer.json`` and ``model.onnx`` from a folder.

        Raises:
            ValueError, ImportError: as of the constructor.
            OSError: a file cannot be read.
        """
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        return cls(tokenizer, (folder / "model.onnx").read_bytes(), max_tokens)

    def save(self, folder: Path) -> None:
        """Write the two files that `load` reads; the folder must exist."""
        (folder / "model.onnx").write_bytes(self._model)
        self._words.tokenizer.save(str(folder / "tokenizer.json"), pretty=False)

    @property
    def entry(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {"kind": "onnx", "max_tokens": self.max_tokens}

    @property
    def model(self) -> bytes:
        """The ONNX file."""
        return self._model

    def tokenize(self, text: str) -> NDArray[np.int64]:
        """Token ids, int64[t], without special tokens.

        Raises:
            ValueError: the tokenizer failed on the text.
        """
        return self._words.ids(text)

    def places(self, text: str) -> list[tuple[int, int]]:
        """Where in the text each token of `tokenize` stands, (start, end) in characters."""
        return self._words.places(text)

    def embed(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[dim] of length one, or zeros where there is no token."""
        if not len(ids):
            return np.zeros(self.dim, dtype=np.float32)
        found = self._session.run(None, {INPUT: self.framed(ids)})[0][0]
        return np.asarray(found, dtype=np.float32)

    def framed(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The graph's input for tokens, int64[1, t]: cut, and between the special tokens."""
        return np.concatenate([self._before, cut_tokens(ids, self._room), self._after])[None]

    def _probe(self, token: int) -> int:
        """The length of a vector; embeds one token to see that the graph works at all."""
        vector = self.embed(np.array([token], dtype=np.int64))
        if vector.ndim != 1 or not len(vector) > 0 or not np.isfinite(vector).all():
            raise ValueError("model.onnx does not give one finite vector")
        return len(vector)


def framing(tokenizer: Tokenizer) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Special tokens before and after a text, int64[·] each.

    Raises:
        ValueError: the tokenizer has no token for the letter a, or fails on it.
    """
    framed = encode(tokenizer, "a", special=True)
    own = [i for i, special in enumerate(framed.special_tokens_mask) if not special]
    if not own:
        raise ValueError("tokenizer.json has no token for the letter a")
    ids = np.array(framed.ids, dtype=np.int64)
    return ids[: own[0]], ids[own[-1] + 1 :]


def _session(model: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            "the embedder is a transformer, and onnxruntime is not installed: "
            "pip install 'suffice[onnx]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # a failure is an exception, not a line on stderr
    options.add_session_config_entry(*_WHOLE_SUMS)
    try:
        session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=[_SLOW]
        )
        inputs = [(wanted.name, wanted.type) for wanted in session.get_inputs()]
    except Exception as error:  # of onnxruntime's own classes, some derived from RuntimeError
        raise ValueError(f"model.onnx cannot be run: {error}") from error
    if inputs != [(INPUT, "tensor(int64)")] or len(session.get_outputs()) != 1:
        raise ValueError(f"model.onnx must take {INPUT} alone and give one output, takes {inputs}")
    return session
