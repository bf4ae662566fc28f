"""The documentation does what it says: every fenced block is executed, every link leads somewhere.

A block is one of: ``bash`` (run in a folder that holds the files which the page says are there),
``python`` (executed in order, in one namespace), ``toml`` whose first line names a file (written
there for the commands after it). Anything else fails. ``make`` is not run from inside the tests:
`.ci/run` does that, and a test holds it to it.
"""

import csv
import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from typer.main import get_command

from tests.builders import make_artifact
from tests.traffic_makers import make_rows
from training.cli import app

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "data/README.md",
    "data/sample/README.md",
    "notebooks/README.md",
    "router/README.md",
)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each fenced block of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [(match[1], match[2]) for match in BLOCK.finditer(text)]
    assert text.count("```") == 2 * len(found), f"{page}: a fence that is not understood"
    return found


def _own_log(path: Path, seed: int, requests: int = 300) -> None:
    """A log as the README describes it: a CSV with names of its own, two models, grades, bills."""
    renamed = {"request_id": "id", "at": "ts", "session_id": "conversation", "score": "grade"}
    renamed |= {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"}
    frame = pd.DataFrame(make_rows(requests, seed, session=1)).drop(columns="tier")
    frame["request_id"] += f"-{seed}"
    paid = {"vendor/small-1": (0.1, 0.4), "vendor/large-1": (5.0, 15.0)}
    prices = np.array([paid[model] for model in frame["model"]])
    tokens = frame[["input_tokens", "output_tokens"]].to_numpy()
    frame["cost_usd"] = (tokens * prices).sum(axis=1) / 1e6
    frame.rename(columns=renamed).to_csv(path, index=False)


def _readme_files(folder: Path) -> None:
    _own_log(folder / "requests.csv", seed=1)
    _own_log(folder / "next-week.csv", seed=2)


def _data_files(folder: Path) -> None:
    """What `data/README.md` speaks of: a folder of logs, a compressed one, Parquet exports."""
    names = ["request_id", "prompt", "model", "score"]
    for place in ("logs/a.csv", "logs/b.csv", "more.csv"):
        (folder / place).parent.mkdir(exist_ok=True)
        with (folder / place).open("w", newline="") as file:
            csv.writer(file).writerows([names, [place, "What is it?", "m-1", 1]])
    (folder / "more.csv.gz").write_bytes(gzip.compress((folder / "more.csv").read_bytes()))
    (folder / "exports").mkdir()
    row = dict(zip(names, ["export", "What is it?", "m-1", 0.0], strict=True))
    pd.DataFrame([row]).to_parquet(folder / "exports" / "c.parquet")


def _router_files(folder: Path) -> None:
    make_artifact(folder / "artifacts" / "current")


FILES = {
    "README.md": _readme_files,
    "data/README.md": _data_files,
    "router/README.md": _router_files,
}


def _run_bash(text: str, folder: Path) -> None:
    """Run a block as a shell would, with this environment's `suffice` first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", text],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def _check_make(text: str) -> None:
    """The block's targets exist, and `.ci/run` runs them; without make, CI alone holds them."""
    in_ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for line in text.splitlines():
        _, target = line.split()
        assert re.search(rf"\bmake (-s )?{target}\b", in_ci, re.MULTILINE), f".ci/run lacks {line}"
        if shutil.which("make"):
            subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_the_page_runs(
    page: str, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if page in FILES:
        FILES[page](workdir)
    names: dict[str, object] = {"__name__": "docs"}
    for language, text in _blocks(page):
        if language == "bash" and text.startswith("make "):
            _check_make(text)
        elif language == "bash":
            _run_bash(text, workdir)
        elif language == "python":
            exec(compile(text, page, "exec"), names)
        elif language == "toml":
            name = text.splitlines()[0].removeprefix("# ")
            assert name.endswith(".toml"), f"{page}: a toml block names its file first: {text}"
            tomllib.loads(text)
            (workdir / name).write_text(text, encoding="utf-8")
        elif language == "yaml":
            assert text.startswith("# config.yaml")  # tests/test_proxy.py runs the proxy by it
            assert yaml.safe_load(text)
        else:
            pytest.fail(f"{page}: nobody executes a block of {language!r}:\n{text}")
    if page == "README.md":
        assert json.loads((workdir / "report.json").read_text())
        assert len(pd.read_parquet(workdir / "scores.parquet")) == 300
        assert "policy" in capsys.readouterr().out  # the python block decided, it did not fall back


def test_the_map_of_the_page_maps(workdir: Path) -> None:
    """The map of `data/README.md` reads a log with the names that its comments speak of."""
    blocks = (text for language, text in _blocks("data/README.md") if language == "toml")
    [text] = [text for text in blocks if text.startswith("# map.toml")]
    (workdir / "map.toml").write_text(text, encoding="utf-8")
    row = {
        "id": "r1",
        "timestamp": "2026-03-01T00:00:00Z",
        "request": {"messages": [{"role": "user", "content": "Hello"}]},
        "model": "m-1",
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "feedback": "thumbs_up",
    }
    (workdir / "log.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    _run_bash("suffice ingest log.jsonl --map map.toml --out traffic.parquet", workdir)
    [read] = pd.read_parquet(workdir / "traffic.parquet").to_dict("records")
    assert (read["score"], read["source"], read["input_tokens"]) == (1.0, "support-bot", 5)
    assert json.loads(read["messages"]) == row["request"]["messages"]


def test_the_log_format_of_the_page_reads(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of a format of one's own, installed as its `pyproject.toml` says."""
    blocks = [
        text for language, text in _blocks("data/README.md") if language in ("python", "toml")
    ]
    [code] = [text for text in blocks if text.startswith("# gateway.py")]
    [project] = [text for text in blocks if text.startswith("# pyproject.toml")]
    _install(workdir / "site", code, tomllib.loads(project)["project"]["entry-points"])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(workdir / "site"), *sys.path]))
    said = [{"role": "user", "content": "Hello"}]
    call = {"gw_call": "chat", "id": "1", "when": "2026-03-01", "messages": said, "model": "m"}
    rows = [{**call, "answer": "Hi"}, {"gw_call": "image"}, {"gw_call": "chat"}]
    (workdir / "log.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = "suffice ingest log.jsonl --format auto --max-bad 1 --json --out"
    _run_bash(f"{words} traffic.parquet > report.json", workdir)
    report = json.loads((workdir / "report.json").read_text())
    assert report["files"][0]["format"] == "gateway"
    counts = [report["total"][name] for name in ("ingested", "skipped", "quarantined")]
    assert counts == [1, 1, 1]
    [row] = pd.read_parquet(workdir / "traffic.parquet").to_dict("records")
    assert (row["request_id"], row["response"], row["model"]) == ("1", "Hi", "m")
    _run_bash(f"{words.replace('auto', 'gateway')} named.parquet", workdir)


def _install(site: Path, module: str, entry_points: dict[str, dict[str, str]]) -> None:
    """What pip leaves of a distribution with one module."""
    info = site / "gateway-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "gateway.py").write_text(module, encoding="utf-8")
    metadata = "Metadata-Version: 2.1\nName: gateway\nVersion: 1.0\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    lines = [
        line
        for group, names in entry_points.items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in names.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md", "tests/benchmarks/README.md"])
def test_every_relative_link_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), f"{page}: no file {target}"
        assert not anchor or anchor in _anchors(file), f"{page}: no heading for {target}"


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}


