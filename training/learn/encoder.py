"""A transformer exported once: sentence-transformers folder → ONNX, int8.

The whole pipeline (transformer, pooling, what follows) becomes one graph from token ids to a vector
of length one. Weights of matrix products are int8 with a scale per output channel, those of
embedding tables int8 with a scale per row. The result is held against the original before it is
used, and kept in the cache (`training.learn.memory`) under the hash of the model's files, so that
training again needs neither torch nor the export.
"""

import json
import logging
import tempfile
import warnings
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from router.onnx_embedder import INPUT, MAX_TOKENS, OnnxEmbedder
from training.console import say, step
from training.errors import BadInput, EnvironmentProblem
from training.golden import golden_prompts
from training.learn.distill import load_encoder, model_identity, tokenizer_of, weight_files
from training.learn.memory import cache_folder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

VERSION: Final = 1  # of the export; another one makes caches void
FILES: Final = ("model.onnx", "tokenizer.json", "embedder.json", "original.npy")
MIN_COSINE: Final = 0.99
_OPSET = 17
_LARGE = 1 << 14  # weights; smaller tables stay float32


def load_export(folder: Path) -> OnnxEmbedder:
    """The embedder of a folder that `export_encoder` wrote.

    Raises:
        BadInput: a file is missing or damaged.
        EnvironmentProblem: onnxruntime is not installed.
    """
    try:
        facts = json.loads((folder / "embedder.json").read_text(encoding="utf-8"))
        digest = sha256((folder / "model.onnx").read_bytes()).hexdigest()
        if facts["sha256"] != digest:
            raise ValueError("model.onnx is not the file that embedder.json names")
        return OnnxEmbedder.load(folder, facts["max_tokens"])
    except ImportError as error:
        raise EnvironmentProblem(str(error)) from error
    except Exception as error:  # tokenizers raises a bare Exception for a damaged file
        raise _damaged(folder, error) from error


