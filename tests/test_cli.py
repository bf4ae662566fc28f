"""The command line, end to end: exit codes, words for people, and no half-written output."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from router import Policy, Router
from tests.builders import edit_manifest, make_artifact
from tests.traffic_makers import (
    QUICK,
    TIERS_TOML,
    call,
    make_rows,
    one_sided,
    write_log,
    write_tiers,
)
from training import train as job_module
from training.cli import app
from training.learn import heads

COMMANDS = sorted(command.name or command.callback.__name__ for command in app.registered_commands)


@pytest.fixture
def quick(monkeypatch):
    """Little to choose from when heads are fitted; all else as it is."""
    monkeypatch.setattr(job_module, "STANDARD", QUICK)
    monkeypatch.setattr(heads, "MAX_ROUNDS", 30)


def python(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def unchanged(folder, *names):
    """Nothing is in the folder but the names."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def train_arguments(folder, traffic="log.parquet"):
    tiers = folder / "tiers.toml"
    return ["train", "--traffic", folder / traffic, "--tiers", tiers, "--out", folder / "new"]


def refused_training(capsys, folder, rows, *words, more=(), tiers=TIERS_TOML):
    """Train on rows: exit 2 with the words, and nothing written."""
    write_tiers(folder, tiers)
    write_log(folder / "log.parquet", rows)
    outcome = call(capsys, *train_arguments(folder), *more)
    outcome.refused(*words)
    assert outcome.out == ""
    unchanged(folder, "log.parquet", "tiers.toml")


# --- help, quiet, imports ---------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example(command, capsys):
    outcome = call(capsys, command, "--help")
    assert outcome.code == 0
    assert f"Example: suffice {command}" in outcome.out


def test_help_names_the_commands_and_exit_codes(capsys):
    outcome = call(capsys, "--help")
    assert all(command in outcome.out for command in COMMANDS)
    assert "2 usage or bad input" in outcome.out
    assert "...\n" not in outcome.out.split("Commands:")[1]  # no description is cut at 80 columns
    assert all(len(line) <= 80 for line in outcome.out.splitlines())
    assert {"ingest", "train", "score", "evaluate", "route", "demo", "inspect", "init"} <= set(
        COMMANDS
    )


def test_the_version_is_told(capsys):
    assert call(capsys, "--version").out.strip() == f"suffice {version('suffice')}"


