"""`suffice label` end to end: files, exit codes, bad input, and that rows are not changed."""

import json
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.traffic_makers import call, make_rows, write_log, write_tiers

NUMERIC = '[[label.grader]]\nkind = "numeric"\nwhere = { source = "maths" }\n'


def traffic(folder, *more):
    """Sessions with a bit of everything, and rows of `more` on top."""
    start = pd.Timestamp("2026-03-01T12:00:00Z")
    rows = [
        {"session_id": "a", "model": "m-mini", "messages": "What is 6 times 7?", "response": "43"},
        {"session_id": "a", "model": "m", "messages": "What is 6 times 7?", "response": "It is 42"},
        {"session_id": "b", "model": "m-mini", "messages": "Who wrote Emma?", "response": "Austen"},
        {"session_id": "c", "model": "m-mini", "messages": "Say hi", "response": "hi"},
        {"session_id": "d", "model": "m-mini", "messages": "Say ho", "status": "error"},
        *more,
    ]
    for i, row in enumerate(rows):
        row.setdefault("request_id", f"r{i}")
        row.setdefault("at", start + pd.Timedelta(minutes=i))
        row["source"] = "maths" if i < 2 else "chat"
        row["reference"] = "42" if i < 2 else None
    rows[2] |= {"score": 1.0, "score_source": "feedback"}
    return write_log(folder / "traffic.parquet", rows)


def config(folder, text):
    path = folder / "label.toml"
    path.write_text(text, encoding="utf-8")
    return path


def labels(path):
    frame = pd.read_parquet(path).set_index("request_id")
    return {
        name: (row.score, row.score_source, round(row.label_weight, 3))
        for name, row in frame[frame["score"].notna()].iterrows()
    }


def test_grades_feedback_and_signals_in_one_table(workdir, capsys):
    log = traffic(workdir)
    settings = config(workdir, "[label]\nsufficed_at = 0.5\n" + NUMERIC)
    done = call(capsys, "label", log, "--out", "l.parquet", "--config", settings)
    assert done.code == 0, done.err
    assert labels("l.parquet") == {
        "r0": (0.0, "grader+escalation", 0.995),
        "r1": (1.0, "grader", 0.98),
        "r2": (1.0, "feedback", 0.8),
    }
    assert "3 of 5 rows labelled" in done.out
    assert "m-mini < m (by name)" in done.out
    assert "grader" in done.out
    before, after = pd.read_parquet(log), pd.read_parquet("l.parquet")
    kept = [name for name in before if name not in ("score", "score_source")]
    pd.testing.assert_frame_equal(before[kept], after[kept])


def test_json_counts_and_pairs(workdir, capsys):
    settings = config(workdir, NUMERIC)
    done = call(
        capsys, "label", traffic(workdir), "--out", "l.parquet", "--config", settings, "--json"
    )
    told = json.loads(done.out)
    assert (told["rows"], told["labelled"], told["failed"], told["conflicts"]) == (5, 3, 1, 0)
    rows = {source["name"]: source["rows"] for source in told["sources"]}
    assert rows == {"grader": 2, "feedback": 1, "escalation": 1}
    (pair,) = told["pairs"]
    assert (pair["stronger"], pair["weaker"], pair["agree"]["value"]) == ("grader", "escalation", 1)
    assert pair["false_positive"]["value"] == 0.0


def test_the_same_input_gives_the_same_bytes_of_labels(workdir, capsys):
    log = traffic(workdir)
    for out in ("1.parquet", "2.parquet"):
        assert call(capsys, "label", log, "--out", out).code == 0
    assert labels("1.parquet") == labels("2.parquet")
    assert pq.read_table("1.parquet").equals(pq.read_table("2.parquet"))


def test_the_tiers_file_says_what_an_escalation_is(workdir, capsys):
    """Tier names that say nothing by themselves are ordered by the file."""
    rows = make_rows(1)
    at = pd.Timestamp("2026-03-01T00:00:00Z")
    for i, row in enumerate(rows):
        row |= {"request_id": f"r{i}", "at": at + pd.Timedelta(minutes=i), "score": None}
    log = write_log(workdir / "log.parquet", rows)
    tiers = write_tiers(workdir)
    assert call(capsys, "label", log, "--out", "l.parquet", "--tiers", tiers).code == 0
    assert labels("l.parquet") == {"r0": (0.0, "escalation", 0.6)}


def test_verdicts_of_another_table_are_one_more_source(workdir, capsys):
    log = traffic(workdir)
    base = {"messages": "x", "model": "m-mini", "score_source": "judge"}
    verdicts = [
        base | {"request_id": "r0", "score": 0.0},
        base | {"request_id": "r3", "score": 0.75},
        base | {"request_id": "elsewhere", "score": 1.0},
        base | {"request_id": "r4", "score": 1.0},
    ]
    write_log(workdir / "v.parquet", verdicts)
    done = call(capsys, "label", log, "--out", "l.parquet", "--verdicts", "v.parquet")
    assert done.code == 0
    found = labels("l.parquet")
    assert found["r0"][:2] == (0.0, "judge+escalation")
    assert found["r3"] == (0.75, "judge", 0.7)
    assert "r4" not in found  # a failed call has no answer to judge
    assert "verdicts: 2 of 4 are of answers in this table" in done.out


