"""Whatever a service passes in, it gets a decision."""

import hmac
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import Decision, DecisionLog, Policy, Router
from router.artifact import Artifact
from router.embedder import StaticEmbedder
from router.prompt import Prompt
from router.rules_file import parse_rules
from tests.builders import TIERS, make_predictor, make_tokenizer

NAMES = [tier.name for tier in TIERS]
TEXT = st.text(st.characters(exclude_categories=()))  # surrogates too
ODD_TEXTS = [
    "",
    " ",
    "\0",
    "a\0b",
    "\ud800",
    "x\udfff\ud800y",
    "🎉" * 50,
    "👩‍👩‍👧‍👦" * 20,
    "مرحبا، كيف الحال؟ \u202e\u200f",
    "Z̸̢̛͙̮a̷l̴g̵o̶" * 30,
    "\ufeff\u200b\u2028\u2029\x85",
    "\U0010ffff\ufffe",
    "x" * 300_000,
    "word " * 60_000,
    "\ud800" * 300_000,
    "中" * 300_000,
    "\n" * 300_000,
    "[UNK] [CLS] ##a [SEP]",
]


@pytest.fixture(scope="module")
def router(artifact: Artifact) -> Router:
    return Router(artifact)


def check(decision: Decision) -> None:
    """What holds for every decision."""
    assert decision.tier in NAMES
    assert decision.model == TIERS[NAMES.index(decision.tier)].model
    assert decision.propensity == 1.0
    assert decision.latency_us > 0
    if decision.reason == "policy":
        assert list(decision.p_suffices) == NAMES
        assert list(decision.expected_cost_usd) == NAMES
        assert all(0 <= p <= 1 for p in decision.p_suffices.values())
        assert all(0 <= usd < float("inf") for usd in decision.expected_cost_usd.values())
    else:
        assert decision.reason.startswith("fallback:")
        assert decision.tier == "large"
        assert (decision.p_suffices, decision.expected_cost_usd) == ({}, {})
        assert decision.prompt_hash is None


def same(one: Decision, other: Decision) -> bool:
    """Whether two decisions say the same of the prompt."""
    return replace(one, id="", at=0.0, latency_us=1.0) == replace(
        other, id="", at=0.0, latency_us=1.0
    )


def test_a_decision_follows_the_policy(artifact: Artifact) -> None:
    estimates = artifact.predictor.estimate([Prompt.of("solve 2+2")])
    for mu in (0.0, 50.0, 1e3, 1e9):
        decision = Router(replace(artifact, policy=Policy(mu))).route("solve 2+2")
        expected = int(np.argmax(estimates.p[0] - mu * estimates.usd[0]))
        assert decision.tier == NAMES[expected]
        assert list(decision.p_suffices.values()) == estimates.p[0].tolist()
        assert list(decision.expected_cost_usd.values()) == estimates.usd[0].tolist()
    constant = Router(replace(artifact, policy=Policy(0.0, constant=1)))
    assert {constant.route(text).tier for text in ODD_TEXTS} == {"middle"}


def test_a_decision_carries_id_time_and_version(artifact: Artifact, router: Router) -> None:
    before = time.time()
    one, other = router.route("hello"), router.route("hello")
    assert before <= one.at <= other.at <= time.time()
    assert one.id != other.id
    assert one.router_version == artifact.version == router.artifact.version
    assert same(one, other)


@pytest.mark.parametrize("text", ODD_TEXTS, ids=lambda text: ascii(text[:8]))
def test_odd_texts_are_decided_by_the_policy(text: str, router: Router) -> None:
    for prompt in (
        text,
        [{"role": "user", "content": text}],
        [{"role": "system", "content": text}],
    ):
        decision = router.route(prompt)
        check(decision)
        assert decision.reason == "policy"


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        3,
        1.5,
        True,
        b"bytes",
        bytearray(b"x"),
        {"role": "user"},
        {1},
        object,
        [None],
        ["hi"],
    ],
    ids=repr,
)
def test_wrong_kinds_fall_back_to_the_top_tier(wrong: Any, router: Router) -> None:
    decision = router.route(wrong)
    check(decision)
    assert decision.reason == "fallback:TypeError"