def test_help_is_quick_to_import():
    """In a process of its own: what `suffice --help` has imported when it is done."""
    done = python(
        "-c",
        "import sys; sys.argv = ['suffice', '--help']\n"
        "from training.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = 'lightgbm mlflow pandas sklearn scipy pyarrow matplotlib'.split()\n"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"
    assert "Usage" in done.stdout


def test_the_process_exits_with_the_code(tmp_path):
    done = python("-m", "training", "inspect", str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert "no such artifact folder or traffic table" in done.stderr
    assert "Traceback" not in done.stderr


def test_usage_errors(capsys):
    for arguments in (["fly"], ["train"], ["score", "a"], ["train", "--seed", "-1"]):
        outcome = call(capsys, *arguments)
        assert outcome.code == 2, arguments
        assert "Traceback" not in outcome.err


# --- the whole job ----------------------------------------------------------------------------


def test_from_a_log_to_decisions(workdir, capsys, quick):
    rows = make_rows(420, seed=6, session=1)
    for row in rows:
        row["messages"] = json.loads(row["messages"])
        row["at"] = row["at"].isoformat()
        price = (0.1, 0.4) if row["tier"] == "small" else (5.0, 15.0)
        row["cost_usd"] = (price[0] * row["input_tokens"] + price[1] * row["output_tokens"]) / 1e6
    lines = "\n".join(json.dumps(row) for row in rows)
    (workdir / "log.jsonl").write_text(lines, encoding="utf-8")

    made = call(capsys, "ingest", "log.jsonl", "--out", "t.parquet", "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["total"]["read"] == 840

    made = call(capsys, "inspect", "t.parquet")
    assert made.code == 0
    assert "840 answered calls of 420 requests" in made.out

    made = call(capsys, "init", "t.parquet", "--out", "tiers.toml")
    assert made.code == 0, made.err
    found = tomllib.loads((workdir / "tiers.toml").read_text(encoding="utf-8"))["tier"]
    assert [tier["name"] for tier in found] == ["small", "large"]
    prices = [(tier["input_usd_per_mtok"], tier["output_usd_per_mtok"]) for tier in found]
    np.testing.assert_allclose(prices, [(0.1, 0.4), (5.0, 15.0)], rtol=1e-3)

    made = call(
        capsys, "train", "--traffic", "t.parquet", "--tiers", "tiers.toml", "--out", "a",
        "--split", "50/35/15", "--policy", "min_quality=0.85", "--seed", "3", "--json",
    )  # fmt: skip
    assert made.code == 0, made.err
    told = json.loads(made.out)
    assert told["policy"]["promise"]["target"] == 0.85
    assert any(line.startswith("leakage:") for line in told["summary"])
    assert told["report"]["rows"] == 63

    made = call(capsys, "inspect", "a")
    assert made.code == 0
    assert f"artifact {told['version']}" in made.out
    assert "golden replay" in made.out

    made = call(capsys, "score", "a", "--traffic", "t.parquet", "--out", "s.parquet")
    assert made.code == 0
    assert len(pd.read_parquet("s.parquet")) == 420

    made = call(capsys, "evaluate", "a", "--traffic", "t.parquet", "--json", "r.json")
    assert made.code == 0, made.err
    assert "63 requests; 357 left out, the artifact was fitted or chosen on them" in made.out
    assert json.loads((workdir / "r.json").read_text(encoding="utf-8"))["left_out"] == 357

    made = call(capsys, "route", "a", "what is the capital of peru", "--json")
    assert made.code == 0
    decision = json.loads(made.out)
    assert decision["tier"] in ("small", "large")
    assert set(decision["p_suffices"]) == {"small", "large"}


def test_quiet_says_nothing_on_stderr(job, workdir, capsys):
    arguments = ["score", job.artifact, "--traffic", job.fresh, "--out", "s.parquet"]
    assert "score" in call(capsys, *arguments).err
    for quiet in (["--quiet", *arguments], [*arguments, "--quiet"]):
        outcome = call(capsys, *quiet)
        assert (outcome.code, outcome.err) == (0, "")
        assert "120 requests" in outcome.out
    outcome = call(capsys, "--quiet", "inspect", "nowhere")
    outcome.refused("nowhere")  # errors are told all the same


def test_prompts_that_nobody_has_answered_are_scored_alike(job, workdir, capsys):
    prompts = pd.read_parquet(job.fresh)[["request_id", "messages"]]
    prompts.drop_duplicates("request_id").to_parquet("prompts.parquet")
    for traffic in (job.fresh, "prompts.parquet"):
        out = f"{Path(traffic).stem}.scores"
        assert call(capsys, "score", job.artifact, "--traffic", traffic, "--out", out).code == 0
    pd.testing.assert_frame_equal(*map(pd.read_parquet, sorted(workdir.glob("*.scores"))))
    call(capsys, "evaluate", job.artifact, "--traffic", "prompts.parquet").refused("column tier")


def test_route_words_messages_and_json(job, workdir, capsys):
    told = call(capsys, "route", job.artifact, "tell me the capital of kenya 12")
    assert told.code == 0
    assert re.match(r"(small|large) \(vendor/\1-1\), policy\n  small: suffices with prob", told.out)
    chat = [{"role": "user", "content": "prove the eigenvalue theorem of norway"}]
    for encoding in ("utf-8", "utf-8-sig"):  # with a byte-order mark, as Notepad writes it
        (workdir / "m.json").write_text(json.dumps(chat), encoding=encoding)
        told = call(capsys, "route", job.artifact, "--messages", "m.json", "--json")
        assert json.loads(told.out)["tier"] == "large"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "give a prompt or --messages"),
        (["hi", "--messages", "m.json"], "one of the two"),
        (["--messages", "nowhere.json"], "nowhere.json"),
        (["--messages", "bad.json"], "not JSON"),
    ],
)
def test_route_calls_that_are_refused(job, workdir, capsys, arguments, word):
    (workdir / "bad.json").write_text("{", encoding="utf-8")
    call(capsys, "route", job.artifact, *arguments).refused(word)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"role": "user", "content": "hi"}', ("list of messages",)),
        ('{"messages": "hi"}', ("list of messages",)),
        ('["hi"]', ("list of messages",)),
        ('"hi"', ("list of messages",)),
        ("null", ("list of messages",)),
        ('{"messages": [], "tools": {}}', ('"tools"', "an object")),
        ("[" * 100_000, ("not JSON",)),
    ],
)
def test_a_file_that_holds_no_request_is_refused(job, workdir, capsys, text, words):
    (workdir / "m.json").write_text(text, encoding="utf-8")
    outcome = call(capsys, "route", job.artifact, "--messages", "m.json")
    outcome.refused("m.json", *words)
    assert outcome.out == ""


