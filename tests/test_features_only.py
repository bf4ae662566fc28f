"""Tables without text: they train the same router, take part in everything, and hold no word."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.artifact import load_artifact
from router.embedder import StaticEmbedder
from router.prompt import Prompt
from router.vectorizer import Reading
from tests import test_retrain, test_train
from tests.test_splits import long_text
from tests.traffic_makers import TIERS, call, make_rows, one_sided, write_log, write_tiers
from training.errors import BadInput
from training.forget import forget
from training.learn import heads
from training.learn.embedders import resolve_embedder
from training.learn.splits import near_duplicates, parse_shares, split
from training.log.imprint import MadeBy, embedder_fingerprint, imprints
from training.log.imprinter import Imprinter
from training.log.ingest import ingest
from training.log.layout import to_arrow
from training.log.normalise import normalise
from training.log.requests import gather
from training.log.traffic import read_traffic

untracked = test_train.untracked


@pytest.fixture(scope="module")
def static() -> StaticEmbedder:
    return resolve_embedder("static")


def kept_of(embedder, prompts, key=b"a key"):
    """Prompts as a features-only table gives them back."""
    columns = {
        "request_id": [str(n) for n in range(len(prompts))],
        "messages": prompts,
        "model": ["m"] * len(prompts),
    }
    frame, problems = normalise(columns, len(prompts))
    assert not problems
    batch = Imprinter(embedder, key, "print").without_text(to_arrow(frame))
    return imprints(pa.Table.from_batches([batch]), Path("t"))


CHATS = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "user", "assistant", "tool"]),
            "content": st.text(max_size=40).map(lambda text: text * 7),
        }
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60)
@given(st.lists(CHATS, min_size=1, max_size=5))
def test_what_is_kept_is_what_training_reads(static, chats):
    chats = [chat for chat in chats if any(message["content"] for message in chat)] or [
        [{"role": "user", "content": "x"}]
    ]
    for chat, kept in zip(chats, kept_of(static, chats), strict=True):
        prompt = Prompt.of(json.loads(normalise_one(chat)))
        read = Reading.of(static, prompt)
        for name in ("surface", "embedding", "buckets", "frequency"):
            ours, theirs = getattr(kept.reading, name), getattr(read, name)
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
        assert kept.reading.tokens == read.tokens
        assert (kept.chars, kept.turns) == (prompt.chars, prompt.turns)


def normalise_one(chat):
    frame, _ = normalise({"request_id": ["r"], "messages": [chat], "model": ["m"]}, 1)
    return frame["messages"][0]


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.binary(min_size=1, max_size=80))
def test_twins_are_the_same_with_and_without_text(static, seed, key):
    rng = np.random.default_rng(seed)
    texts = [long_text(rng, 40) for _ in range(8)]
    for text in list(texts):
        letters = list(text)
        for place in rng.integers(0, len(letters), int(rng.integers(0, 9))):
            letters[place] = "x"
        texts.append("  ".join("".join(letters).upper().split()))
    chats = [[{"role": "user", "content": text}] for text in texts]
    with_text = near_duplicates([Prompt.of(text) for text in texts])
    assert (with_text == near_duplicates(kept_of(static, chats, key))).all()


def test_hash_and_shingles_change_with_the_key(static):
    chat = [[{"role": "user", "content": "What is the capital of France?"}]]
    one, other = (kept_of(static, chat, key)[0] for key in (b"one", b"other"))
    assert one.same != other.same
    assert not np.intersect1d(one.shingles, other.shingles).size
    np.testing.assert_array_equal(one.embedding, other.embedding)


def both(folder: Path, rows, static) -> tuple[Path, Path]:
    """The same log as a table with text and as one without."""
    log = write_log(folder / "raw.parquet", rows)
    ingest([log], folder / "text.parquet")
    ingest([log], folder / "features.parquet", features_by=static)
    return folder / "text.parquet", folder / "features.parquet"


@pytest.mark.parametrize("sided", ["paired", "one-sided"])
def test_the_router_is_the_same(workdir, untracked, static, sided):
    rows = make_rows(300, seed=3, session=2)
    rows += [row | {"request_id": f"again-{row['request_id']}"} for row in rows[:60]]
    for row in rows[::3]:
        row["response"], row["output_tokens"] = "x" * 50, None
    rows = one_sided(rows, 0.4) if sided == "one-sided" else rows
    tables = both(workdir, rows, static)
    requests = [gather(read_traffic(table).frame, TIERS) for table in tables]
    splits = [split(one, parse_shares("60/30/10"), 0) for one in requests]
    for name in ("fit", "choose", "test", "group"):
        found = [getattr(one, name) for one in splits]
        np.testing.assert_array_equal(found[0], found[1])
    assert splits[0].leakage == splits[1].leakage
    np.testing.assert_array_equal(requests[0].output_tokens, requests[1].output_tokens)
    done = [test_train.run(workdir, table, name) for table, name in zip(tables, "tf", strict=True)]
    for name in ("heads.npz", "golden.jsonl"):
        assert (workdir / "t" / name).read_bytes() == (workdir / "f" / name).read_bytes()
    assert done[0].policy == done[1].policy
    told = [one.report.as_json() if one.report else None for one in done]
    assert json.dumps(told[0]) == json.dumps(told[1])


@pytest.fixture(scope="module")
def fresh(job, static, tmp_path_factory) -> tuple[Path, Path]:
    return both(tmp_path_factory.mktemp("fresh"), pd.read_parquet(job.fresh), static)


def test_figures_are_the_same(capsys, workdir, job, fresh):
    for number, table in enumerate(fresh):
        done = call(
            capsys, "evaluate", job.artifact, "--traffic", table, "--json", f"{number}.json"
        )
        assert done.code == 0, done.err
        done = call(capsys, "score", job.artifact, "--traffic", table, "--out", f"{number}.parquet")
        assert done.code == 0, done.err
    assert Path("0.json").read_bytes() == Path("1.json").read_bytes()
    pd.testing.assert_frame_equal(pd.read_parquet("0.parquet"), pd.read_parquet("1.parquet"))


def test_the_other_commands_take_it(capsys, workdir, job, fresh):
    table = fresh[1]
    done = call(capsys, "report", job.artifact, "--traffic", table, "--out", "report.html")
    assert done.code == 0, done.err
    assert "not kept: the table holds features only" in Path("report.html").read_text("utf-8")
    done = call(capsys, "inspect", table)
    assert done.code == 0
    assert "features only, no text" in done.out
    assert call(capsys, "init", table, "--out", "tiers.toml").code == 0
    done = call(capsys, "compare", job.artifact, job.artifact, "--traffic", table)
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    "command",
    [
        ["label", "{}", "--out", "o.parquet"],
        ["replay", "{}", "--tiers", "tiers.toml", "--out", "o.parquet", "--dry-run"],
        ["judge", "{}", "--model", "m", "--out", "o.parquet", "--dry-run"],
        ["ingest", "{}", "--out", "o.parquet"],
        ["bench", "--traffic", "{}", "--tiers", "tiers.toml"],
    ],
)
def test_what_needs_text_says_so(capsys, workdir, fresh, command):
    write_tiers(workdir)
    done = call(capsys, *(part.format(fresh[1]) for part in command))
    done.refused("features", "features-only")
    assert not Path("o.parquet").exists()


SECRETS = [f"zq{word}x" for word in ("prompt", "answer", "reference", "error", "tool", "bad", "id")]


def secret_lines() -> list[str]:
    prompt, answer, reference, error, tool, bad, _ = SECRETS
    row = {
        "request_id": "r1",
        "model": "m",
        "messages": [
            {"role": "user", "content": f"{prompt} one"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"type": "function", "function": {"name": tool, "arguments": tool}}],
            },
            {"role": "tool", "content": tool},
        ],
        "response": answer,
        "reference": reference,
        "score": 1,
    }
    return [
        json.dumps(row),
        json.dumps(row | {"request_id": "r2", "error": f"failed on {error}"}),
        json.dumps(row | {"request_id": "r3", "score": bad}),
        json.dumps(row | {"request_id": "r4", "messages": {"content": bad}}),
        json.dumps(row | {"request_id": "r5", "at": bad}),
        json.dumps(row)[:-20],
        f'{{"request_id": "{bad}',
        f'["{bad}"]',
    ]


def values_in(folder: Path) -> str:
    """Every byte that is there, of Parquet files every value and name as well."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            found.append(path.read_bytes().decode("latin-1"))
        if path.suffix == ".parquet":
            table = pq.ParquetFile(path).read()
            found += [str(table.schema), str(table.schema.metadata), str(table.to_pylist())]
    return "\n".join(found)