def test_the_picture_is_small() -> None:
    picture = ROOT / "data" / "sample" / "cost_quality.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 200_000


def test_commands_and_options_of_the_pages_exist() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    options = {name: {o for p in c.params for o in p.opts} for name, c in commands.items()}
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for command, rest in re.findall(r"\bsuffice ([a-z]+)\b([^`\n|]*)", text):
            assert command in commands, f"{page}: suffice {command}"
            used = {word.split("=")[0] for word in shlex.split(rest, posix=False)}
            unknown = {word for word in used if word.startswith("--")} - options[command]
            assert unknown <= {"--help"}, f"{page}: suffice {command} {unknown}"


def test_the_readme_lists_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`suffice .*?`) \|", text, re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`suffice (\w+)`", row)]
    assert sorted(listed) == sorted(get_command(app).commands)  # type: ignore[attr-defined]


def test_help_lists_every_command_with_an_example() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "training", "--help"], capture_output=True, text=True, check=True
    )
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        assert re.search(rf"^  {name}  ", done.stdout, re.MULTILINE), name
        assert command.help is not None
        assert f"Example: suffice {name}" in command.help, name


def test_every_benchmark_is_listed() -> None:
    folder = ROOT / "tests" / "benchmarks"
    listed = re.findall(r"`(bench_\w+\.py)`", (folder / "README.md").read_text(encoding="utf-8"))
    assert {file.name for file in folder.glob("bench_*.py")} <= set(listed)


def test_the_changelog_starts_with_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    titles = re.findall(
        r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert titles[0] == project["version"]


def test_the_pip_of_python_3_11_finds_what_is_pinned() -> None:
    """Of a package without releases, it finds something only if a bound names a pre-release."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = map(Requirement, chain.from_iterable(project["optional-dependencies"].values()))
    bounded = {need.name: need.specifier for need in asked if need.specifier}
    lines = (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    early = {name for name in bounded.keys() & pins if Version(pins[name]).is_prerelease}
    assert early
    for name in early:
        assert bounded[name].prereleases, f"{name}{bounded[name]}"


def test_no_machine_and_no_registry_in_the_set_up() -> None:
    """Constraints are released versions by name: no path, no host, no commit."""
    texts = [file.read_text(encoding="utf-8") for file in (ROOT / ".ci").glob("*.txt")]
    assert len(texts) == 2
    for line in "".join(texts).splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9_.\-]+==[A-Za-z0-9.]+", line), line
