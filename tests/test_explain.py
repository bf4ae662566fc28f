"""An explanation adds up to what the router computes, and what it says of other worlds holds."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from router import Policy, Router
from router.features import NAMES
from router.head import Constant, Head
from router.predictor import Predictor
from router.prompt import Prompt
from router.tier import Tier
from tests.builders import POLICY, edit_manifest, make_artifact, make_embedder, make_predictor
from tests.traffic_makers import call, prompt_texts
from training.export import export
from training.golden import PROMPTS, golden_lines, golden_prompts
from training.learn.reference import read_references
from training.learn.vectorize import vectorize
from training.show.changes import flipping, rivals
from training.show.contributions import GROUPS, READ, SURFACE_GROUPS, contribute
from training.show.explain import Explanation, explain
from training.show.explain_json import as_json
from training.show.explain_words import lines, parts_frame

TEXT = st.text(st.characters(exclude_categories=()), max_size=200)
CHAT = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXT}
    ),
    max_size=4,
)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tiers, the top one a constant, and no averages kept: an artifact of an old version."""
    return make_artifact(tmp_path_factory.mktemp("three") / "artifact")


def router_margins(predictor: Predictor, prompt: Prompt) -> NDArray[np.float64]:
    """The learned tiers' combined log-odds, as the router computes them."""
    vector = predictor.vectorizer.vector(prompt)
    assert predictor.panel is not None
    margins = [
        predictor.panel.linear_margins(vector),
        predictor.panel.forest_margins(vector.dense),
        predictor.neighbours.margins(vector.dense),
    ]
    return predictor.blend.combine(np.array(margins))