@pytest.mark.parametrize("out", ["features.parquet", "features/"])
@pytest.mark.parametrize("form", ["table", "litellm"])
def test_no_word_is_written(capsys, workdir, static, out, form):
    lines = secret_lines()
    if form == "litellm":
        lines = [line.replace('"request_id"', '"id"') for line in lines]
        start = '{"call_type": "acompletion", "startTime": 1795479900.5, "response_cost": 0.1, "id"'
        lines = [line.replace('{"id"', start, 1).replace('"at"', '"startTime"') for line in lines]
    (workdir / "log").mkdir()
    (workdir / "log" / "log.jsonl").write_text("\n".join(lines), "utf-8")
    (workdir / "made").mkdir()
    done = call(
        capsys, "ingest", "log", "--out", f"made/{out}", "--features-only", "--max-bad", "1"
    )
    assert done.code == 0, done.err
    assert "2 rows (8 read" in done.out or form == "litellm"
    written = values_in(workdir / "made")
    told = (workdir / "made" / f"{out.strip('/')}.quarantine.jsonl").read_text("utf-8")
    bad = [json.loads(line) for line in told.splitlines()]
    assert bad
    assert all(line["raw"] == "" and line["reason"] for line in bad)
    for secret in SECRETS:
        assert secret not in written
        assert secret not in done.out + done.err