def test_weights_and_window_come_from_the_configuration(workdir, capsys):
    log = traffic(workdir)
    near = config(workdir, "[label]\nminutes = 0.5\n[label.weights]\nfeedback = 0.25\n")
    assert call(capsys, "label", log, "--out", "l.parquet", "--config", near).code == 0
    assert labels("l.parquet") == {"r2": (1.0, "feedback", 0.25)}


def test_a_command_that_hangs_leaves_its_row_unlabelled(workdir, capsys):
    script = "import sys, time; time.sleep(30 * (sys.stdin.read() == '43'))"
    settings = config(
        workdir,
        f"[[label.grader]]\nkind = 'command'\ntimeout_s = 1.5\nname = 'unit tests'\n"
        f"command = {json.dumps([sys.executable, '-c', script])}\nwhere = {{ source = 'maths' }}\n"
        "[label.weights]\nescalation = 0\n",
    )
    done = call(capsys, "label", traffic(workdir), "--out", "l.parquet", "--config", settings)
    assert done.code == 0
    assert {name: found[1] for name, found in labels("l.parquet").items()} == {
        "r1": "grader",
        "r2": "feedback",
    }
    assert "grader unit tests: 1 answers not graded: took longer than 1.5 s" in done.out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[label.grader]]\nkind = 'exakt'", ("[[label.grader]] 1", "'exakt'", "json_schema")),
        ("[[label.grader]]\nname = 'x'", ("needs a kind",)),
        ("[[label.grader]]\nkind = 'regex'\npattern = '('", ("'('", "invalid")),
        ("[[label.grader]]\nkind = 'regex'", ("needs a pattern",)),
        ("[[label.grader]]\nkind = 'exact'\npattern = 'x'", ("'pattern'", "exact")),
        ("[[label.grader]]\nkind = 'numeric'\ntolerance = 'x'", ("tolerance", "'x'")),
        ("[[label.grader]]\nkind = 'command'", ("needs a command",)),
        ("[[label.grader]]\nkind = 'command'\ncommand = 'pytest'\ntimeout_s = 0", ("timeout_s",)),
        ("[[label.grader]]\nkind = 'command'\ncommand = 'x'\nscore = 'y'", ("printed", "'y'")),
        ("[[label.grader]]\nkind = 'json_schema'\nschema = 'no.json'", ("no.json",)),
        ("[[label.grader]]\nkind = 'json_schema'\nschema = { type = 'x' }", ("no JSON schema",)),
        ("[[label.grader]]\nkind = 'exact'\nwhere = { sauce = 'x' }", ("'sauce'", "source, tag")),
        ("[[label.grader]]\nkind = 'exact'\nwhere = { source = 3 }", ("where.source", "3")),
        ("[label.grader]\nkind = 'exact'", ("two brackets",)),
        ("[label.weights]\nfeedback = 1.5", ("feedback", "[0, 1]")),
        ("[label.weights]\nfeedback = 'x'", ("feedback", "'x'")),
        ("[label]\nminutes = -1", ("minutes",)),
        ("[label]\nminuets = 1", ("minuets", "'minutes'")),
        ("[[label.grader]]\nkind = 'numeric'\nwhere = { source = 'chat' }", ("reference", "2 ans")),
        ("[label", ("not TOML",)),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(workdir, capsys, text, words):
    settings = config(workdir, text)
    log = traffic(workdir)
    call(capsys, "label", log, "--out", "l.parquet", "--config", settings).refused(*words)
    assert not (workdir / "l.parquet").exists()


def test_tables_that_cannot_be_labelled_are_refused(workdir, capsys):
    log = traffic(workdir)
    call(capsys, "label", "no.parquet", "--out", "l.parquet").refused("no.parquet", "no such file")
    call(capsys, "label", log, "--out", log).refused("which this job reads")
    (workdir / "empty").mkdir()
    call(capsys, "label", "empty", "--out", "l.parquet").refused("no Parquet file")
    (workdir / "text.parquet").write_text("no parquet")
    call(capsys, "label", "text.parquet", "--out", "l.parquet").refused("not a Parquet file")
    write_log(workdir / "bare.parquet", [{"request_id": "1", "prompt": "x"}])
    call(capsys, "label", "bare.parquet", "--out", "l.parquet").refused(
        "no column messages", "tier"
    )
    none = pa.table(
        {name: pa.array([], pa.string()) for name in ("request_id", "messages", "model")}
    )
    pq.write_table(none, "none.parquet")
    call(capsys, "label", "none.parquet", "--out", "l.parquet").refused("an empty log")
    assert call(capsys, "label", log, "--out", "l.parquet").code == 0
    call(capsys, "label", "l.parquet", "--out", "m.parquet").refused("labelled already")
    write_log(workdir / "v.parquet", [{"request_id": "1", "messages": "x", "model": "m"}])
    done = call(capsys, "label", log, "--out", "m.parquet", "--verdicts", "v.parquet")
    done.refused("v.parquet", "no row carries")