def assert_adds_up(explanation: Explanation, prompt: Prompt) -> None:
    predictor, parts = explanation.artifact.predictor, explanation.contributions
    assert parts is not None
    np.testing.assert_allclose(parts.margin, router_margins(predictor, prompt), atol=1e-6, rtol=0)
    groups = np.sum(list(parts.by_group.values()), axis=(0, 1))
    np.testing.assert_allclose(parts.base + groups, parts.margin, atol=1e-9, rtol=0)
    moved = explanation.p[predictor.learned] - explanation.p_reference[predictor.learned]
    np.testing.assert_allclose(
        (parts.margin - parts.base) * explanation.points, moved, atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("which", ["three", "job"])
def test_contributions_add_up_to_the_margin(which: str, three: Path, job) -> None:
    path = three if which == "three" else job.artifact
    rng = np.random.default_rng(5)
    for prompt in [*PROMPTS, *prompt_texts(np.arange(10) < 5, rng), "x" * 300_000]:
        assert_adds_up(explain(path, prompt), Prompt.of(prompt))


def test_parts_in_points_add_up_to_what_moved(job) -> None:
    explanation = explain(job.artifact, "what is the eigenvalue of the bridge")
    frame = parts_frame(explanation)
    assert frame.columns.tolist() == explanation.learned
    moved = 100 * (explanation.p - explanation.p_reference)
    learned = explanation.artifact.predictor.learned
    np.testing.assert_allclose(frame.sum(), moved[learned], atol=1e-4)
    largest = frame.abs().max(axis=1)
    assert largest.is_monotonic_decreasing and largest.iloc[0] > 0


def test_any_prompt_is_explained_as_it_is_routed(three: Path) -> None:
    router = Router.load(three)

    @settings(max_examples=40)
    @given(asked=TEXT | CHAT)
    def check(asked) -> None:
        explanation, decision = explain(three, asked), router.route(asked)
        assert_adds_up(explanation, Prompt.of(asked))
        assert explanation.names[explanation.chosen] == decision.tier
        assert explanation.p.tolist() == list(decision.p_suffices.values())
        assert explanation.usd.tolist() == list(decision.expected_cost_usd.values())
        json.dumps(as_json(explanation), allow_nan=False)
        assert "What would change the decision:" in "\n".join(lines(explanation))

    check()


def test_surface_features_are_grouped_once_each() -> None:
    grouped = [name for names in SURFACE_GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(NAMES)


def test_the_average_request_is_the_average(job) -> None:
    """Over the golden prompts an old artifact is compared with, linear parts cancel out."""
    router = Router.load(job.artifact)
    predictor = router.artifact.predictor
    references, words = read_references({}, predictor)
    assert "older version" in words
    vectors = list(vectorize(predictor.vectorizer, golden_prompts()).vectors())
    parts = np.array([contribute(predictor, references, v).parts[[0, 2]] for v in vectors])
    assert np.abs(parts.mean(axis=0)).max() < 1e-6
    assert np.abs(parts).max() > 0.01


def test_training_keeps_what_to_compare_with(job) -> None:
    found = explain(job.artifact, "prove the eigenvalue theorem of norway 12")
    assert found.reference == "the average request that the router was trained on"
    small = as_json(found)["contributions"]["small"]
    assert found.p[0] < 0.5 < found.p_reference[0] + 0.1
    assert small["log_odds"] < small["log_odds_reference"]
    groups = {name: part["log_odds"] for name, part in small["groups"].items()}
    assert groups["wording"] + groups["meaning"] < -0.5
    worst = min(small["tokens"], key=lambda token: token["log_odds"])["text"]
    assert set(worst.split()) & {"eigenvalue", "theorem", "prove"} or worst in "eigenvalue"


def test_tokens_are_the_prompts_own(job) -> None:
    text = "What is the capital of Kenya, and\nwhich river?"
    found = explain(job.artifact, text)
    assert found.tokens
    assert all(piece in text for name, _ in found.tokens for piece in name.split())
    strength = [float(np.abs(push).max()) for _, push in found.tokens]
    assert strength == sorted(strength, reverse=True)


def test_the_json_tells_all(three: Path) -> None:
    told = as_json(explain(three, "solve x = 2 please?"))
    assert list(told["tiers"]) == ["small", "middle", "large"]
    assert [tier["learned"] for tier in told["tiers"].values()] == [True, True, False]
    assert list(told["contributions"]) == ["small", "middle"]
    for part in told["contributions"].values():
        assert (*part["groups"], READ) == GROUPS  # there is no encoder to read it
        total = sum(group["log_odds"] for group in part["groups"].values())
        assert part["log_odds_reference"] + total == pytest.approx(part["log_odds"], abs=1e-9)
        for group in part["groups"].values():
            assert sum(group["members"].values()) == pytest.approx(group["log_odds"], abs=1e-9)
        assert len(part["neighbours"]["nearest"]) == 3
        assert part["neighbours"]["nearest"][0]["weight"] == 1.0
    assert {rival["tier"] for rival in told["changes"]["rivals"]} == set(told["tiers"]) - {
        told["tier"]
    }


# --- policies and heads without a dial or a margin --------------------------------------------


def test_a_constant_policy_says_that_no_prompt_changes_it(tmp_path: Path) -> None:
    policy = Policy(0.0, 2, None, "nothing cheaper could be certified")
    told = explain(make_artifact(tmp_path / "a", policy), "hi")
    assert told.chosen == 2
    assert told.rivals == told.alone == told.together == ()
    text = "\n".join(lines(told))
    assert "Every request goes to large" in text
    assert "nothing cheaper could be certified" in text
    assert as_json(told)["constant"] == "large"


def test_heads_that_are_all_constants(tmp_path: Path) -> None:
    embedder = make_embedder()
    predictor = make_predictor(embedder=embedder)
    near = predictor.neighbours
    none = replace(near, rows=near.rows[:0], successes=near.successes[:0], mean=near.mean[:0])
    heads = (Constant(0.4), Constant(0.7), Constant(0.95))
    predictor = replace(predictor, heads=heads, neighbours=none)
    stated = predictor.estimate(golden_prompts()).p
    golden = golden_lines(stated, [tier.name for tier in predictor.tiers])
    export(tmp_path / "a", predictor, POLICY, golden, "card", np.zeros(0, np.uint64), {})
    told = explain(tmp_path / "a", "hi")
    assert told.contributions is None
    assert told.p.tolist() == [0.4, 0.7, 0.95]
    assert "always the same" in "\n".join(lines(told))
    assert as_json(told)["contributions"] == {}


@pytest.mark.parametrize("width", [80, 150])
def test_of_many_tiers_with_long_names_the_nearest_are_taken_apart(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every name can be read in full, and every line fits."""
    monkeypatch.setattr("training.console.WIDTH", width)
    names = [f"a-rather-long-name-of-vendor-{k}" for k in range(11)]
    tiers = tuple(Tier(name, name, 0.01 * 2**k, 0.02 * 2**k) for k, name in enumerate(names))
    predictor = make_predictor(tiers)
    golden = golden_lines(predictor.estimate(golden_prompts()).p, names)
    export(tmp_path / "a", predictor, POLICY, golden, "card", np.zeros(0, np.uint64), {})
    told = explain(tmp_path / "a", "Prove that there is no largest prime.")
    worth = told.p - POLICY.mu * told.usd
    decision, _, _, parts, *_ = lines(told)
    for table in (decision, parts):
        assert "…" not in table and max(map(len, table.splitlines())) <= width
    assert width < 100 or all(name in decision for name in names)
    learned = sorted(told.learned, key=lambda name: -worth[names.index(name)])
    text = "\n".join(lines(told))
    for place, name in enumerate(learned):
        assert (f"Past requests most like this one: {name} scored" in text) == (place < 3)
    assert "7 more tiers, farther from being chosen: see --json." in text
    assert set(as_json(told)["contributions"]) == set(names[:-1])


# --- what would change a decision -------------------------------------------------------------


@st.composite
def choices(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Probabilities and costs of two to four tiers, and a dial at which one clearly wins."""
    tiers = draw(st.integers(2, 4))
    p, usd = (
        np.array(draw(st.lists(st.floats(low, high), min_size=tiers, max_size=tiers)))
        for low, high in ((0.0, 1.0), (1e-6, 1e-2))
    )
    mu = draw(st.floats(-2000.0, 5000.0))
    value = np.sort(p - mu * usd)
    assume(value[-1] - value[-2] > 1e-6)
    return p, usd, mu


def having(values: NDArray[np.float64], place: int, value: float) -> NDArray[np.float64]:
    return np.where(np.arange(len(values)) == place, value, values)


def chosen(p: NDArray[np.float64], usd: NDArray[np.float64], mu: float) -> int:
    return int(Policy(mu).choose(p[None], usd[None])[0])


@settings(max_examples=300)
@given(choices())
def test_other_probabilities_and_prices_change_the_decision_as_told(choice) -> None:
    p, usd, mu = choice
    own, off, share = chosen(p, usd, mu), 1e-9, 1e-6
    for rival in rivals(p, usd, Policy(mu)):
        tier = rival.tier
        worlds = []  # tier and world on the far side of a limit, and on the near side
        if rival.p_own is not None:
            far, near = (having(p, own, rival.p_own + by) for by in (-off, off))
            worlds.append(((far, usd), (near, usd)))
        if rival.p_rival is not None:
            far, near = (having(p, tier, rival.p_rival + by) for by in (off, -off))
            worlds.append(((far, usd), (near, usd)))
        if rival.usd_rival is not None and mu > 0.1:
            far, near = (having(usd, tier, rival.usd_rival * (1 + by)) for by in (-share, share))
            worlds.append(((p, far), (p, near)))
        if rival.usd_own is not None and mu > 0.1:
            far, near = (having(usd, own, rival.usd_own * (1 + by)) for by in (share, -share))
            worlds.append(((p, far), (p, near)))
        for beyond, before in worlds:
            assert (p - mu * usd)[tier] <= (p - mu * usd)[own]
            assert chosen(*before, mu) == own
            assert chosen(*beyond, mu) != own


@settings(max_examples=300)
@given(choices(), st.lists(st.floats(-1e5, 1e5), min_size=5, max_size=20))
def test_a_rival_wins_at_the_dials_told_and_at_no_other(choice, dials) -> None:
    p, usd, mu = choice
    for rival in rivals(p, usd, Policy(mu)):
        low, high = rival.dials or (np.inf, -np.inf)
        assert not low < mu < high
        ends = np.clip([low, high], -1e6, 1e6)
        for dial in [mu, *dials, *np.linspace(*ends, 5).tolist()]:
            value = p - dial * usd
            lead = value[rival.tier] - np.delete(value, rival.tier).max()
            if abs(lead) > 1e-9:
                assert (lead > 0) == (low <= dial <= high)


def test_the_parts_that_carry_a_decision() -> None:
    def lead(moved: NDArray[np.float64]) -> float:
        return 1.0 + float(moved.sum())

    def push(**sizes: float) -> dict[str, NDArray[np.float64]]:
        return {name: np.array([size]) for name, size in sizes.items()}

    assert flipping(push(a=2.0, b=0.1, c=1.5), lead) == (("a", "c"), ())
    assert flipping(push(a=0.7, b=0.1, c=0.6), lead) == ((), ("a", "c"))
    assert flipping(push(a=0.3, b=-0.5, c=0.6), lead) == ((), ())


def test_parts_told_to_carry_a_decision_do(job) -> None:
    router = Router.load(job.artifact)
    predictor, mu = router.artifact.predictor, router.artifact.policy.mu
    seen = SimpleNamespace(alone=0, together=0)
    for text in prompt_texts(np.arange(40) < 20, np.random.default_rng(3)):
        told = explain(job.artifact, text)
        assert told.contributions is not None
        seen.alone += bool(told.alone)
        seen.together += bool(told.together)
        for names in [*((name,) for name in told.alone), told.together or ()]:
            if names:
                gone = sum(told.contributions.by_group[name].sum(axis=0) for name in names)
                margins = told.contributions.margin - gone
                heads = [head for head in predictor.heads if isinstance(head, Head)]
                p = [
                    h.calibration.probability(m[None])[0]
                    for h, m in zip(heads, margins, strict=True)
                ]
                moved = Policy(mu).choose(np.array([p]), told.usd[None])[0]
                assert moved != told.chosen
    assert seen.alone and seen.together


# --- the command ------------------------------------------------------------------------------


def test_the_command_speaks_to_people_and_to_machines(job, workdir: Path, capsys) -> None:
    text = "prove the eigenvalue theorem of norway 12"
    told = call(capsys, "explain", job.artifact, text)
    assert told.code == 0, told.err
    for words in ("is chosen", "part of the prompt", "What would change the decision:", "wording"):
        assert words in told.out
    (workdir / "m.json").write_text(json.dumps([{"role": "user", "content": text}]))
    machine = call(capsys, "explain", job.artifact, "--messages", "m.json", "--json")
    assert machine.code == 0, machine.err
    assert json.loads(machine.out) == as_json(explain(job.artifact, text))


def test_the_command_names_the_rule_that_decides(tmp_path: Path, capsys) -> None:
    folder = make_artifact(tmp_path / "artifact")
    rules = {"pin": {"tenant": {"acme": "large"}}}
    edit_manifest(folder, lambda manifest: manifest.update(rules=rules))
    body = {"messages": [{"role": "user", "content": "hi"}], "metadata": {"tenant": "acme"}}
    (tmp_path / "body.json").write_text(json.dumps(body))
    asked = ("explain", folder, "--messages", tmp_path / "body.json")
    assert "large, by rule:pin." in call(capsys, *asked).out
    told = json.loads(call(capsys, *asked, "--json").out)
    assert told["rule"] == {"tier": "large", "reason": "rule:pin"}
    assert told["tier"] == as_json(explain(folder, "hi"))["tier"]  # what the model says
    assert json.loads(call(capsys, "explain", folder, "hi", "--json").out)["rule"] is None


def test_explain_calls_that_are_refused(job, workdir: Path, capsys) -> None:
    call(capsys, "explain", job.artifact).refused("give a prompt or --messages")
    call(capsys, "explain", "nowhere", "hi").refused("nowhere")
    (workdir / "m.json").write_text('{"prompt": "hi"}')
    call(capsys, "explain", job.artifact, "--messages", "m.json").refused("list of messages")
