"""From a request's messages to the text that is embedded, and a few counts.

The text is fixed here, for training and serving alike (``TEXT_VERSION``):

1. the system messages, their first 400 characters: they name the task where an application has one;
2. the turn at hand: the last user message and what follows it, such as tool results. A user message
   that holds nothing but tool results (Anthropic's form) begins no turn. If the turn is shorter
   than 200 characters ("yes, go on"), up to 800 characters of the conversation before it come
   first;
3. if the whole is longer than 3,072 characters, its first 2,048 and its last 1,024.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

TEXT_VERSION = 1
SYSTEM_CHARS = 400
SHORT_TURN, CONTEXT_CHARS = 200, 800
HEAD_CHARS, TAIL_CHARS = 2048, 1024


class ClientMessage(Protocol):
    """A message, item or part as clients return it: an object that can be turned into a mapping."""

    def model_dump(self, *, exclude_none: bool = False) -> Mapping[str, Any]:
        """The same as a mapping."""
        ...


Messages: TypeAlias = Sequence[Mapping[str, Any] | ClientMessage]

_IMAGE_PARTS = frozenset({"image_url", "input_image", "image"})
_SYSTEM_ROLES = frozenset({"system", "developer"})
# What LangChain's messages have in place of a role; the model's are of type "ai".
_ROLES = {"human": "user", "system": "system", "tool": "tool"}
_RESULT_PART = "tool_result"  # as Anthropic's API has it: a tool's result in a user message


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request as the features see it.

    Attributes:
        text: what is embedded, at most 3,073 characters, without lone surrogates.
        chars: characters of all messages.
        system_chars: characters of the system messages.
        turns: number of user messages.
        images: number of image parts.
        tools: number of tools offered.
    """

    text: str
    chars: int
    system_chars: int = 0
    turns: int = 1
    images: int = 0
    tools: int = 0

    @classmethod
    def of(cls, prompt: str | Messages, tools: Sequence[Any] | None = None) -> "Prompt":
        """Read a bare text or a list of chat messages (see `as_mapping`).

        Messages are in OpenAI's form or Anthropic's, or items of the responses API. Parts of
        unknown types are passed over.

        Raises:
            TypeError: the prompt is neither a text nor a list of messages.
        """
        offered = 0 if tools is None else len(tools)
        if isinstance(prompt, str):
            return cls(_storable(_cut(prompt)), len(prompt), tools=offered)
        return _read_messages(prompt, offered)


def _read_messages(messages: Any, offered: int) -> Prompt:
    if not isinstance(messages, Sequence) or isinstance(messages, bytes | bytearray):
        raise TypeError(f"a prompt is a text or a list of messages, not {type(messages).__name__}")
    system: list[str] = []
    before: list[str] = []
    turn: list[str] = []
    chars = turns = images = 0
    for message in messages:
        message = as_mapping(message)
        content = message.get("content")
        text, pictures = (content, 0) if isinstance(content, str) else _content(content)
        chars += len(text)
        images += pictures
        role = message.get("role")
        if isinstance(role, str) and role in _SYSTEM_ROLES:
            system.append(text)
            continue
        if role == "user" and (text is content or not _only_results(content)):
            turns += 1
            before += turn
            turn = []
        turn.append(text)
    at_hand = "\n".join(turn)
    if len(at_hand) < SHORT_TURN and before:
        at_hand = f"{_last_chars(before, CONTEXT_CHARS)}\n{at_hand}"
    head = "\n".join(system)
    whole = f"{head[:SYSTEM_CHARS]}\n{at_hand}" if head else at_hand
    return Prompt(_storable(_cut(whole)), chars, len(head), turns, images, offered)


def as_mapping(message: Any) -> Mapping[str, Any]:
    """A message, or a `ClientMessage`, as a mapping in the form of a chat message.

    Raises:
        TypeError: it is neither a mapping nor a `ClientMessage`.
    """
    if isinstance(message, Mapping):
        return message if "role" in message else as_turn(message)
    held = as_part(message)
    if not isinstance(held, Mapping) or not held.keys() & {"role", "type"}:
        raise TypeError(f"a message is a mapping, not {type(message).__name__}")
    return as_turn(held)


def as_turn(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """An item of the responses API (a tool call, a tool's output) as a chat message.

    LangChain's messages, which have a type in place of a role, are read, too.
    """
    if "type" not in item or "role" in item:
        return item
    kind = item["type"]
    if "content" in item:
        return {"role": _ROLES.get(str(kind), "assistant"), **item}
    if kind == "image_generation_call":
        return {"role": "assistant", "content": [{"type": "image"}]}
    if "output" in item:
        seen = isinstance(item["output"], Mapping)  # a screenshot
        return {"role": "tool", "content": [{"type": "image"}] if seen else item["output"]}
    return {"role": "assistant", "content": "", "tool_calls": [item]}


def as_part(thing: Any) -> Any:
    """A `ClientMessage` as a mapping, anything else as it is."""
    return thing.model_dump(exclude_none=True) if hasattr(thing, "model_dump") else thing


def parts_of(content: Any) -> Iterator[Any]:
    """The parts of a message's content, a tool's result being replaced by the parts in it.

    There are none in a bare text. A `ClientMessage` among them is given as a mapping.
    """
    if not isinstance(content, Iterable) or isinstance(content, str | Mapping | bytes | bytearray):
        return
    for part in content:
        if not isinstance(part, str | Mapping):
            part = as_part(part)
        held = part.get("content") if _is_result(part) else None
        if isinstance(held, str):
            yield held
        elif isinstance(held, list | tuple):
            yield from map(as_part, held)
        else:
            yield part


def is_image(part: Any) -> bool:
    """Whether a part is an image; logs of OpenTelemetry have a blob or URI of modality image."""
    kinds = (part.get("type"), part.get("modality")) if isinstance(part, Mapping) else ()
    return any(isinstance(kind, str) and kind in _IMAGE_PARTS for kind in kinds)


def _is_result(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == _RESULT_PART


def _only_results(content: Any) -> bool:
    """Whether a message holds tool results and nothing else."""
    return isinstance(content, list | tuple) and bool(content) and all(map(_is_result, content))


def _content(content: Any) -> tuple[str, int]:
    """The text of a message's parts and the number of images in them."""
    texts: list[str] = []
    images = 0
    for part in parts_of(content):
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping):
            text = part.get("text")
            if isinstance(text, str):
                texts.append(text)
            else:
                images += is_image(part)
    return "\n".join(texts), images


def _last_chars(texts: Sequence[str], limit: int) -> str:
    """The last `limit` characters of the texts joined; a long conversation is not joined whole."""
    kept: list[str] = []
    left = limit
    for text in reversed(texts):
        if left <= 0:
            break
        kept.append(text[-left:])
        left -= len(text) + 1
    return "\n".join(reversed(kept))


def _cut(text: str) -> str:
    if len(text) <= HEAD_CHARS + TAIL_CHARS:
        return text
    return f"{text[:HEAD_CHARS]}\n{text[-TAIL_CHARS:]}"


def _storable(text: str) -> str:
    """Replace lone surrogates, which no UTF-8 file and no tokenizer takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