def test_wrong_tools_fall_back(router: Router) -> None:
    decision = router.route("hi", tools=3)  # type: ignore[arg-type]
    check(decision)
    assert decision.reason == "fallback:TypeError"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text"]) | TEXT, inner)
    ),
    max_leaves=12,
)
MESSAGE = st.fixed_dictionaries({}, optional={"role": JSON | st.just("user"), "content": JSON})


@settings(max_examples=300)
@given(prompt=TEXT | JSON | st.lists(MESSAGE | JSON, max_size=5), tools=st.none() | JSON)
def test_no_prompt_raises(router: Router, prompt: Any, tools: Any) -> None:
    decision = router.route(prompt, tools)
    check(decision)
    if isinstance(prompt, str) and tools is None:
        assert decision.reason == "policy"


def test_deep_and_self_containing_prompts(router: Router) -> None:
    ring: list[Any] = []
    ring.append(ring)
    check(router.route(ring))
    content: list[Any] = ["text"]
    content.append(content)
    check(router.route([{"role": "user", "content": content}]))
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    check(router.route([{"role": "user", "content": deep}]))


def test_objects_that_raise_when_read(router: Router) -> None:
    class Rude(dict[str, Any]):
        def get(self, *_: Any) -> Any:
            raise RuntimeError("no")

    decision = router.route([Rude()])
    check(decision)
    assert decision.reason == "fallback:RuntimeError"


class Unbound:
    """As a proxy of Flask's outside of a request: even `isinstance` raises."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("no context")


class Untold(str):
    """A text that cannot be measured."""

    def __len__(self) -> int:
        raise RuntimeError("no")


@pytest.mark.parametrize("kind", [Unbound, Untold])
def test_facts_that_raise_when_read(kind: Any, artifact: Artifact) -> None:
    odd = kind()
    rules = parse_rules({"session": {"floor": True}, "deny": {"tag": {"b": ["large"]}}}, TIERS)
    log = DecisionLog(lambda _: None, messages=True)
    constant = replace(artifact, policy=Policy(0.0, constant=2))
    ruled = Router(replace(constant, rules=rules), log=log)
    for router in (Router(artifact, log=log), ruled):
        for name in ("session", "tenant", "tags", "max_tokens", "json_mode"):
            check(router.route("hello", **{name: odd}))
    for hides in ({"tags": [odd, "b"]}, {"tags": ["b"], "tenant": odd}):  # no rule of another
        assert ruled.route("hello", **hides).tier != "large"
    log.flush()
    assert log.counts.written == 12


class Broken:
    """A predictor of three tiers whose estimates are as given."""

    tiers = TIERS

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def estimate_one(self, prompt: Prompt) -> tuple[list[float], list[float], int]:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer, self.answer, 1


@pytest.mark.parametrize("error", [ValueError("x"), MemoryError(), RecursionError(), KeyError("k")])
def test_failures_fall_back_with_their_name(error: Exception, artifact: Artifact) -> None:
    decision = Router(replace(artifact, predictor=Broken(error))).route("hello")  # type: ignore[arg-type]
    check(decision)
    assert decision.reason == f"fallback:{type(error).__name__}"


def test_a_log_that_fails_costs_no_decision(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under gunicorn's `--preload` with gevent, which patches locks after they are made."""
    log = DecisionLog(lambda line: None)

    def fail(*_: object) -> None:
        raise RuntimeError("cannot release un-acquired lock")

    with monkeypatch.context() as patch:
        patch.setattr(DecisionLog, "_start", fail)
        assert Router(artifact, log=log).route("hello").reason == "policy"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_estimates_that_are_not_finite_fall_back(value: float, artifact: Artifact) -> None:
    broken = Broken([value, 0.5, 0.4])
    decision = Router(replace(artifact, predictor=broken)).route("hello")  # type: ignore[arg-type]
    check(decision)
    assert decision.reason == "fallback:ArithmeticError"