def original_of(folder: Path) -> NDArray[np.float32]:
    """What the original model makes of the golden prompts, float32[prompts, dim].

    Raises:
        BadInput: the file is damaged.
    """
    try:
        vectors: NDArray[np.float32] = np.load(folder / "original.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:  # of an empty file
        raise _damaged(folder, error) from error
    return vectors


def _damaged(folder: Path, error: Exception) -> BadInput:
    return BadInput(
        f"the encoder in {folder} cannot be loaded: {error}; delete the folder and export it again "
        "(one in the cache is made again by the next job)"
    )


def export_encoder(model_dir: Path) -> Path:
    """Export a sentence-transformers folder that begins with a transformer, or find it exported.

    Returns:
        The folder in the cache that `load_export` reads.

    Raises:
        BadInput: the model cannot be exported, or the export is not close to it.
        EnvironmentProblem: the extra `encoders` is not installed.
    """
    weight_files(model_dir)  # refuses what has no transformer
    folder = cache_folder() / "encoders" / _digest(model_dir)
    if all((folder / name).is_file() for name in FILES):
        return folder
    need("onnx", "onnxruntime", "torch")
    model = load_encoder(model_dir, attn_implementation="eager")
    with tempfile.TemporaryDirectory() as scratch, step("exporting the encoder"):
        made = Path(scratch)
        whole = _whole(model)
        try:
            write_graph(whole, made)
        except Exception as error:  # torch and onnx raise whatever the model happens to cause
            raise BadInput(f"{model_dir} cannot be exported to ONNX: {error}") from error
        tokenizer_of(model, model_dir).save(str(made / "tokenizer.json"), pretty=False)
        limit = model.max_seq_length
        longest = MAX_TOKENS if limit is None else min(int(limit), MAX_TOKENS)
        facts = describe(model_dir, made, longest)
        (made / "embedder.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        embedder = load_export(made)
        cosine = _compare(embedder, whole, made)
        say(f"{model_dir.name}: int8 keeps a mean cosine of {cosine:.4f} to the original")
        if not cosine >= MIN_COSINE:
            raise BadInput(
                f"{model_dir}: as int8 its vectors keep a mean cosine of {cosine:.4f} only "
                f"(needed: {MIN_COSINE}); distil it into a table instead (suffice distill)"
            )
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (folder / f".{name}").write_bytes((made / name).read_bytes())
            (folder / f".{name}").replace(folder / name)
    return folder


def need(*packages: str) -> None:
    """Raise EnvironmentProblem where a package of the extra `encoders` is not installed."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise EnvironmentProblem(
            f"exporting a transformer needs {', '.join(missing)}: pip install torch==2.13.0 && "
            "pip install 'suffice[encoders]'"
        )


def _digest(model_dir: Path) -> str:
    digest = sha256(f"{VERSION} {MAX_TOKENS}".encode())
    for file in sorted(path for path in model_dir.rglob("*") if path.is_file()):
        digest.update(str(file.relative_to(model_dir)).encode())
        digest.update(sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:24]


def _whole(model: "SentenceTransformer") -> Any:
    """The model as one function of token ids: int64[1, t] → float32[1, dim] of length one."""
    import torch

    names = model.tokenizer.model_input_names

    class Whole(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.steps = model

        def forward(self, ids: Any) -> Any:
            features = {INPUT: ids, "attention_mask": torch.ones_like(ids)}
            if "token_type_ids" in names:
                features["token_type_ids"] = torch.zeros_like(ids)
            for part in self.steps:
                features = part(features)
            return torch.nn.functional.normalize(features["sentence_embedding"], dim=-1)

    return Whole().eval()


def write_graph(whole: Any, folder: Path) -> None:
    """Trace a function of token ids, int64[1, t] → float32[1, d], quantise, write model.onnx."""
    import torch
    from onnxruntime.quantization import QuantType, quant_pre_process, quantize_dynamic

    with tempfile.TemporaryDirectory() as scratch:  # what they write is ten times the model
        traced, ready, products = (f"{scratch}/{name}" for name in ("traced", "ready", "part"))
        example = torch.arange(6)[None] + 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on tracing; the comparison judges it, at many lengths
            torch.onnx.export(
                whole,
                (example,),
                traced,
                dynamo=False,
                opset_version=_OPSET,
                input_names=[INPUT],
                output_names=["sentence_vector"],
                dynamic_axes={INPUT: {1: "tokens"}},
            )
            logging.disable(logging.WARNING)
            try:
                quant_pre_process(traced, ready, skip_symbolic_shape=True)
                quantize_dynamic(
                    ready,
                    products,
                    op_types_to_quantize=["MatMul", "Gemm"],
                    weight_type=QuantType.QInt8,
                    per_channel=True,
                )
            finally:
                logging.disable(logging.NOTSET)
        _quantise_tables(products, str(folder / "model.onnx"))


def _quantise_tables(source: str, out: str) -> None:
    """Make tables that are looked up by row int8, with a scale per row."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(source)
    graph = model.graph
    looked_up = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    looked_up -= {
        name
        for node in graph.node
        for i, name in enumerate(node.input)
        if node.op_type != "Gather" or i > 0
    }
    tables, others = {}, []
    for weights in graph.initializer:
        table = numpy_helper.to_array(weights)
        if weights.name not in looked_up or table.ndim != 2 or table.size < _LARGE:
            others.append(weights)
            continue
        scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12) / np.float32(127)
        whole = np.rint(table / scale).astype(np.int8)
        tables[weights.name] = [
            numpy_helper.from_array(whole, f"{weights.name}.int8"),
            numpy_helper.from_array(scale.astype(np.float32), f"{weights.name}.scale"),
        ]
    nodes: list[Any] = []
    for node in graph.node:
        if node.op_type != "Gather" or node.input[0] not in tables:
            nodes.append(node)
            continue
        name, rows, result = node.input[0], node.input[1], node.output[0]
        nodes += [
            helper.make_node("Gather", [f"{name}.int8", rows], [f"{result}.int8"]),
            helper.make_node("Cast", [f"{result}.int8"], [f"{result}.whole"], to=1),
            helper.make_node("Gather", [f"{name}.scale", rows], [f"{result}.scale"]),
            helper.make_node("Mul", [f"{result}.whole", f"{result}.scale"], [result]),
        ]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*others, *(part for pair in tables.values() for part in pair)])
    onnx.checker.check_model(model)
    onnx.save(model, out)


def describe(model_dir: Path, made: Path, max_tokens: int) -> dict[str, Any]:
    """What embedder.json says of the model.onnx in `made`, exported from `model_dir`."""
    name, licence, digest = model_identity(model_dir)
    return {
        "kind": "onnx",
        "max_tokens": max_tokens,
        "source": {"name": name, "sha256": digest, "licence": licence},
        "sha256": sha256((made / "model.onnx").read_bytes()).hexdigest(),
        "versions": {name: version(name) for name in ("torch", "onnx", "onnxruntime")},
    }


def _compare(embedder: OnnxEmbedder, whole: Any, folder: Path) -> float:
    """Mean cosine to the original over the golden prompts; writes the original's vectors."""
    ours, original = both(embedder, whole, [prompt.text for prompt in golden_prompts()])
    np.save(folder / "original.npy", original, allow_pickle=False)
    known = original.any(axis=1)
    return float((ours[known] * original[known]).sum(axis=1).mean())


def both(
    embedder: OnnxEmbedder, whole: Any, texts: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What export and original make of texts, float32[n, d] each; zeros where there is no token."""
    import torch

    ours, theirs = [], []
    for text in texts:
        ids = embedder.tokenize(text)
        ours.append(embedder.embed(ids))
        with torch.inference_mode():
            framed = torch.from_numpy(embedder.framed(ids))
            theirs.append(whole(framed)[0].numpy() if len(ids) else np.zeros_like(ours[-1]))
    return np.array(ours), np.array(theirs, dtype=np.float32)
