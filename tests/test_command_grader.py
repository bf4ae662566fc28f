"""A command as a grader: exit codes, printed scores, hangs, garbage, and what it leaves running."""

import os
import sys
import time
from pathlib import Path

import pytest

from training.label.command_grader import Command
from training.label.graders import Grader


def run(script, response="answer", reference=None, **more):
    words = (sys.executable, "-c", script)
    return Grader("unit", Command(words, **more)).grade(response, reference)


def test_the_exit_code_is_the_grade():
    assert run("import sys; sys.exit(sys.stdin.read() != 'answer')").score == 1.0
    assert run("import sys; sys.exit(sys.stdin.read() != 'answer')", "other").score == 0.0
    assert run("import sys; sys.exit(5)").score == 0.0


def test_a_printed_score_is_the_grade():
    assert run("print('checked 4 cases'); print(0.75)", printed=True).score == 0.75


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("print('well')", "no number"),
        ("print()", "no number"),
        ("print('nan')", "outside"),
        ("print(1.5)", "outside"),
        ("print(1.0); raise SystemExit(3)", "exit code 3"),
        ("import sys; sys.stdout.buffer.write(bytes(range(256)))", "no number"),
    ],
)
def test_garbage_is_no_grade(script, words):
    found = run(script, printed=True)
    assert found.score is None
    assert words in found.why


def test_a_command_that_is_not_there_or_is_killed_is_no_grade():
    found = Grader("unit", Command(("no-such-command-4711",))).grade("answer", None)
    assert found.score is None
    assert "cannot be run" in found.why
    assert "signal 9" in run("import os; os.kill(os.getpid(), 9)").why


def test_answer_and_reference_come_in_files_whatever_they_hold():
    script = "import sys; a, r = (open(f, 'rb').read() for f in sys.argv[1:]); sys.exit(a != r)"
    command = Command((sys.executable, "-c", script, "{answer}", "{reference}"))
    hostile = "$(touch x)'; \"`\r\n\x00\ud800 ünï {reference}"
    assert command.needs_reference
    assert Grader("unit", command).grade(hostile, hostile).score == 1.0
    assert Grader("unit", command).grade(hostile, "other").score == 0.0


def test_a_hang_is_killed_with_its_children(tmp_path):
    mark = tmp_path / "pid"
    script = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(mark)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)"
    )
    started = time.perf_counter()
    found = run(script, timeout_s=1.5)
    assert time.perf_counter() - started < 10.0
    assert found.score is None
    assert "longer than 1.5 s" in found.why
    _gone(int(mark.read_text()))


def test_what_a_command_leaves_running_is_killed(tmp_path):
    mark = tmp_path / "pid"
    script = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(mark)!r}, 'w').write(str(child.pid))"
    )
    assert run(script).score == 1.0
    _gone(int(mark.read_text()))


def test_endless_printing_fills_nothing():
    found = run("while True: print('x' * 4096)", timeout_s=1.0, printed=True)
    assert found.score is None
    assert "longer than" in found.why


def test_the_key_of_the_ids_is_not_handed_on(monkeypatch):
    monkeypatch.setenv("SUFFICE_KEY", "secret")
    assert run("import os, sys; sys.exit('SUFFICE_KEY' in os.environ)").score == 1.0


def _gone(pid):
    """Wait until a process is dead; a zombie that nobody reaps is."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} still runs")