def test_route_takes_the_body_of_a_request(job, workdir, capsys):
    chat = [{"role": "user", "content": "prove the eigenvalue theorem of norway"}]
    answers = {}
    tools = [{"type": "function", "function": {"name": "f"}}] * 40
    for name, body in (
        ("list", chat),
        ("body", {"model": "auto", "messages": chat, "temperature": 0}),
        ("tools", {"messages": chat, "tools": tools}),
    ):
        (workdir / "m.json").write_text(json.dumps(body), encoding="utf-8")
        told = call(capsys, "route", job.artifact, "--messages", "m.json", "--json")
        assert told.code == 0, told.err
        answers[name] = json.loads(told.out)
    assert answers["body"]["p_suffices"] == answers["list"]["p_suffices"]
    offered = Router.load(job.artifact).route(chat, tools=tools)
    assert answers["tools"]["p_suffices"] == offered.p_suffices


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({}, "policy"),
        ({"max_tokens": 8190}, "rule:context_window"),
        ({"functions": [{"name": "f"}]}, "rule:tools"),
        ({"metadata": {"tenant": "acme"}}, "rule:pin"),
    ],
)
@pytest.mark.parametrize("key", ["messages", "input"])
def test_route_reads_what_rules_ask_of_a_body(workdir, capsys, key, more, reason):
    """The command says of a request what the service would."""
    made = make_artifact(workdir / "ruled", Policy(0.0, constant=0))  # small: 8k, no tools
    edit_manifest(made, lambda m: m.update(rules={"pin": {"tenant": {"acme": "large"}}}))
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    (workdir / "m.json").write_text(json.dumps({key: chat, **more}), encoding="utf-8")
    told = call(capsys, "route", made, "--messages", "m.json", "--json")
    assert (told.code, json.loads(told.out)["reason"]) == (0, reason)
    words = call(capsys, "route", made, "--messages", "m.json").out
    assert "per 1,000" in words or reason == "rule:pin"  # where the model is not asked
    explained = call(capsys, "explain", made, "--messages", "m.json")
    assert explained.code == 0
    assert (f"by {reason}. What the model says" in explained.out) == (reason != "policy")


def test_mlflow_refused_is_exit_3_and_the_artifact_is_there(workdir, capsys, quick, refusing_store):
    """So is the summary: the work was not for nothing."""
    write_log(workdir / "log.parquet", make_rows(300, seed=3))
    write_tiers(workdir)
    outcome = call(capsys, *train_arguments(workdir), "--split", "60/30/10")
    assert outcome.code == 3
    assert "MLFLOW_TRACKING_URI" in outcome.err
    assert "Traceback" not in outcome.err
    assert "label rule: " in outcome.out and "Suffice, chosen" in outcome.out
    assert (workdir / "new" / "manifest.json").is_file()


def test_what_was_measured_is_told_before_mlflow_is_asked(job, workdir, capsys, refusing_store):
    told = ("--traffic", job.fresh)
    bare = call(capsys, "evaluate", job.artifact, *told)
    assert bare.code == 3
    assert "Suffice, chosen" in bare.out
    assert "nothing was written" in bare.err
    files = call(capsys, "evaluate", job.artifact, *told, "--json", "r.json", "--plots", "p")
    assert (files.code, (workdir / "r.json").is_file()) == (3, True)
    assert "written: r.json, p" in files.err
    page = call(capsys, "report", job.artifact, *told, "--out", "r.html")
    assert (page.code, (workdir / "r.html").is_file()) == (3, True)
    assert "r.html is written" in page.err


