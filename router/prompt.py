"""From the messages of a request to the text that is embedded and the facts beside it.

The text is fixed here, for training and serving alike (``TEXT_VERSION``):

1. the system messages, their first 400 characters: they name the task where an application has one;
2. the turn at hand: the last user message and what follows it (tool results). Where that is under
   200 characters ("yes, go on"), up to 800 characters of the conversation before it stand in front;
3. if the whole is longer than 3,072 characters, its first 2,048 and its last 1,024.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

TEXT_VERSION = 1
SYSTEM_CHARS = 400
SHORT_TURN, CONTEXT_CHARS = 200, 800
HEAD_CHARS, TAIL_CHARS = 2048, 1024


class ClientMessage(Protocol):
    """What clients return: a message that is no mapping and can become one."""

    def model_dump(self, *, exclude_none: bool = False) -> Mapping[str, Any]:
        """The message as a mapping."""
        ...


Messages: TypeAlias = Sequence[Mapping[str, Any] | ClientMessage]

_IMAGE_PARTS = frozenset({"image_url", "input_image", "image"})
_SYSTEM_ROLES = frozenset({"system", "developer"})


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
        """Read a bare text or a list of chat messages in OpenAI's form (see `as_mapping`).

        Parts of unknown types are passed over.

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
        text, pictures = _content(message.get("content"))
        chars += len(text)
        images += pictures
        role = message.get("role")
        if isinstance(role, str) and role in _SYSTEM_ROLES:
            system.append(text)
            continue
        if role == "user":
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
    """A message as a mapping: itself, or what a `ClientMessage` given back as a turn holds.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(message, Mapping):
        return message
    held = message.model_dump(exclude_none=True) if hasattr(message, "model_dump") else None
    if not isinstance(held, Mapping) or "role" not in held:
        raise TypeError(f"a message is a mapping, not {type(message).__name__}")
    return held


def _content(content: Any) -> tuple[str, int]:
    """The text of a message's content and the number of images in it."""
    if isinstance(content, str):
        return content, 0
    if not isinstance(content, Iterable) or isinstance(content, Mapping | bytes | bytearray):
        return "", 0
    texts: list[str] = []
    images = 0
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping):
            kind, text = part.get("type"), part.get("text")
            if isinstance(text, str):
                texts.append(text)
            elif isinstance(kind, str) and kind in _IMAGE_PARTS:
                images += 1
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
