"""A grader that is a command: unit tests, a linter, a script of the team's own.

The command is a list of words and no shell reads it. It gets the answer on standard input, and in a
file wherever a word holds `{answer}` (`{reference}`: the reference). It runs in a process group
of its own that is killed at the time limit or when the command ends, without SUFFICE_KEY in its
environment, and what it prints beyond the last lines is thrown away. It is not a sandbox: code that
a model wrote runs with the rights of whoever runs `suffice label`.
"""

import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO

from training.label.graders import Grade

KEPT_BYTES = 4096
CANNOT_RUN = (126, 127)  # what shells and `env` answer when there is nothing to run
HIDDEN = ("SUFFICE_KEY",)


@dataclass(frozen=True, slots=True)
class Command:
    """Exit code 0 is a score of 1, another one 0; or the last line printed is the score.

    Attributes:
        words: the command and its arguments.
        timeout_s: seconds after which the process group is killed.
        printed: the score is the last line on stdout, and any exit code but 0 is no grade.
    """

    words: tuple[str, ...]
    timeout_s: float = 10.0
    printed: bool = False

    @property
    def needs_reference(self) -> bool:
        return any("{reference}" in word for word in self.words)

    def grade(self, response: str, reference: str) -> Grade:
        """Run the command on one answer; a hang, a crash and garbage are no grade."""
        with tempfile.TemporaryDirectory(prefix="suffice-") as folder:
            answer, wanted = Path(folder, "answer"), Path(folder, "reference")
            answer.write_text(response, "utf-8", "replace", newline="")
            wanted.write_text(reference, "utf-8", "replace", newline="")
            named = {"{answer}": str(answer), "{reference}": str(wanted)}
            words = [_fill(word, named) for word in self.words]
            try:
                code, told = _run(words, answer, self.timeout_s)
            except OSError as error:
                return Grade(None, f"{words[0]} cannot be run ({error.strerror})")
            except subprocess.TimeoutExpired:
                return Grade(None, f"took longer than {self.timeout_s:g} s")
        return self._grade(code, told)

    def _grade(self, code: int, told: str) -> Grade:
        if code < 0:
            return Grade(None, f"was ended by signal {-code}")
        if code in CANNOT_RUN or (self.printed and code):
            return Grade(None, f"ended with exit code {code}")
        return _printed(told) if self.printed else Grade(float(code == 0))


def _printed(told: str) -> Grade:
    """The score that stands at the end of what was printed."""
    try:
        score = float(told.split()[-1])
    except (IndexError, ValueError):
        return Grade(None, "printed no number at its end")
    if not 0.0 <= score <= 1.0:
        return Grade(None, "printed a number outside [0, 1]")
    return Grade(score)


def _fill(word: str, named: dict[str, str]) -> str:
    for mark, path in named.items():
        word = word.replace(mark, path)
    return word


def _run(words: Sequence[str], answer: Path, timeout_s: float) -> tuple[int, str]:
    """Exit code and the last bytes of stdout.

    Raises:
        OSError: there is no such command.
        subprocess.TimeoutExpired: it was killed.
    """
    environment = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    with (
        answer.open("rb") as given,
        subprocess.Popen(
            words,
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            bufsize=0,
        ) as process,
    ):
        assert process.stdout is not None
        kept = bytearray()
        reader = Thread(target=_drain, args=(process.stdout, kept), daemon=True)
        reader.start()
        try:
            code = process.wait(timeout_s)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it left running
            process.wait()
            reader.join(1.0)  # a child that left the group may hold the pipe open
    return code, kept.decode("utf-8", "replace")


def _drain(stream: IO[bytes], kept: bytearray) -> None:
    """Read to the end, keep the last bytes."""
    with suppress(ValueError, OSError):
        while chunk := stream.read(65536):
            kept += chunk
            del kept[:-KEPT_BYTES]