# --- bad input --------------------------------------------------------------------------------


def test_an_empty_log(tmp_path, capsys):
    rows = pd.DataFrame(make_rows(5))[:0]
    refused_training(capsys, tmp_path, rows, "empty log", "answered calls")


def test_no_tier_that_varies(tmp_path, capsys):
    rows = [row | {"score": float(row["tier"] == "large")} for row in make_rows(300)]
    refused_training(capsys, tmp_path, rows, "column score", "no tier's scores vary", "label rows")


def test_a_tier_without_rows(tmp_path, capsys):
    rows = [row for row in make_rows(300) if row["tier"] == "small"]
    refused_training(capsys, tmp_path, rows, "tier 'large'", "replay", "assume_top_suffices")


@pytest.mark.parametrize("value", [1.5, -0.1, float("inf")])
def test_scores_outside_the_range(tmp_path, capsys, value):
    rows = make_rows(60)
    rows[6]["score"] = value
    remedy = () if np.isinf(value) else ("[values.score]",)
    refused_training(capsys, tmp_path, rows, "column score, row 7", "'r3'", str(value), *remedy)


@pytest.mark.parametrize(
    ("column", "told"),
    [("request_id", "is missing"), ("messages", "is not a list of messages but null")],
)
def test_keys_that_are_missing(tmp_path, capsys, column, told):
    rows = make_rows(60)
    rows[4][column] = None
    refused_training(capsys, tmp_path, rows, f"column {column}, row 5", told)