def test_a_bad_row_is_named_by_its_place_in_the_file(workdir, capsys):
    rows = make_rows(2500, session=1)
    rows[4321]["score"] = 7.0
    log = write_log(workdir / "log.parquet", rows)
    call(capsys, "label", log, "--out", "l.parquet").refused("row 4322", "score", "7.0")


def test_a_log_without_any_signal_is_labelled_nowhere(workdir, capsys):
    rows = [row | {"score": None} for row in make_rows(5, session=1)]
    log = write_log(workdir / "log.parquet", rows)
    done = call(capsys, "label", log, "--out", "l.parquet")
    assert done.code == 0
    assert "0 of 10 rows labelled" in done.out
    assert labels("l.parquet") == {}


def test_a_folder_of_files_with_columns_of_their_own(workdir, capsys):
    (workdir / "logs" / "day=1").mkdir(parents=True)
    rows = pd.read_parquet(traffic(workdir))
    first, second = rows[:1].assign(mine=7), rows[1:].drop(columns=["score", "score_source"])
    first.to_parquet("logs/day=1/a.parquet", index=False)
    second.to_parquet("logs/b.parquet", index=False)
    call(capsys, "label", "logs", "--out", "logs/l.parquet").refused("which this job reads")
    assert call(capsys, "label", "logs", "--out", "l.parquet").code == 0
    out = pd.read_parquet("l.parquet").set_index("request_id")
    assert out.loc["r0", "score_source"] == "escalation"
    assert out.loc["r0", "mine"] == 7
    assert np.isnan(out.loc["r1", "mine"])


def test_labels_train_with_their_weights(workdir, capsys):
    """What `label` writes is what `train` reads, weights and all, with the same configuration."""
    from training.config import read_config, read_tiers
    from training.log.requests import gather
    from training.log.traffic import read_traffic

    settings = config(workdir, "[label]\nsufficed_at = 0.6\n" + NUMERIC)
    rows = [row | {"source": "app"} for row in make_rows(30, session=1)]
    for row in rows:
        row["score_source"] = "feedback"
    log = write_log(workdir / "log.parquet", rows)
    done = call(capsys, "label", log, "--out", "l.parquet", "--config", settings)
    assert done.code == 0, done.err
    requests = gather(read_traffic("l.parquet").frame, read_tiers(write_tiers(workdir)))
    assert read_config(settings, {}).label.sufficed_at == 0.6
    np.testing.assert_allclose(requests.weight, 0.8)


SAMPLES = {
    "standard_logging_payload.jsonl": ("litellm", "standard_logging_payload.jsonl"),
    "proxy_standard_logging_payload.jsonl": ("litellm", "proxy_standard_logging_payload.jsonl"),
    "proxy_spend_logs.jsonl": ("litellm", "proxy_spend_logs.jsonl"),
    "batch (input + output + error joined)": ("openai", "batch_*.jsonl"),
    "stored_completions.jsonl": ("openai", "stored_*.jsonl"),
    "request_response_pairs.jsonl": ("openai", "request_response_pairs.jsonl"),
    "traces.jsonl": ("mlflow", "traces.jsonl"),
    "legacy": ("otel", "*_legacy.jsonl"),
    "latest": ("otel", "*_latest.jsonl"),
    "observations.jsonl": ("langfuse", "*[!t]s.jsonl"),
    "": ("warehouse", "llm_requests.parquet"),
}
ESCALATIONS = ("same_prompt_again_on_larger_model", "complaint_then_larger_model")
WAREHOUSE = """
[columns]
at = "ts"
score = "feedback"

[constants]
score_source = "feedback"

[values.score]
"-1" = 0.0
"""


@pytest.mark.parametrize("sample", SAMPLES)
def test_signals_of_real_logs_and_nothing_else(sample, shared_data, workdir, capsys):
    folder, pattern = SAMPLES[sample]
    logs = shared_data.parent / "logs" / folder
    expected = json.loads((logs / "expected.json").read_text())["sessions_with_a_signal"]
    expected = expected[sample] if sample else expected
    (workdir / "map.toml").write_text(WAREHOUSE)
    mapping = () if sample else ("--map", "map.toml")
    files = sorted(logs.glob(pattern))
    out = ("--out", "t.parquet", "--keep-ids", "--max-bad", 0.2)
    assert call(capsys, "ingest", *files, *out, *mapping).code == 0
    assert call(capsys, "label", "t.parquet", "--out", "l.parquet").code == 0
    found = pd.read_parquet("l.parquet")
    found = found[found["score_source"].notna()]
    escalated = found[found["score_source"].str.contains("escalation")]
    assert set(escalated["session_id"]) == {
        s for name in ESCALATIONS for s in expected.get(name, [])
    }
    assert escalated["model"].str.contains("gpt-4o-mini").all()
    assert (escalated["score"] == 0.0).all()
    other = found[~found["score_source"].isin(["escalation", "feedback+escalation", "feedback"])]
    assert other["session_id"].isna().all()  # where the logger lost the session: retries
    assert set(other["score_source"]) <= {"retry", "feedback+retry"}
