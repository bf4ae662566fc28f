"""Rules come before the model, and the decision says which one decided."""

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import ArtifactError, Decision, Exploration, Policy, Router, RulesError
from router.artifact import Artifact, load_artifact
from router.prompt import Prompt
from router.request import Request, read_body, unread_chars
from router.rules_file import parse_rules
from router.sessions import Seen, Sessions
from tests.builders import TIERS, edit_manifest, make_artifact
from training.config import check_rules, read_config
from training.errors import BadInput
from training.show.explain import explain
from training.show.explain_words import lines
from training.show.inspect import describe

TURN = Seen(("small", "large"), 1, 1, 0.0, 0.0)
PINNED = '[rules.pin.tag]\ns = "small"\n'
NAMES = [tier.name for tier in TIERS]  # small: 8k, json only; middle: unknown; large: 128k, all
CHEAP = Policy(1e9)
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {}}}
PICTURE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]


@pytest.fixture
def ruled(artifact: Artifact, tmp_path: Path) -> Callable[..., Router]:
    """A router under rules as written, by default one that prefers the cheapest tier."""

    def make(rules: str, policy: Policy = CHEAP) -> Router:
        file = tmp_path / "rules.toml"
        file.write_text(rules, encoding="utf-8")
        return Router(replace(artifact, policy=policy), rules=file)

    return make


def told(decision: Decision) -> tuple[str, str]:
    return decision.tier, decision.reason


def test_without_rules_nothing_is_ruled_out(artifact: Artifact) -> None:
    router = Router(replace(artifact, policy=Policy(1e9)))
    assert told(router.route("word " * 60_000, tools=[TOOL], json_mode=True, tags=["x"])) == (
        "small",
        "policy",
    )


def test_what_a_tier_cannot_do_it_does_not_get(ruled: Callable[..., Router]) -> None:
    router = ruled("[rules]\n")
    assert told(router.route("hello")) == ("small", "policy")
    assert told(router.route("hello", json_mode=True)) == ("small", "policy")
    assert told(router.route("hello", tools=[TOOL])) == ("middle", "rule:tools")
    assert told(router.route(PICTURE)) == ("middle", "rule:vision")
    off = ruled("[rules]\ncapabilities = false\n")
    assert told(off.route("hello", tools=[TOOL])) == ("small", "policy")


def test_a_model_that_chose_an_able_tier_is_not_overruled(ruled: Callable[..., Router]) -> None:
    router = ruled("[rules]\n", Policy(-1e9))  # spends what it can
    assert told(router.route("hello", tools=[TOOL])) == ("large", "policy")


def test_input_and_requested_output_must_fit(ruled: Callable[..., Router]) -> None:
    router = ruled("[rules]\n")
    assert told(router.route("hello", max_tokens=8000)) == ("small", "policy")
    assert told(router.route("hello", max_tokens=8190)) == ("middle", "rule:context_window")
    assert told(router.route("word " * 6000, max_tokens=10)) == ("middle", "rule:context_window")
    for none in (None, -1, -(10**9), 0, float("nan")):  # as clients say that there is no limit
        long = router.route("word " * 5900, max_tokens=none)  # type: ignore[arg-type]
        assert told(long) == ("middle", "rule:context_window")
    given: list[tuple[Any, str]] = [("8000", "small"), ("8190", "middle"), (8190.0, "middle")]
    for asked, tier in [*given, ("many", "small"), ([8190], "small"), (float("inf"), "small")]:
        decision = router.route("hello", max_tokens=asked)
        assert decision.tier == tier and "fallback" not in decision.reason, asked
    many = [{**TOOL, "description": "x" * 40_000}]
    only = ruled("[rules]\ncapabilities = false\n")
    assert told(only.route("hello", tools=many)) == ("middle", "rule:context_window")
    calls = [{"role": "user", "content": "go"}, {"role": "assistant", "tool_calls": ["y" * 40_000]}]
    assert told(only.route([*calls, calls[0]])) == ("middle", "rule:context_window")


def with_base(artifact: Artifact, base: float) -> Artifact:
    """An artifact whose log billed so many tokens beside every prompt: a gateway's own."""
    tokens = tuple(replace(model, input_base=base) for model in artifact.predictor.tokens)
    predictor = replace(artifact.predictor, tokens=tokens)
    return replace(artifact, predictor=predictor, policy=CHEAP)