def test_nan_keys(tmp_path, capsys):
    rows = [row | {"request_id": float(i // 2)} for i, row in enumerate(make_rows(60))]
    rows[4]["request_id"] = float("nan")
    refused_training(capsys, tmp_path, rows, "column request_id, row 5")


def test_duplicate_keys_are_counted_and_the_last_counts(workdir, capsys, quick):
    rows = make_rows(300, seed=3)
    again = [*rows, rows[0], rows[1] | {"score": 1.0 - rows[1]["score"]}]
    write_log(workdir / "log.parquet", again)
    write_tiers(workdir)
    outcome = call(capsys, *train_arguments(workdir), "--split", "60/30/10")
    assert outcome.code == 0, outcome.err
    assert "1 identical duplicate rows dropped" in outcome.out
    assert "1 rows dropped whose request_id and tier come again" in outcome.out


def test_times_with_and_without_zones(workdir, capsys, quick):
    """Without a zone means UTC; all rows have a time, so the split is by time."""
    rows = make_rows(300, seed=3)
    for i, row in enumerate(rows):
        naive = row["at"].tz_localize(None)
        row["at"] = naive.isoformat() if i // 2 % 2 else f"{naive.isoformat()}+00:00"
    write_log(workdir / "log.parquet", rows)
    write_tiers(workdir)
    outcome = call(capsys, *train_arguments(workdir), "--split", "60/30/10")
    assert outcome.code == 0, outcome.err
    assert "split by time" in outcome.out


def test_a_time_that_is_none(tmp_path, capsys):
    rows = [row | {"at": "2026-03-01T00:00:00Z"} for row in make_rows(60)]
    rows[9]["at"] = "yesterday"
    refused_training(capsys, tmp_path, rows, "column at, row 10", "ISO 8601")


@pytest.mark.parametrize("value", ['{"role": "user", "content": "hi"}', "[]", '[{"text": 1}]'])
def test_messages_that_are_not_a_list_of_messages(tmp_path, capsys, value):
    rows = make_rows(60)
    rows[2]["messages"] = value
    refused_training(capsys, tmp_path, rows, "column messages, row 3", "r1")


@pytest.mark.parametrize(
    ("n", "words"),
    [(60, ("the fit part has", "at least 100")), (136, ("independent choose rows", "--split"))],
)
def test_fewer_rows_than_the_splits_need(tmp_path, capsys, n, words):
    refused_training(capsys, tmp_path, make_rows(n), *words)


@pytest.mark.parametrize("column", ["request_id", "messages", "score"])
def test_columns_that_are_absent(tmp_path, capsys, column):
    rows = [{k: v for k, v in row.items() if k != column} for row in make_rows(60)]
    refused_training(capsys, tmp_path, rows, column)


@pytest.mark.parametrize(
    ("tiers", "words"),
    [
        (TIERS_TOML.replace("model =", "modell ="), ("tier 1", "model")),
        (TIERS_TOML.replace("= 5.0", "= -5.0"), ("tier 2", "input_usd_per_mtok")),
        ("[[tier]]" + TIERS_TOML.split("[[tier]]")[1], ("two or more",)),
        (TIERS_TOML.replace("= 0.1", "= 99.0"), ("cheapest first",)),
        ("tier:\n - name: small", ("not TOML", "line 1")),
        (TIERS_TOML.replace('"vendor/large-1"', '"x"').replace('"large"', '"big"'),
         ("columns tier and model", "large / vendor/large-1", "[[tier]]")),
    ],
)  # fmt: skip
def test_tiers_that_are_refused(tmp_path, capsys, tiers, words):
    refused_training(capsys, tmp_path, make_rows(60), *words, tiers=tiers)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--split", "nonsense"], ("--split 'nonsense'", "75/15/10")),
        (["--split", "80/30/10"], ("add up to 100",)),
        (["--policy", "min_qualty=0.9"], ("did you mean 'min_quality'",)),
        (["--policy", "min_quality"], ("NAME=VALUE",)),
        (["--policy", "min_quality=high"], ("not a number",)),
        (["--config", "nowhere.toml"], ("nowhere.toml",)),
        (["--embedder", "nowhere"], ("nowhere",)),
    ],
)
def test_options_that_are_refused(tmp_path, capsys, more, words):
    refused_training(capsys, tmp_path, make_rows(60), *words, more=more)


def test_a_configuration_with_a_slip_of_the_pen(workdir, capsys):
    write_log(workdir / "log.parquet", make_rows(60))
    write_tiers(workdir)
    (workdir / "c.toml").write_text("[label]\nsuficed_at = 0.5\n", encoding="utf-8")
    outcome = call(capsys, *train_arguments(workdir), "--config", "c.toml")
    outcome.refused("[label]", "did you mean 'sufficed_at'")
    unchanged(workdir, "c.toml", "log.parquet", "tiers.toml")


def test_files_that_are_missing(job, workdir, capsys):
    write_tiers(workdir)
    call(capsys, *train_arguments(workdir)).refused("log.parquet", "no such file", "ingest")
    (workdir / "tiers.toml").unlink()
    write_log(workdir / "log.parquet", make_rows(60))
    call(capsys, *train_arguments(workdir)).refused("tiers.toml")
    for command in ("score", "evaluate"):
        out = ["--out", "s.parquet"] if command == "score" else ["--json", "s.json"]
        call(capsys, command, job.artifact, "--traffic", "none.parquet", *out).refused("none")
        call(capsys, command, "none", "--traffic", job.fresh, *out).refused("none")
    call(capsys, "route", "none", "hi").refused("none")
    call(capsys, "init", "none.parquet").refused("none.parquet")
    call(capsys, "ingest", "none.csv", "--out", "t.parquet").refused("none.csv")
    unchanged(workdir, "log.parquet")


def test_a_file_that_is_no_parquet(job, workdir, capsys):
    (workdir / "log.parquet").write_text("a,b\n1,2\n", encoding="utf-8")
    call(capsys, "inspect", "log.parquet").refused("not a Parquet file", "ingest")


@pytest.mark.parametrize("damage", ["byte", "missing", "manifest", "protocol"])
def test_a_damaged_artifact_is_refused_by_every_command(job, workdir, capsys, damage):
    folder = workdir / "a"
    shutil.copytree(job.artifact, folder)
    if damage == "byte":
        content = bytearray((folder / "heads.npz").read_bytes())
        content[len(content) // 2] ^= 1
        (folder / "heads.npz").write_bytes(content)
    elif damage == "missing":
        (folder / "embedder" / "vectors.npy").unlink()
    else:
        text = (folder / "manifest.json").read_text(encoding="utf-8")
        text = text.replace('"protocol": 1', '"protocol": 9') if damage == "protocol" else text[1:]
        (folder / "manifest.json").write_text(text, encoding="utf-8")
    for arguments in (
        ["route", "a", "hi"],
        ["inspect", "a"],
        ["score", "a", "--traffic", job.fresh, "--out", "s.parquet"],
        ["evaluate", "a", "--traffic", job.fresh, "--json", "r.json", "--plots", "p"],
    ):
        outcome = call(capsys, *arguments)
        outcome.refused("error: a:")
        assert outcome.out == ""
    unchanged(workdir, "a")


def test_evaluate_with_nothing_new(job, workdir, capsys):
    old = pd.read_parquet(job.traffic)[:600]
    write_log(workdir / "old.parquet", old)
    outcome = call(capsys, "evaluate", job.artifact, "--traffic", "old.parquet", "--json", "r.json")
    outcome.refused("the 300 requests that the artifact was fitted or chosen on", "newer traffic")
    unchanged(workdir, "old.parquet")


def test_evaluate_with_one_tier_only(job, workdir, capsys):
    fresh = pd.read_parquet(job.fresh)
    write_log(workdir / "small.parquet", fresh[fresh["tier"] == "small"])
    outcome = call(capsys, "evaluate", job.artifact, "--traffic", "small.parquet")
    outcome.refused("every tier's score", "replay")


def test_a_fault_of_ours_is_not_a_job_s_no(job, workdir, capsys, monkeypatch):
    def broken(*_):
        raise RuntimeError("a fault")

    monkeypatch.setattr("training.watch.drift.drift", broken)
    done = call(capsys, "drift", "--reference", job.artifact, "--traffic", job.fresh)
    assert done.code == 3
    assert "RuntimeError: a fault" in done.err
    assert "please report it" in done.err


# --- init -------------------------------------------------------------------------------------


def test_init_without_bills_says_what_to_fill_in(workdir, capsys):
    write_log(workdir / "log.parquet", make_rows(30))
    assert call(capsys, "init", "log.parquet").code == 0
    text = (workdir / "tiers.toml").read_text(encoding="utf-8")
    assert text.count("FILL IN") == 4
    assert text.startswith("# ORDER AND PRICES UNKNOWN: fill in, cheapest first\n")
    assert {tier["model"] for tier in tomllib.loads(text)["tier"]} == {
        "vendor/small-1",
        "vendor/large-1",
    }
    missing = ("tier 1", "['input_usd_per_mtok', 'output_usd_per_mtok']", "fill in")
    call(capsys, *train_arguments(workdir)).refused(*missing)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("cost_usd", "large, small: no bills in the log"),
        ("input_tokens", "small, large: bills are there, token counts are not: map input_tokens"),
    ],
)
def test_init_says_why_prices_are_unknown(workdir, capsys, column, words):
    rows = [row | {"cost_usd": 9.0 if row["tier"] == "large" else 1.0} for row in make_rows(30)]
    write_log(workdir / "log.parquet", [row | {column: None} for row in rows])
    told = call(capsys, "init", "log.parquet").out
    assert "prices unknown: fill them in" in told
    assert words in told
    assert f"# prices: {words.split(': ', 1)[1]}" in (workdir / "tiers.toml").read_text("utf-8")