def test_the_reason_of_a_bad_row_is_told_without_its_value(workdir, static):
    (workdir / "log.jsonl").write_text("\n".join(secret_lines()), "utf-8")
    report = ingest(["log.jsonl"], "f.parquet", max_bad=1, features_by=static)
    reasons = [json.loads(line)["reason"] for line in report.quarantine.read_text().splitlines()]
    assert (
        "column score: a value is not a number (decimals have a point): say what values mean in "
        "[values.score] of the map file (`suffice ingest --map`)"
    ) in reasons
    assert any(reason.startswith("column at: a value is no time") for reason in reasons)
    assert any("not valid JSON" in reason for reason in reasons)


@pytest.mark.parametrize("out", ["f.parquet", "f/"])
def test_appends_are_idempotent_and_the_last_content_wins(workdir, static, out):
    rows = make_rows(40)
    first = write_log(workdir / "one.parquet", rows)
    ingest([first], out, features_by=static)
    files = sorted(Path().rglob("*.parquet"))
    before = [path.read_bytes() for path in files]
    again = ingest([first], out, features_by=static)
    assert again.total["duplicate"] == 80
    assert [path.read_bytes() for path in files] == before
    changed = [row | {"response": "another answer"} for row in rows[:10]] + make_rows(45)[80:]
    told = ingest([write_log(workdir / "two.parquet", changed)], out, features_by=static)
    assert told.total["ingested"] == 20
    frame = read_traffic(out).frame
    assert len(frame) == 90
    assert (frame["response_chars"] == len("another answer")).sum() == 10


def test_two_kinds_do_not_mix(capsys, workdir, static, monkeypatch):
    log = write_log(workdir / "log.parquet", make_rows(20))
    ingest([log], "text.parquet")
    ingest([log], "features.parquet", features_by=static)
    before = [Path(name).read_bytes() for name in ("text.parquet", "features.parquet")]
    done = call(capsys, "ingest", log, "--out", "text.parquet", "--features-only")
    done.refused("holds the text", "leave out --features-only")
    done = call(capsys, "ingest", log, "--out", "features.parquet")
    done.refused("features only", "add --features-only")
    assert [Path(name).read_bytes() for name in ("text.parquet", "features.parquet")] == before
    call(capsys, "ingest", log, "--out", "x.parquet", "--embedder", "static").refused("--embedder")
    monkeypatch.setenv("SUFFICE_KEY", "another")
    done = call(capsys, "ingest", log, "--out", "features.parquet", "--features-only")
    done.refused("another key", "SUFFICE_KEY")


def other_embedder(static, folder: Path) -> Path:
    """The static table with one value changed."""
    folder.mkdir()
    static.save(folder)
    table = np.load(folder / "vectors.npy")
    table[2000, 0] += 1
    np.save(folder / "vectors.npy", table)
    return folder