def test_a_stopped_process_is_not_held_up(artifact: Artifact) -> None:
    for stop in (KeyboardInterrupt(), SystemExit()):
        with pytest.raises(type(stop)):
            Router(replace(artifact, predictor=Broken(stop))).route("x")  # type: ignore[arg-type]


def test_a_panic_of_the_tokenizer_falls_back(artifact: Artifact) -> None:
    class PanicException(BaseException):
        """As pyo3_runtime.PanicException, which cannot be imported."""

    class Panicking:
        def __init__(self) -> None:
            self.real = make_tokenizer()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

        def encode(self, *_: Any, **__: Any) -> Any:
            raise PanicException("index out of bounds")

    table = np.zeros((200, 8), np.int8)
    embedder = StaticEmbedder(Panicking(), table, np.ones(200, np.uint8))  # type: ignore[arg-type]
    predictor = make_predictor(embedder=embedder)
    decision = Router(replace(artifact, predictor=predictor)).route("hello")
    check(decision)
    assert decision.reason == "fallback:ValueError"


def test_a_batch_is_decided_as_its_prompts_are(router: Router) -> None:
    prompts: list[Any] = [*ODD_TEXTS[:12], None, [{"role": "user", "content": "hi"}], 7, "solve 1"]
    batch = router.route_batch(prompts)
    assert len(batch) == len(prompts)
    for prompt, decision in zip(prompts, batch, strict=True):
        assert same(decision, router.route(prompt))
    assert router.route_batch([]) == []
    for one in ("abc", b"abc", {"role": "user", "content": "hi"}):
        with pytest.raises(TypeError, match=f"list of prompts.*one {type(one).__name__}"):
            router.route_batch(one)  # type: ignore[arg-type]


def test_threads_get_the_same_answers(router: Router) -> None:
    prompts = [f"what is {i} + {i * i}? {'please ' * (i % 7)}" for i in range(60)]
    alone = router.route_batch(prompts)
    with ThreadPoolExecutor(8) as pool:
        rounds = list(pool.map(lambda _: router.route_batch(prompts), range(8)))
    for together in rounds:
        assert all(same(a, b) for a, b in zip(alone, together, strict=True))
    ids = {decision.id for together in rounds for decision in together}
    assert len(ids) == 8 * len(prompts)


def test_prompts_are_hashed_with_the_key_only(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SUFFICE_KEY", raising=False)
    assert Router.load(artifact.path).route("hello").prompt_hash is None
    monkeypatch.setenv("SUFFICE_KEY", "")
    assert Router.load(artifact.path).route("hello").prompt_hash is None
    monkeypatch.setenv("SUFFICE_KEY", "secret")
    keyed = Router.load(artifact.path)
    expected = hmac.digest(b"secret", b"hello", "sha256").hex()[:32]
    assert keyed.route("hello").prompt_hash == expected
    assert keyed.route([{"role": "user", "content": "hello"}]).prompt_hash == expected
    assert keyed.route("hello.").prompt_hash != expected
    assert Router(artifact, b"other").route("hello").prompt_hash != expected
    assert keyed.route("\ud800").prompt_hash is not None
    assert keyed.route(None).prompt_hash is None  # type: ignore[arg-type]
    monkeypatch.setenv("SUFFICE_KEY", "\udcff\udcfe")  # bytes that are no UTF-8
    assert Router.load(artifact.path).route("hello").prompt_hash is not None


def test_a_key_that_could_hash_nothing_is_refused(artifact: Artifact) -> None:
    with pytest.raises(TypeError, match="key: bytes are needed, got str"):
        Router(artifact, "secret")  # type: ignore[arg-type]


def test_load_takes_text_and_path(artifact: Artifact) -> None:
    for path in (artifact.path, str(artifact.path), Path(artifact.path)):
        assert Router.load(path).artifact.version == artifact.version