def test_init_calls_a_fit_a_fit(workdir, capsys):
    rows = make_rows(30, seed=1)
    for i, row in enumerate(rows):
        exact = 2 * row["input_tokens"] + 10 * row["output_tokens"]
        row["cost_usd"] = exact * (1 + 0.01 * (i % 3)) / 1e6
    write_log(workdir / "log.parquet", rows)
    assert "prices are estimates: check them" in call(capsys, "init", "log.parquet").out
    text = (workdir / "tiers.toml").read_text(encoding="utf-8")
    assert text.count("  # estimated from 30 bills; check against the list price\n") == 4
    for tier in tomllib.loads(text)["tier"]:
        for price in (tier["input_usd_per_mtok"], tier["output_usd_per_mtok"]):
            assert price == float(f"{price:.3g}")


def test_init_finds_the_price_that_most_bills_agree_with(workdir, capsys):
    rows = make_rows(3000, seed=1)
    for i, row in enumerate(rows):
        row["input_tokens"] = 20 + 37 * i % 901
        if i % 10 == 0:  # long, and mostly of cached tokens
            row["input_tokens"] = 20_000
        row["cost_usd"] = (0.15 * row["input_tokens"] + 0.6 * row["output_tokens"]) / 1e6
        row["cost_usd"] *= 0.6 if i % 10 == 0 else 1.0
    write_log(workdir / "log.parquet", rows)
    assert call(capsys, "init", "log.parquet").code == 0
    text = (workdir / "tiers.toml").read_text(encoding="utf-8")
    assert "estimated from 2000 of 3000 bills" in text
    for tier in tomllib.loads(text)["tier"]:
        assert (tier["input_usd_per_mtok"], tier["output_usd_per_mtok"]) == (0.15, 0.6)


