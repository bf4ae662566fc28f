"""How messages become the text that is embedded: the rules of router/prompt.py's docstring."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.prompt import (
    CONTEXT_CHARS,
    HEAD_CHARS,
    SHORT_TURN,
    SYSTEM_CHARS,
    TAIL_CHARS,
    Prompt,
)

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # surrogates too
LONG = "x" * SHORT_TURN  # a turn that needs no context


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def system(content: Any) -> dict[str, Any]:
    return {"role": "system", "content": content}


def test_a_bare_text_is_one_user_message() -> None:
    assert Prompt.of("What is 2 + 2?") == Prompt.of([user("What is 2 + 2?")])
    assert Prompt.of("What is 2 + 2?") == Prompt("What is 2 + 2?", 14)


def test_a_long_text_keeps_its_head_and_its_tail() -> None:
    cap = HEAD_CHARS + TAIL_CHARS
    assert cap == 3072
    whole = "".join(chr(ord("a") + i % 26) for i in range(cap))
    assert Prompt.of(whole).text == whole
    cut = Prompt.of(whole + "Z")
    assert cut.text == whole[:2048] + "\n" + (whole + "Z")[-1024:]
    assert cut.chars == cap + 1


def test_three_hundred_thousand_characters_are_capped_and_counted() -> None:
    prompt = Prompt.of("word " * 60_000)
    assert (len(prompt.text), prompt.chars) == (3073, 300_000)
    many = Prompt.of([user("word " * 20), *([assistant("word " * 20)] * 3000)])
    assert len(many.text) == 3073
    assert many.chars == 300_100


def test_system_messages_come_first_and_are_cut() -> None:
    prompt = Prompt.of([system("s" * 500), user(LONG)])
    assert prompt.text == "s" * SYSTEM_CHARS + "\n" + LONG
    assert prompt.system_chars == 500
    two = Prompt.of([system("one"), user(LONG), {"role": "developer", "content": "two"}])
    assert two.text == f"one\ntwo\n{LONG}"


def test_a_turn_that_stands_alone_leaves_out_what_was_before() -> None:
    prompt = Prompt.of([user("before"), assistant("answer"), user(LONG)])
    assert prompt.text == LONG
    assert prompt.turns == 2
    assert prompt.chars == len("before") + len("answer") + len(LONG)


def test_a_short_turn_takes_the_conversation_before_it_along() -> None:
    assert Prompt.of([user("before"), assistant("answer"), user("yes")]).text == (
        "before\nanswer\nyes"
    )
    just_short = LONG[1:]
    assert Prompt.of([user("before"), user(just_short)]).text == f"before\n{just_short}"


def test_of_a_long_conversation_only_its_last_characters_come_along() -> None:
    prompt = Prompt.of([user("a" * 700), assistant("b" * 500), user("go on")])
    context, _, turn = prompt.text.rpartition("\n")
    assert turn == "go on"
    assert len(context) == CONTEXT_CHARS
    assert context == "a" * 299 + "\n" + "b" * 500


def test_the_turn_at_hand_holds_what_follows_the_last_user_message() -> None:
    messages = [
        user("old"),
        user("look it up " + LONG),
        assistant(None),
        {"role": "tool", "content": "result"},
    ]
    assert Prompt.of(messages).text == f"look it up {LONG}\n\nresult"


def test_messages_without_a_user_are_the_turn() -> None:
    prompt = Prompt.of([assistant("hello"), {"role": "critic", "content": "well"}])
    assert (prompt.text, prompt.turns) == ("hello\nwell", 0)
    assert Prompt.of([system("only rules")]).text == "only rules\n"
    assert Prompt.of([]) == Prompt("", 0, turns=0)


def test_parts_are_read_and_images_counted() -> None:
    parts = [
        {"type": "text", "text": "What is"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "input_image", "file_id": "f"},
        {"type": "input_text", "text": "this?"},
        {"type": "hologram", "data": "…"},
        {"type": ["image"]},
        "bare",
        None,
        7,
    ]
    prompt = Prompt.of([user(parts)])
    assert (prompt.text, prompt.images, prompt.chars) == ("What is\nthis?\nbare", 2, 18)


@pytest.mark.parametrize("content", [None, 3, 2.5, True, {"text": "no"}, b"bytes", bytearray(b"b")])
def test_content_of_no_known_kind_is_empty(content: Any) -> None:
    prompt = Prompt.of([user(content)])
    assert (prompt.text, prompt.chars, prompt.turns) == ("", 0, 1)


@pytest.mark.parametrize("role", [None, 5, ["user"], {"a": 1}, "wizard"])
def test_an_unknown_role_is_part_of_the_turn(role: Any) -> None:
    assert Prompt.of([{"role": role, "content": "text"}]).text == "text"
    assert Prompt.of([{"content": "text"}]).text == "text"


def test_tools_are_counted() -> None:
    assert Prompt.of("x").tools == 0
    assert Prompt.of("x", [{}, {}]).tools == 2
    assert Prompt.of([user("x")], []).tools == 0


@pytest.mark.parametrize("wrong", [None, 3, b"bytes", bytearray(b"x"), {"role": "user"}, {1, 2}])
def test_a_prompt_of_another_kind_is_a_type_error(wrong: Any) -> None:
    with pytest.raises(TypeError, match="a prompt is a text or a list of messages"):
        Prompt.of(wrong)


@pytest.mark.parametrize("wrong", [None, "text", 3, ["role", "user"]])
def test_a_message_of_another_kind_is_a_type_error(wrong: Any) -> None:
    with pytest.raises(TypeError, match="a message is a mapping"):
        Prompt.of([wrong])


@given(ANY_TEXT)
def test_every_text_can_be_stored(text: str) -> None:
    prompt = Prompt.of(text)
    prompt.text.encode("utf-8")
    assert len(prompt.text) == len(text)
    kept = [a == b for a, b in zip(prompt.text, text, strict=True) if not "\ud800" <= b <= "\udfff"]
    assert all(kept)


MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "system", "assistant", "tool", "x"]) | st.none(),
        "content": ANY_TEXT | st.none() | st.lists(ANY_TEXT) | st.text(min_size=700, max_size=900),
    },
)


@given(st.lists(MESSAGE, max_size=8))
def test_any_conversation_stays_within_its_bounds(messages: list[dict[str, Any]]) -> None:
    prompt = Prompt.of(messages)
    prompt.text.encode("utf-8")
    assert len(prompt.text) <= 3073
    assert prompt.turns == sum(message.get("role") == "user" for message in messages)
    assert 0 <= prompt.system_chars <= prompt.chars + len(messages)


def test_results_of_tools_in_a_users_message_are_of_the_turn_at_hand() -> None:
    """Anthropic's form of a loop with tools is read as OpenAI's is."""
    call = [
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "1", "name": "look", "input": {"at": "it"}},
    ]
    image = {"type": "image", "source": {"type": "base64", "data": "AAAA"}}
    said = [{"type": "text", "text": "result"}, image]
    ours = [
        user("look it up " + LONG),
        assistant("Let me see."),
        {"role": "tool", "content": "result"},
    ]
    for result in ("result", said, [*said[:1]]):
        envelope = user([{"type": "tool_result", "tool_use_id": "1", "content": result}])
        theirs = Prompt.of([ours[0], assistant(call), envelope])
        assert theirs.text == Prompt.of(ours).text
        assert (theirs.turns, theirs.images) == (1, int(result is said))
    asked = user([{"type": "tool_result", "tool_use_id": "1"}, {"type": "text", "text": LONG}])
    assert (Prompt.of([ours[0], asked]).turns, Prompt.of([ours[0], asked]).text) == (2, LONG)


def test_items_of_the_responses_api_are_turns() -> None:
    items = [
        user("look it up " + LONG),
        {"type": "reasoning", "summary": []},
        {"type": "function_call", "call_id": "1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "result"},
    ]
    assert Prompt.of(items).text == f"look it up {LONG}\n\n\nresult"
    shot = {"type": "computer_call_output", "output": {"type": "computer_screenshot"}}
    assert Prompt.of([*items, shot]).images == 1


def test_messages_with_a_type_in_place_of_a_role() -> None:
    """As LangChain's are, in which the type of a model's message is `ai`."""
    kinds = {"system": "Be brief.", "human": "before", "ai": "answer"}
    chat = [{"type": kind, "content": text} for kind, text in kinds.items()]
    prompt = Prompt.of([*chat, {"type": "human", "content": LONG}])
    assert (prompt.text, prompt.turns) == (f"Be brief.\n{LONG}", 2)
    assert Prompt.of([{"type": ["human"], "content": LONG}]).text == LONG
