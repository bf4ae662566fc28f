"""Artifacts with a fine-tuned encoder: one more member, one more folder under the same checks."""

from pathlib import Path

import numpy as np
import pytest

from router import ArtifactError, Router
from router.artifact import load_artifact
from router.prompt import Prompt
from tests.builders import edit_arrays, edit_manifest, make_artifact, make_encoder
from training.golden import replay
from training.learn.reference import read_references
from training.show.contributions import READ, contribute

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
OLD = Path(__file__).parent / "artifacts"
TEXTS = ["the cat of the mat", "sum", "code code code", "", "x" * 4000]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return make_artifact(tmp_path_factory.mktemp("tuned") / "artifact", encoder=make_encoder())


def test_what_was_exported_is_served(original):
    artifact = load_artifact(original)
    assert artifact.manifest["protocol"] == 4
    assert {"encoder/model.onnx", "encoder/tokenizer.json"} < set(artifact.manifest["files"])
    assert replay(artifact.predictor, artifact.golden) == 0.0
    router = Router(artifact)
    for text in TEXTS:
        assert router.route(text).reason == "policy"


def test_the_encoder_counts_by_its_weights(original):
    """Each tier's combined margin moves by what the encoder says, as the blend weighs it."""
    predictor = load_artifact(original).predictor
    vector = predictor.vectorizer.vector(Prompt.of("the cat of the mat"))
    said = make_encoder().embed(make_encoder().tokenize("the cat of the mat"))
    np.testing.assert_array_equal(vector.read, said)
    heads = [predictor.heads[k] for k in predictor.learned]
    others = np.array(
        [
            predictor.panel.linear_margins(vector),
            predictor.panel.forest_margins(vector.dense),
            predictor.neighbours.margins(vector.dense),
        ]
    )
    blend, mean = predictor.blend, others.mean(axis=1)
    expected = blend.level[:3] @ mean + blend.gap[:3] @ (others - mean[:, None])
    expected += blend.level[3] * said.mean() + blend.gap[3] * (said - said.mean())
    p = [head.calibration.probability_of(z) for head, z in zip(heads, expected, strict=True)]
    assert predictor.probabilities(vector)[:2] == pytest.approx(p, abs=1e-12)


def test_parts_of_an_explanation_add_up_and_name_the_encoder(original):
    predictor = load_artifact(original).predictor
    vector = predictor.vectorizer.vector(Prompt.of("the capital of france"))
    references, _ = read_references({}, predictor)
    parts = contribute(predictor, references, vector)
    heads = [predictor.heads[k] for k in predictor.learned]
    margin = [h.calibration.probability(m) for h, m in zip(heads, parts.margin, strict=True)]
    assert margin == pytest.approx(predictor.probabilities(vector)[:2], abs=1e-9)
    assert np.abs(parts.by_group[READ]).sum() > 0


@pytest.mark.parametrize("protocol", [4, 5])
def test_artifacts_of_old_protocols_stay_readable(protocol):
    """Committed with that protocol, and never written again: what services have on disk."""
    artifact = load_artifact(OLD / f"protocol-{protocol}")
    assert artifact.manifest["protocol"] == protocol
    assert replay(artifact.predictor, artifact.golden) < 1e-6
    assert Router(artifact).route("What is the capital of France?").reason == "policy"


@pytest.mark.parametrize("name", ["encoder/model.onnx", "encoder/tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_damaged_encoder_is_refused(folder, name, damage):
    file = folder / name
    raw = file.read_bytes()
    file.unlink()
    if damage == "changed":
        file.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=name):
        load_artifact(folder)


def test_what_does_not_fit_the_encoder_is_refused(folder):
    def lose_a_weight(arrays):
        arrays["blend.level"] = arrays["blend.level"][:3]
        arrays["blend.gap"] = arrays["blend.gap"][:3]

    edit_arrays(folder, lose_a_weight)
    with pytest.raises(ArtifactError, match="blend"):
        load_artifact(folder)


@pytest.mark.parametrize(
    "entry", [None, "onnx", {}, {"kind": "static"}, {"kind": "onnx", "max_tokens": "many"}]
)
def test_an_odd_entry_is_refused(folder, entry):
    edit_manifest(folder, lambda manifest: manifest.update(encoder=entry))
    with pytest.raises(ArtifactError):
        load_artifact(folder)