def test_init_gives_no_price_that_bills_do_not_agree_with(workdir, capsys):
    """Bills with a fee a call, or of a column that is no bill, gave prices all the same."""
    rows = make_rows(90, seed=1)
    for i, row in enumerate(rows):
        row["input_tokens"], row["cost_usd"] = 20 + 37 * i % 901, 0.001 * (1 + i % 7) ** 3
    write_log(workdir / "log.parquet", rows)
    assert "no price fits most bills" in call(capsys, "init", "log.parquet").out
    text = (workdir / "tiers.toml").read_text(encoding="utf-8")
    assert text.count("FILL IN") == 4 and "UNKNOWN" not in text  # the order shows in any bill


def test_a_tier_that_costs_nothing_is_possible(workdir, capsys, quick):
    write_log(workdir / "log.parquet", make_rows(300, seed=3))
    write_tiers(workdir, TIERS_TOML.replace("= 0.1", "= 0").replace("= 0.4", "= 0"))
    done = call(capsys, *train_arguments(workdir), "--split", "60/30/10")
    assert done.code == 0, done.err
    assert "tier small: both prices are 0" in done.out


# --- inspect ----------------------------------------------------------------------------------


def inspected(capsys, folder, rows):
    """What `suffice inspect` says of a log of these rows."""
    return call(capsys, "inspect", write_log(folder / "log.parquet", rows)).out


def test_inspect_tells_failed_calls_from_answered_ones(workdir, capsys):
    rows = make_rows(30)
    rows[0] |= {"error": "Timeout", "score": None}
    assert "59 answered and 1 failed calls of 30 requests" in inspected(capsys, workdir, rows)
    failed = inspected(capsys, workdir, [row | {"error": "Timeout"} for row in rows])
    assert "0 answered and 60 failed calls of 30 requests" in failed


def test_inspect_tells_unlabelled_answers_from_a_one_sided_log(workdir, capsys):
    paired = make_rows(30)
    assert "30 requests carry the scores of two or more" in inspected(capsys, workdir, paired)
    for labelled, word in ((None, "none is labelled yet"), ("small", "none is labelled twice")):
        rows = [r | {"score": r["score"] if r["tier"] == labelled else None} for r in paired]
        told = inspected(capsys, workdir, rows)
        assert f"30 requests were answered by two or more tiers, {word}: `suffice label`" in told
        assert "one-sided" not in told


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (300, ("propensity on 300 of 300 answered calls, smallest 0.1; ", "is estimated from it")),
        (200, ("propensity on 200 of 300 answered calls", "and not from the other calls")),
        (0, ("no propensity on any call", "refuses", "--estimate-propensities")),
    ],
)
def test_inspect_says_what_propensities_allow(workdir, capsys, kept, words):
    rows = one_sided(make_rows(300), 0.1)
    rows = [r if i < kept else r | {"propensity": None} for i, r in enumerate(rows)]
    told = inspected(capsys, workdir, rows)
    assert "a one-sided log" in told
    assert all(word in told for word in words)