def test_what_is_billed_beside_every_prompt_counts_for_short_ones_too(
    artifact: Artifact, tmp_path: Path
) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(
        "[rules.prompt_cache]\nusd_per_mtok = {middle = 0.0}\n[rules.pin.tag]\nm = 'middle'\n"
    )
    for base, expected in ((7100.0, "small"), (7500.0, "middle")):  # of 8,192, 1,024 for the answer
        router = Router(with_base(artifact, base), rules=file)
        for prompt in ("hello", "hello " * 10):
            assert router.route(prompt).tier == expected
    router = Router(with_base(artifact, 6000.0), rules=file)
    router.route("hello", session="s", tags=["m"])
    warm, cold = router.route("hello", session="s"), router.route("hello")
    assert warm.expected_cost_usd["middle"] < cold.expected_cost_usd["middle"]


def test_where_no_tier_is_able_the_highest_answers(artifact: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text('[rules.deny.tag]\na = ["large"]\nb = ["small", "middle"]\n')
    router = Router(replace(artifact, policy=Policy(1e9)), rules=file)
    assert router.route("x", max_tokens=10**9, tags=["a"]).tier == "middle"


def test_deny_lists_that_leave_nothing_together(ruled: Callable[..., Router]) -> None:
    lists = '[rules.deny.tag]\na = ["large"]\nb = ["small", "middle"]\n'
    router = ruled(lists + '[rules.deny.tenant]\nacme = ["small"]\n', Policy(-1e9))
    assert told(router.route("hello", tags=["a", "b"])) == ("middle", "rule:deny")
    assert told(router.route("hello", tags=["b", "a"])) == ("large", "rule:deny")
    assert router.route("hello", tags=["b", "a"], tenant="acme").tier == "large"
    assert router.route("hello", tags=["a", "b"], tenant="acme").tier == "middle"


def test_pins_by_tenant_and_tag_need_no_model(ruled: Callable[..., Router]) -> None:
    router = ruled('[rules.pin.tenant]\nacme = "large"\n[rules.pin.tag]\nlegal = "middle"\n')
    pinned = router.route("hello", tenant="acme", tags=["legal"])
    assert told(pinned) == ("large", "rule:pin")  # the tenant's comes first
    assert (pinned.p_suffices, pinned.propensity) == ({}, 1.0)
    assert told(router.route("hello", tags="legal")) == ("middle", "rule:pin")
    assert told(router.route("hello", tenant="other")) == ("small", "policy")


def test_a_pin_to_a_tier_that_cannot_is_passed_over(ruled: Callable[..., Router]) -> None:
    router = ruled('[rules.pin.tag]\ncheap = "small"\n')
    assert told(router.route(PICTURE, tags=["cheap"])) == ("middle", "rule:vision")


def test_a_denied_tier_is_never_chosen(ruled: Callable[..., Router]) -> None:
    router = ruled(
        '[rules.deny.tenant]\nfree = ["large"]\n[rules.pin.tag]\nlegal = "large"\n', Policy(-1e9)
    )
    assert told(router.route("hello", tenant="free")) == ("middle", "rule:deny")
    assert router.route("hello", tenant="free", tags=["legal"]).tier != "large"
    fallen = router.route(None, tenant="free")  # type: ignore[arg-type]
    assert told(fallen) == ("middle", "fallback:TypeError")


@pytest.mark.parametrize("tags", [None, 7, ["x", {"k": 1}], [["x"]], (tag for tag in "x"), "x"])
def test_odd_tags_hide_no_rule(tags: Any, ruled: Callable[..., Router]) -> None:
    rules = '[rules.deny.tenant]\nacme = ["large"]\n[rules.pin.tag]\nx = "small"\n'
    decision = ruled(rules, Policy(-1e9)).route("hello", tenant="acme", tags=tags)
    assert told(decision) in (("middle", "rule:deny"), ("small", "rule:pin"))


@pytest.mark.parametrize("name", [7, UUID(int=7), b"acme"])
def test_a_name_that_is_no_text_is_read_as_one(name: Any, ruled: Callable[..., Router]) -> None:
    """As a session is: services have numbers and UUIDs for their tenants."""
    router = ruled(f'[rules.deny.tenant]\n"{name}" = ["large"]\n', Policy(-1e9))
    assert told(router.route("hello", tenant=name)) == ("middle", "rule:deny")
    fallen = router.route(None, tenant=name)  # type: ignore[arg-type]
    assert told(fallen) == ("middle", "fallback:TypeError")
    router = ruled(f'[rules.pin.tag]\n"{name}" = "middle"\n')
    for tags in ([name], {None: 0, name: 1}):
        assert told(router.route("hello", tags=tags)) == ("middle", "rule:pin")
    router = ruled(HARD)
    for session in (name, str(name)):  # a caller that reads it from somewhere else
        router.route(PICTURE, session=session)
        assert router.route("go on", session=name).reason == "rule:session_floor"


def test_always_the_same_tier_obeys_rules_too(ruled: Callable[..., Router]) -> None:
    deny = '[rules.deny.tag]\na = ["{}"]\n'
    low, high = Policy(0.0, constant=0), Policy(0.0, constant=2)
    assert ruled(deny.format("small"), low).route("x", tags=["a"]).tier == "middle"
    assert ruled(deny.format("large"), high).route("x", tags=["a"]).tier == "middle"


# Sessions

HARD = "[rules]\ncapabilities = true\n[rules.session]\nfloor = true\n"


def test_a_session_keeps_the_tier_of_its_hard_turn(ruled: Callable[..., Router]) -> None:
    router = ruled(HARD)
    assert told(router.route("yes, go on", session="s")) == ("small", "policy")
    assert told(router.route(PICTURE, session="s")) == ("middle", "rule:vision")
    assert told(router.route("yes, go on", session="s")) == ("middle", "rule:session_floor")
    assert told(router.route("yes, go on", session="other")) == ("small", "policy")
    assert told(router.route("yes, go on", session="s", tenant="t")) == ("small", "policy")
    assert told(router.route("yes, go on")) == ("small", "policy")


def test_an_empty_session_is_none(ruled: Callable[..., Router]) -> None:
    """As services give it that pass on a header which was not sent: strangers share no floor."""
    router = ruled(HARD)
    assert told(router.route(PICTURE, session="")) == ("middle", "rule:vision")
    assert told(router.route("yes, go on", session="")) == ("small", "policy")
    assert read_body({"metadata": {"session_id": "", "tenant": ""}})[1]["session"] is None


def test_a_floor_that_is_out_of_reach_leaves_the_highest(ruled: Callable[..., Router]) -> None:
    deny = ruled(
        '[rules.session]\nfloor = true\n[rules.pin.tag]\nhard = "large"\n'
        '[rules.deny.tag]\nbatch = ["large"]\nsmall = ["middle", "large"]\n'
    )
    assert told(deny.route("hello", session="s", tags=["hard"])) == ("large", "rule:pin")
    assert told(deny.route("go on", session="s")) == ("large", "rule:session_floor")
    below = deny.route("go on", session="s", tags=["batch"])
    assert told(below) == ("middle", "rule:session_floor")
    assert told(deny.route("go on", session="s", tags=["small"])) == ("small", "rule:deny")


def test_a_silent_session_starts_anew(
    ruled: Callable[..., Router], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("router.service.monotonic", lambda: now[0])
    cache = "[rules.prompt_cache]\nminutes = 60\nusd_per_mtok = {small = 0.01}\n"
    router = ruled(HARD + "minutes = 10\n" + cache)  # what caches need outlasts the floor
    router.route(PICTURE, session="s")
    now[0] += 599
    assert router.route("go on", session="s").tier == "middle"
    now[0] += 601
    assert told(router.route("go on", session="s")) == ("small", "policy")
    assert told(router.route("go on", session="s")) == ("small", "policy")


def test_a_floor_outlives_a_swap(artifact: Artifact, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(HARD)
    small, middle, large = TIERS
    seen = Seen((small.name, middle.name, large.name), 1, 1, 9.0, 0.0)
    assert seen.among(("large",)) == Seen(("large",), 0, 0, 0.0, 0.0)
    assert seen.among(("small", "huge")) == Seen(("small", "huge"), 1, 1, 0.0, 0.0)
    assert seen.among(("tiny", "small", "middle")).floor == 2
    assert seen.among(("tiny", "small", "middle")).tokens == 9.0
    free = Seen(seen.tiers, 0, 0, 0.0, 0.0)
    assert free.among(("tiny", "small")).floor == 0
    router = Router(replace(artifact, policy=CHEAP), rules=rules)
    router.route(PICTURE, session="s")
    names = replace(large, name="other"), replace(middle, name="best")
    predictor = replace(artifact.predictor, tiers=(small, *names))
    router.swap(replace(artifact, policy=CHEAP, version="new", predictor=predictor))
    assert told(router.route("go on", session="s")) == ("best", "rule:session_floor")


@pytest.mark.parametrize(
    ("policy", "down", "hard", "tried"),
    [
        (CHEAP, False, PICTURE, "large"),  # middle by the rule for pictures
        (Policy(0.0, constant=1), False, "hello", "large"),
        (Policy(0.0, constant=1), True, "hello", "small"),
    ],
)
def test_a_floor_does_not_depend_on_what_exploration_tried(
    policy: Policy,
    down: bool,
    hard: Any,
    tried: str,
    artifact: Artifact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A turn that middle was chosen for sets that floor, whichever tier was tried for it."""
    (tmp_path / "rules.toml").write_text(HARD)
    explore = Exploration(0.5, down=down)
    router = Router(
        replace(artifact, policy=policy), rules=tmp_path / "rules.toml", explore=explore
    )
    monkeypatch.setattr("router.explore._DRAW", lambda: 0.0)
    assert told(router.route(hard, session="s")) == (tried, "explore")
    router.swap(replace(artifact, policy=CHEAP, version="new"))
    monkeypatch.setattr("router.explore._DRAW", lambda: 0.9)
    assert told(router.route("yes, go on", session="s")) == ("middle", "rule:session_floor")


def test_memory_of_sessions_is_bounded() -> None:
    sessions = Sessions(limit=3)
    for i in range(10):
        sessions.note(None, f"s{i}", TURN, 60.0)
    assert len(sessions) == 3
    assert sessions.last(None, "s6") is None
    assert sessions.last(None, "s9") is not None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_while_a_thread_holds_the_sessions() -> None:
    sessions = Sessions()
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with sessions._lock:
            held.set()
            free.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    child = os.fork()
    if child == 0:
        sessions.note(None, "s", TURN, 60.0)  # would wait for ever on the held lock
        os._exit(0 if len(sessions) == 1 else 1)
    _, status = os.waitpid(child, 0)
    free.set()
    thread.join()
    assert status == 0


def test_a_warm_cache_weighs_in_the_choice(ruled: Callable[..., Router]) -> None:
    cached = "[rules.prompt_cache]\nmin_tokens = 500\n[rules.prompt_cache.usd_per_mtok]\n{} = 0.0\n"
    long = [{"role": "user", "content": "word " * 600}]
    cold = ruled("[rules]\n", Policy(1e9)).route(long, session="s")
    for tier, expected in (("middle", "middle"), ("small", "small"), ("large", "small")):
        router = ruled(cached.format(tier))
        first = router.route(long if tier == "small" else PICTURE + long, session="s")
        assert first.tier == ("small" if tier == "small" else "middle")
        second = router.route(long, session="s")
        assert second.tier == expected, tier
        if tier == "middle":
            assert second.reason == "rule:prompt_cache"
            assert second.expected_cost_usd["middle"] < cold.expected_cost_usd["middle"]
        else:
            assert second.reason == "policy"


def test_tools_are_a_part_of_what_a_cache_keeps(ruled: Callable[..., Router]) -> None:
    """An agent's conversation is short in words and long in tools and their calls."""
    tools = [{**TOOL, "description": "word " * 600}]
    router = ruled(
        "[rules]\ncapabilities = false\n[rules.prompt_cache]\nmin_tokens = 500\n"
        "[rules.prompt_cache.usd_per_mtok]\nmiddle = 0.0\n[rules.pin.tag]\nhard = 'middle'\n",
        Policy(1e9),
    )
    cold = router.route("hi", tools=tools)
    router.route("hi", tools=tools, session="s", tags=["hard"])
    warm = router.route("hi", tools=tools, session="s")
    assert warm.expected_cost_usd["middle"] < cold.expected_cost_usd["middle"]


# What is written


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[rulez]\n", "rulez.*did you mean 'rules'"),
        ("[rules]\ncontext_windw = true\n", "context_windw.*did you mean 'context_window'"),
        ("[rules]\ncapabilities = 1\n", "capabilities must be true or false, got 1"),
        ("[rules]\npin = 3\n", "pin: must be a table"),
        ("[rules.pin.tags]\nx = 'large'\n", "pin: unknown key 'tags'.*'tag'"),
        ("[rules.pin.tag]\nx = 'lrge'\n", "pin.tag.x: unknown tier 'lrge'.*'large'"),
        ("[rules.deny.tag]\nx = 'large'\n", "deny.tag.x: must be a list"),
        ("[rules.deny.tag]\nx = ['small', 'middle', 'large']\n", "no tier is left"),
        ("[rules.session]\nflor = true\n", "session: unknown key 'flor'.*'floor'"),
        ("[rules.session]\nminutes = -1\n", "minutes must be a number from 0"),
        ("[rules.session]\nminutes = inf\n", "minutes must be a number from 0"),
        ("[rules.prompt_cache]\nminutes = 5\n", "usd_per_mtok must give"),
        ("[rules.prompt_cache.usd_per_mtok]\nmidle = 1\n", "unknown tier 'midle'.*'middle'"),
        ("[rules.prompt_cache.usd_per_mtok]\nlarge = '1'\n", "large must be a number"),
        ("[rules\n", "not TOML"),
    ],
)
def test_a_mistake_names_its_place(text: str, words: str, ruled: Callable[..., Router]) -> None:
    with pytest.raises(RulesError, match=rf"(?s)rules\.toml.*{words}"):
        ruled(text)


def test_a_byte_order_mark_says_nothing(ruled: Callable[..., Router]) -> None:
    """Notepad writes one."""
    assert told(ruled(f"\ufeff{PINNED}").route("hello", tags=["s"])) == ("small", "rule:pin")


def test_a_file_that_is_not_there(artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(RulesError, match=r"none\.toml: No such file"):
        Router(artifact, rules=tmp_path / "none.toml")


TABLE = {"pin": {"tag": {"legal": "large"}}, "session": {"floor": True}}


def test_rules_of_the_artifact_are_served(tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "artifact")
    edit_manifest(folder, lambda manifest: manifest.update(rules=TABLE))
    router = Router.load(folder)
    assert told(router.route("hello", tags=["legal"])) == ("large", "rule:pin")
    (tmp_path / "none.toml").write_text("[rules]\n")
    assert Router.load(folder, rules=tmp_path / "none.toml").route("x", tags=["legal"]).reason == (
        "policy"
    )
    words = "\n".join(load_artifact(folder).rules.describe())  # type: ignore[union-attr]
    assert "tag legal gets large" in words
    edit_manifest(folder, lambda manifest: manifest.update(rules={"pin": {"tag": {"x": "huge"}}}))
    with pytest.raises(ArtifactError, match="unknown tier 'huge'"):
        Router.load(folder)


def test_rules_in_the_training_configuration(tmp_path: Path) -> None:
    file = tmp_path / "train.toml"
    file.write_text('[rules.pin.tag]\nlegal = "lrge"\n')
    with pytest.raises(BadInput, match="unknown tier 'lrge'; did you mean 'large'"):
        check_rules(read_config(file, {}), TIERS)
    file.write_text("[rules]\ncapabilites = true\n")
    with pytest.raises(BadInput, match="did you mean 'capabilities'"):
        read_config(file, {})


def test_inspect_tells_the_rules(job: Any, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(job.artifact, tmp_path / "artifact"))
    edit_manifest(folder, lambda manifest: manifest.update(rules=TABLE))
    assert any("rule pin: tag legal gets large" in line for line in describe(folder))


def test_explain_says_that_rules_come_first(tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "artifact")
    assert not any("Rules come" in line for line in lines(explain(folder, "hello", None)))
    edit_manifest(folder, lambda manifest: manifest.update(rules=TABLE))
    assert any("Rules come" in line for line in lines(explain(folder, "hello", None)))


def test_a_body_of_the_api_is_read() -> None:
    prompt, facts = read_body(
        {
            "model": "auto",
            "messages": [{"role": "user", "content": "hi"}],
            "tools": [TOOL],
            "max_completion_tokens": 50,
            "response_format": {"type": "json_schema"},
        }
    )
    assert prompt == [{"role": "user", "content": "hi"}]
    known = {key: value for key, value in facts.items() if value is not None}
    assert known == {"tools": [TOOL], "max_tokens": 50, "json_mode": True}
    _, facts = read_body({"metadata": {"session_id": "s", "tenant": "t"}})
    assert (facts["session"], facts["tenant"]) == ("s", "t")
    _, facts = read_body({"metadata": {"session_id": ["s"], "tenant": 7}})
    assert (facts["session"], facts["tenant"]) == (None, None)
    body = {"system": "Be brief.", "messages": [{"role": "user", "content": "hi"}]}
    assert Prompt.of(read_body(body)[0]).text == "Be brief.\nhi"  # as Anthropic's API has it
    body["system"] = [{"type": "text", "text": "Be brief."}]
    assert Prompt.of(read_body(body)[0]).text == "Be brief.\nhi"
    prompt, facts = read_body({"input": "hi", "text": {"format": {"type": "json_object"}}})
    assert (prompt, facts["json_mode"], facts["max_tokens"]) == ("hi", True, None)
    assert read_body({"max_tokens": "x", "response_format": 3})[1]["max_tokens"] is None
    assert read_body({"prompt": ["a", "b"], "functions": [TOOL]})[0] == "a\nb"


def test_every_part_of_a_body_counts(ruled: Callable[..., Router]) -> None:
    """What instructions, results of tools and their pictures say is read, and fits the window."""
    router, long = ruled(PINNED), "word " * 9000
    given = {"type": "function_call_output", "call_id": "1"}
    asked = {"type": "function_call", "call_id": "1", "name": "f", "arguments": long}
    hi = {"role": "user", "content": "hi"}
    bodies: tuple[dict[str, Any], ...] = (
        {"instructions": long, "input": "hi"},
        {"input": [hi, {**given, "output": long}]},
        {"input": [hi, {**given, "output": [{"type": "input_text", "text": long}]}]},
        {"input": [hi, asked, {**given, "output": "done"}]},
        {"messages": [hi, {"role": "assistant", "function_call": {"arguments": long}}]},
        {"prompt": long},
        {"input": [hi, {**given, "output": [{"type": "input_image", "image_url": "x"}]}]},
        {"input": [hi, {"type": "computer_call_output", "output": {"image_url": "x"}}]},
        {"messages": [hi], "functions": [TOOL]},
    )
    for body in ({"input": [hi]}, {"prompt": "hi"}, {"messages": [hi]}):
        prompt, facts = read_body(body)
        assert told(router.route(prompt, **facts, tags=["s"])) == ("small", "rule:pin"), body
    for body in bodies:
        prompt, facts = read_body(body)
        assert router.route(prompt, **facts, tags=["s"]).tier != "small", body
    prompt, _ = read_body({"instructions": "Be brief.", "input": [hi, {**given, "output": "42"}]})
    assert Prompt.of(prompt).text == "Be brief.\nhi\n42"


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": {"id": "pmpt_1"}},
        {"prompt": [1, 2, 3]},
        {"prompt": [[1, 2], [3]]},
        {"messages": [], "functions": 7},
        {"input": [{"type": "image_generation_call", "result": "A" * 100_000}]},
        {"input": [{"type": "reasoning", "content": [{"type": "reasoning_text", "text": "x"}]}]},
        {"input": "hi", "tools": {"a": 1}},
        {"input": "hi", "metadata": {"session_id": {"a": 1}, "tenant": ["b"]}},
    ],
)
def test_odd_bodies_are_decided_by_the_policy(body: Any, ruled: Callable[..., Router]) -> None:
    prompt, facts = read_body(body)
    decision = ruled("[rules.pin.tag]\ns = 'small'\n[rules.session]\nfloor = true\n").route(
        prompt, **facts
    )
    assert not decision.reason.startswith("fallback"), decision
    if isinstance(prompt, list):
        assert all(isinstance(message["role"], str) for message in prompt)


def test_tools_that_are_no_json_count_about_as_much(ruled: Callable[..., Router]) -> None:
    router = ruled("[rules]\n")
    itself: list[Any] = [{"role": "user", "content": "hi"}]
    itself.append({"role": "assistant", "tool_calls": itself})
    assert not router.route("hi", [{(1, 2): 3}]).reason.startswith("fallback")
    assert not router.route(itself).reason.startswith("fallback")
    assert unread_chars("word " * 100_000, None) < 10


@pytest.mark.parametrize(
    "text",
    ["0f3a9c" * 12_000, "ไทยภาษา" * 5000, "\U0001f600" * 9000, "https://x.y/" + "a1" * 20_000],
)
def test_texts_that_the_tokenizer_cannot_count(text: str, ruled: Callable[..., Router]) -> None:
    router = ruled(PINNED)
    blank = [{"role": "user", "content": "word " * 9000}, {"role": "user", "content": " " * 300}]
    assert router.route(text[:2000], tags=["s"]).tier == "small"
    assert router.route(text, tags=["s"]).tier != "small"
    assert router.route(blank, tags=["s"]).tier != "small"


WORD = st.text("abé☃\ud800", max_size=3)


@settings(max_examples=150)
@given(
    tenant=st.none() | WORD,
    tags=st.lists(WORD, max_size=3),
    denied=st.dictionaries(WORD, st.sampled_from([["large"], ["small"], ["small", "large"]])),
    pinned=st.dictionaries(WORD, st.sampled_from(NAMES)),
    tools=st.lists(st.just(TOOL), max_size=1),
    session=st.none() | st.sampled_from("ab"),
)
def test_no_combination_gets_a_denied_tier(
    artifact: Artifact, tenant: Any, tags: Any, denied: Any, pinned: Any, tools: Any, session: Any
) -> None:
    table = {"deny": {"tag": denied}, "pin": {"tag": pinned, "tenant": pinned}, **{"session": {}}}
    rules = parse_rules(table, TIERS)
    router = Router(replace(artifact, rules=rules))
    decision = router.route("solve", tools, tenant=tenant, tags=tags, session=session)
    never = {name for tag in tags for name in denied.get(tag, ())}
    assert decision.reason == "policy" or decision.reason.startswith("rule:")
    assert decision.tier not in never  # no list denies middle
    assert NAMES[rules.top(Request(tags=tags))] not in never


def test_all_that_a_provider_bills_fits_the_window(ruled: Callable[..., Router]) -> None:
    """Calls, results, documents and thoughts as clients of Anthropic and OpenAI give them."""
    router, long = ruled(PINNED), "word " * 9000
    ask = {"role": "user", "content": "go"}

    def says(*parts: Any, role: str = "user", **more: Any) -> dict[str, Any]:
        return {"role": role, "content": list(parts), **more}

    result = {"type": "tool_result", "tool_use_id": "1"}
    text = {"type": "text", "text": long}
    inside = {"type": "text", "media_type": "text/plain", "data": long}
    large: tuple[Any, ...] = (
        says({**result, "content": long}),
        says({**result, "content": [text]}),
        says({"type": "tool_use", "id": "1", "name": "f", "input": {"q": long}}, role="assistant"),
        says({"type": "thinking", "thinking": long, "signature": "x"}, role="assistant"),
        says({"type": "document", "source": inside}),
        says(role="assistant", refusal=long),
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": long},
        {"type": "function_call_output", "call_id": "1", "output": long},
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": long}]},
    )
    for message in large:
        told_of = router.route([ask, message, ask], tags=["s"])
        assert told(told_of) == ("middle", "rule:context_window"), message
    bytes_of = "A" * 90_000
    files = (
        {"type": "document", "source": {"type": "base64", "data": bytes_of}},
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{bytes_of}"}},
        {"type": "input_audio", "input_audio": {"data": bytes_of, "format": "wav"}},
    )
    for part in files:  # of which nobody knows the tokens
        assert router.route([says(part), ask], tags=["s"]).tier == "small", part
    seen = says({**result, "content": [{"type": "image", "source": {"data": bytes_of}}]})
    assert told(router.route([ask, seen], tags=["s"])) == ("middle", "rule:vision")