def test_another_embedder_is_refused(capsys, workdir, static, job, fresh):
    other = other_embedder(static, workdir / "other")
    rows = [row | {"request_id": f"new-{row['request_id']}"} for row in make_rows(300, session=1)]
    log = write_log(workdir / "log.parquet", rows)
    done = call(capsys, "ingest", log, "--out", "f.parquet", "--features-only", "--embedder", other)
    assert done.code == 0, done.err
    tiers = write_tiers(workdir)
    train = ["train", "--traffic", "f.parquet", "--tiers", tiers, "--out", "a"]
    call(capsys, *train).refused("another embedder", "--embedder")
    for command in (
        ["score", job.artifact, "--traffic", "f.parquet", "--out", "s.parquet"],
        ["evaluate", job.artifact, "--traffic", "f.parquet"],
        ["ingest", log, "--out", "f.parquet", "--features-only"],
    ):
        call(capsys, *command).refused("embedder")


def test_the_fingerprint_outlasts_an_export(static, job):
    exported = load_artifact(job.artifact).predictor.vectorizer.embedder
    assert embedder_fingerprint(exported) == embedder_fingerprint(static)


def test_kept_ids_and_a_persons_rows(workdir, static):
    rows = [row | {"user_id": f"u{n % 3}"} for n, row in enumerate(make_rows(30))]
    log = write_log(workdir / "log.parquet", rows)
    for out, keep in (("kept.parquet", True), ("hashed.parquet", False)):
        ingest([log], out, keep_ids=keep, features_by=static)
        assert set(read_traffic(out).frame["user_id"]) == {"u0", "u1", "u2"} or not keep
        assert forget(Path(out), ["u1"]).rows == 20
        assert len(read_traffic(out).frame) == 40
        assert ingest([log], out, keep_ids=keep, features_by=static).total["ingested"] == 20


def test_other_tools_may_cut_the_table(workdir, static):
    tables = both(workdir, make_rows(40), static)
    frame = pd.read_parquet(tables[1])
    frame[frame["tier"] == "small"].to_parquet("cut.parquet", index=False)
    kept = read_traffic("cut.parquet").frame
    assert len(kept) == 40
    whole = read_traffic(tables[1]).frame
    np.testing.assert_array_equal(
        kept["imprint"][3].embedding, whole[whole["tier"] == "small"]["imprint"].iloc[3].embedding
    )


def _without(name):
    return lambda frame: frame.drop(columns=name)


def _set(name, value):
    def change(frame):
        frame[name] = [value] * len(frame)
        return frame

    return change


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (_without("embedding"), "embedding"),
        (_without("response_chars"), "response_chars"),
        (_set("embedding", None), "embedding"),
        (_set("surface", [1.0]), "surface"),
        (_set("surface", [float("nan")] * 43), "surface"),
        (_set("ngram_counts", [1]), "ngram_counts"),
        (_set("features_made_by", "{"), "features_made_by"),
        (_set("features_made_by", MadeBy(0, 1, 1, "", "").as_text()), "another version"),
    ],
)
def test_damaged_features_are_refused(workdir, static, change, word):
    table = both(workdir, make_rows(10), static)[1]
    change(pd.read_parquet(table)).to_parquet("damaged.parquet", index=False)
    with pytest.raises(BadInput, match=word):
        read_traffic("damaged.parquet")


@pytest.mark.slow
def test_a_job_retrains_on_it(capsys, workdir, monkeypatch, static):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workdir}/mlflow.db")
    monkeypatch.setattr(heads, "MAX_ROUNDS", 20)
    write_log(workdir / "raw.parquet", make_rows(1000))
    ingest(["raw.parquet"], "log.parquet", features_by=static)
    write_tiers(workdir)
    test_retrain.write_job(workdir)
    done = call(capsys, "retrain", "--config", "retrain.toml", "--json")
    assert json.loads(done.out)["status"] == "promoted", done.err
    done = call(capsys, "backtest", "--config", "retrain.toml", "--every", "0.3")
    assert done.code == 0, done.err
    write_log(workdir / "new.parquet", make_rows(1200, 4))
    ingest(["new.parquet"], "recent.parquet", features_by=static)
    drift = call(
        capsys, "drift", "--reference", "serving/current", "--traffic", "recent.parquet", "--json"
    )
    assert drift.code in (0, 1), drift.err