def test_inspect_says_when_one_tier_alone_answered(workdir, capsys):
    told = inspected(capsys, workdir, make_rows(30)[::2])
    assert "one tier alone answered" in told
    assert "no propensity" not in told


def test_init_orders_by_bills_and_puts_models_without_last(workdir, capsys):
    models = ["a-dear", "b-unknown", "c-cheap"]
    for known, first in ((models, "# Tiers, cheapest first."), (["a-dear", "c-cheap"], "# ORDER")):
        rows = [
            row | {"model": models[i % 3], "tier": None, "cost_usd": [9.0, 5.0, 0.1][i % 3]}
            for i, row in enumerate(make_rows(30))
        ]
        bills = [row if row["model"] in known else row | {"cost_usd": None} for row in rows]
        write_log(workdir / "log.parquet", bills)
        outcome = call(capsys, "init", "log.parquet", "--out", f"{len(known)}.toml")
        assert outcome.code == 0, outcome.err
        text = (workdir / f"{len(known)}.toml").read_text(encoding="utf-8")
        assert text.startswith(first)
        ordered = [tier["model"] for tier in tomllib.loads(text)["tier"]]
        expected = sorted(known, key=["c-cheap", "b-unknown", "a-dear"].index)
        assert ordered == [*expected, *(m for m in models if m not in known)]


def test_init_writes_each_tier_of_the_log_once(workdir, capsys, quick):
    """Tiers whose model was replaced, or shared by two of them; some rows do not say their tier."""
    bills = {"small": ("m-1", 0.1, 0.4), "effort": ("m-1", 0.4, 1.6), "large": ("m-2", 5.0, 15.0)}
    rows = []
    for i, row in enumerate(make_rows(300, session=1)):
        tier = row["tier"] if i % 5 or row["tier"] == "large" else "effort"
        model, paid, made = bills[tier]
        if tier == "large" and i > 400:
            model, paid, made = "m-3", 2.0, 8.0
        usd = (paid * row["input_tokens"] + made * row["output_tokens"]) / 1e6
        named = None if tier == "large" and i % 3 == 0 else tier
        rows.append(row | {"tier": named, "model": model, "cost_usd": usd})
    write_log(workdir / "log.parquet", rows)
    assert call(capsys, "init", "log.parquet").code == 0
    text = (workdir / "tiers.toml").read_text(encoding="utf-8")
    found = tomllib.loads(text)["tier"]
    assert [(tier["name"], tier["model"]) for tier in found] == [
        ("small", "m-1"),
        ("effort", "m-1"),
        ("large", "m-2"),
    ]
    prices = [(tier["input_usd_per_mtok"], tier["output_usd_per_mtok"]) for tier in found]
    np.testing.assert_allclose(prices, [bills[tier["name"]][1:] for tier in found], rtol=1e-2)
    assert "# 300 calls, 100 of them by other models" in text


def test_init_never_overwrites(workdir, capsys):
    write_log(workdir / "log.parquet", make_rows(30))
    write_tiers(workdir, "mine")
    call(capsys, "init", "log.parquet").refused("tiers.toml exists")
    assert (workdir / "tiers.toml").read_text(encoding="utf-8") == "mine"


def test_init_writes_toml_whatever_the_names(workdir, capsys):
    odd = ['say "hi"', "back\\slash", "new\nline", "größe 🎉"]
    rows = [row | {"model": odd[i % 4], "tier": None} for i, row in enumerate(make_rows(40))]
    write_log(workdir / "log.parquet", rows)
    outcome = call(capsys, "init", "log.parquet")
    assert outcome.code == 0, outcome.err
    found = tomllib.loads((workdir / "tiers.toml").read_text(encoding="utf-8"))["tier"]
    assert {tier["model"] for tier in found} == set(odd)


def test_init_without_models(workdir, capsys):
    rows = [{k: v for k, v in row.items() if k != "model"} for row in make_rows(5)]
    write_log(workdir / "log.parquet", rows)
    call(capsys, "init", "log.parquet").refused("column model")
