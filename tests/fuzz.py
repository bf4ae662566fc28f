"""Requests and artifacts as nobody should send them, drawn from a seed."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROLES = ("user", "assistant", "system", "developer", "tool", "function", "critic", "", None, 3)
KINDS = ("text", "image_url", "input_image", "input_audio", "video", "", None, 7, "refusal")
KEYS = ("role", "content", "type", "text", "tool_calls", "name", "image_url", "\ud800", "x")
_ALPHABETS = (
    "abc ?.,\n",
    "\ud800\udfff",
    "中文字",
    "🎉👩‍👩‍👧",
    "\0\x1b\u202e",
    "01234.5",
    '{}[]"\\`',
    "Z̸̢a",
)


class Fuzz:
    """Draws values; each number of `seed` gives the same ones again."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def text(self) -> str:
        """Short or long, of one or several alphabets."""
        pick = self.random
        size = pick.choice((0, 1, 5, 20, 200, 200, 3000))
        letters = "".join(pick.sample(_ALPHABETS, pick.randint(1, 3)))
        return "".join(pick.choices(letters, k=size)) if size < 500 else pick.choice(letters) * size

    def value(self, depth: int = 3) -> Any:
        """Anything that JSON holds, and what it does not."""
        pick = self.random
        kind = pick.randrange(12 if depth else 8)
        if kind < 3:
            return self.text()
        if kind < 8:
            some = (None, True, -1, 2**70, float("nan"), 1e308, b"\xff\x00", object, {1, 2}, 0.5)
            return pick.choice(some)
        if kind < 10:
            return [self.value(depth - 1) for _ in range(pick.randint(0, 4))]
        return {pick.choice(KEYS): self.value(depth - 1) for _ in range(pick.randint(0, 4))}

    def content(self) -> Any:
        """Text, parts of known and unknown types, or anything."""
        pick = self.random.random()
        if pick < 0.4:
            return self.text()
        if pick < 0.6:
            return self.value()
        return [
            {"type": self.random.choice(KINDS), "text": self.value(1), "image_url": self.value(1)}
            for _ in range(self.random.randint(0, 4))
        ]

    def message(self) -> Any:
        """A message, more or less."""
        pick = self.random
        if pick.random() < 0.1:
            return self.value()
        message = {"role": pick.choice(ROLES), "content": self.content()}
        if pick.random() < 0.2:
            message["tool_calls"] = self.value()
        return message

    def request(self) -> tuple[Any, dict[str, Any]]:
        """A prompt and the arguments of `route` beside it."""
        pick = self.random
        prompt: Any = self.text() if pick.random() < 0.2 else self.value()
        if pick.random() < 0.8:
            prompt = [self.message() for _ in range(pick.choice((0, 1, 1, 2, 3, 8)))]
            if pick.random() < 0.001:
                prompt = prompt * 1500
        names = ("tools", "max_tokens", "json_mode", "session", "tenant", "tags")
        return prompt, {name: self.value() for name in names if pick.random() < 0.2}

    def damage(self, folder: Path) -> Callable[[], None]:
        """Damage an artifact in place; returns what undoes it."""
        pick = self.random
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        file = pick.choice(files)
        raw = file.read_bytes()
        at = pick.randrange(len(raw))
        how = pick.randrange(7)
        if how == 0:
            new = raw[:at] + bytes([raw[at] ^ (1 << pick.randrange(8))]) + raw[at + 1 :]
        elif how == 1:
            new = raw[:at]
        elif how == 2:
            new = raw + pick.randbytes(pick.randint(1, 50))
        elif how == 3:
            new = raw[:at] + pick.randbytes(pick.randint(1, 20)) + raw[at:]
        elif how == 4:
            new = raw[:at] + raw[at + pick.randint(1, 100) :]
        elif how == 5:
            new = b""
        else:
            new = pick.choice([other for other in files if other != file]).read_bytes()
        if how == 5 and pick.random() < 0.5:
            file.unlink()
        else:
            file.write_bytes(new)
        return lambda: _restore(file, raw)


def _restore(file: Path, raw: bytes) -> None:
    file.write_bytes(raw)
