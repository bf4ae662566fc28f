"""The traffic table takes any Parquet file in its layout and refuses what it cannot mean."""

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.traffic_makers import make_rows
from training.errors import BadInput
from training.log.columns import numbers, tags, times
from training.log.keys import resolve, row_hashes
from training.log.layout import SCHEMA, to_arrow
from training.log.messages import canonical_messages
from training.log.normalise import normalise
from training.log.traffic import read_traffic, require_scores


def _write(path: Path, **columns: Any) -> Path:
    rows = len(next(iter(columns.values())))
    base = {
        "request_id": [f"r{row}" for row in range(rows)],
        "messages": [f"prompt {row}" for row in range(rows)],
        "model": ["m"] * rows,
    }
    pq.write_table(pa.table({**base, **columns}), path)
    return path


def _contents(text: str) -> list[Any]:
    return [message["content"] for message in json.loads(text)]


def test_minimal_columns_give_every_column(tmp_path: Path) -> None:
    frame = read_traffic(_write(tmp_path / "t.parquet", score=[1.0, None])).frame
    assert list(frame.columns) == SCHEMA.names
    assert frame["score"].tolist()[0] == 1.0
    assert np.isnan(frame["score"][1])
    assert frame["status"].tolist() == ["ok", "ok"]
    assert frame["tags"].tolist() == [[], []]
    assert str(frame["at"].dtype) == "datetime64[us, UTC]"
    assert frame["tier"].isna().all()
    assert frame["request_id"].dtype == object


def test_unlabelled_table_is_read_but_not_trained_on(tmp_path: Path) -> None:
    table = read_traffic(_write(tmp_path / "t.parquet", score=[np.nan, np.nan]))
    with pytest.raises(BadInput, match="column score: no row is labelled"):
        require_scores(table)
    require_scores(read_traffic(_write(tmp_path / "u.parquet", score=[np.nan, 0.25])))


@pytest.mark.parametrize(
    ("column", "values", "told"),
    [
        ("score", [0.5, 1.5], r"column score, row 2 \(request_id 'r1'\): 1\.5 is outside \[0, 1\]"),
        ("score", [-0.1, 0.5], "column score, row 1"),
        ("score", [0.5, np.inf], "not finite"),
        ("score", ["0.5", "good"], "'good' is not a number"),
        ("score", ["0.5", "👎"], r"'👎' is not a number.*say what values mean in \[values.score\]"),
        ("cost_usd", ["0.1", "0,000082"], r"'0,000082' is not a number \(decimals have a point\)"),
        ("propensity", [0.0, 1.0], r"outside \(0, 1\]"),
        ("propensity", [1.0, 1.1], r"outside \(0, 1\]"),
        ("input_tokens", [1, -1], "negative"),
        ("output_tokens", [1.0, 1.5], "whole number"),
        ("cost_usd", [-1e-9, 0.0], "negative"),
        ("at", ["2026-01-01", "yesterday"], "column at, row 2.*ISO 8601"),
        ("status", ["ok", "odd"], r"\[values.status\]"),
        ("messages", [5, 6], "column messages, row 1.*not a list of messages"),
        ("messages", ["hello", '{"role": "user", "content": "x"}'], "row 2.*an object"),
        ("messages", ["hello", None], "row 2.*null"),
        ("messages", ["hello", "[]"], "row 2.*empty list"),
        ("messages", ["hello", "[1, 2]"], "row 2.*no object with a role"),
        ("messages", ["hello", '[{"role": "user", "content": "cu'], "row 2.*cut off or damaged"),
        ("messages", ["hello", '[{"role": "user", "content": 5}]'], "row 2.*content"),
        ("request_id", ["a", None], "column request_id, row 2: .*missing"),
        ("model", ["a", None], "column model, row 2.*missing, and so is tier"),
    ],
)
def test_bad_values_are_refused_by_place(
    tmp_path: Path, column: str, values: list[Any], told: str
) -> None:
    with pytest.raises(BadInput, match=told):
        read_traffic(_write(tmp_path / "t.parquet", **{column: values}))


def test_files_that_are_no_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        read_traffic(tmp_path / "absent.parquet")
    text = tmp_path / "t.csv"
    text.write_text("request_id\n")
    with pytest.raises(BadInput, match="suffice ingest"):
        read_traffic(text)
    with pytest.raises(BadInput, match="an empty log"):
        read_traffic(_write(tmp_path / "empty.parquet", score=pa.array([], pa.float64())))
    pq.write_table(pa.table({"id": [1], "messages": ["x"]}), tmp_path / "t.parquet")
    with pytest.raises(BadInput, match=r"request_id and no column tier \(or model\).*seen: id"):
        read_traffic(tmp_path / "t.parquet")


def test_duplicates(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "t.parquet",
        request_id=["a", "a", "a", "b", "b", "c"],
        model=["m", "m", "n", "m", "m", "m"],
        messages=["same"] * 6,
        score=[1.0, 1.0, 0.5, 0.0, 1.0, np.nan],
    )
    table = read_traffic(path)
    seen = list(zip(table.frame["request_id"], table.frame["model"], strict=True))
    assert seen == [("a", "m"), ("a", "n"), ("b", "m"), ("c", "m")]
    assert table.frame["score"].tolist()[:3] == [1.0, 0.5, 1.0]  # the last of b's wins
    assert table.frame.index.tolist() == [0, 1, 2, 3]
    assert "1 identical" in table.notes[0]
    assert "1 rows dropped" in table.notes[1]


def test_typed_columns_of_warehouses(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "t.parquet",
        request_id=[7, 8],
        messages=pa.array(
            [[{"role": "user", "content": "x", "name": None}], [{"role": "user", "content": "y"}]]
        ),
        cost_usd=pa.array([Decimal("0.00004965"), None], pa.decimal128(14, 8)),
        at=pa.array([datetime(2026, 3, 1, 12), None], pa.timestamp("ns")),
        tags=pa.array([["a", "b"], None]),
        source=pa.array(["s", "s"]).dictionary_encode(),
        input_tokens=pa.array([3, None], pa.int32()),
        status=["success", "failure"],
    )
    frame = read_traffic(path).frame
    assert frame["request_id"].tolist() == ["7", "8"]
    assert json.loads(frame["messages"][0]) == [{"role": "user", "content": "x"}]
    assert frame["cost_usd"][0] == pytest.approx(4.965e-5)
    assert frame["at"][0] == pd.Timestamp("2026-03-01T12:00Z")
    assert frame["tags"].tolist() == [["a", "b"], []]
    assert frame["source"].tolist() == ["s", "s"]
    assert frame["input_tokens"][0] == 3
    assert frame["status"].tolist() == ["ok", "error"]


def test_a_row_with_an_error_is_a_failed_call(tmp_path: Path) -> None:
    frame = read_traffic(_write(tmp_path / "t.parquet", error=["RateLimitError", ""])).frame
    assert frame["status"].tolist() == ["error", "ok"]
    assert frame["error"][1] is None


def test_a_flag_that_says_no_is_no_error(tmp_path: Path) -> None:
    told = ["False", "0", "{}", "null", "None", "\\N", "False alarm", "429"]
    frame = read_traffic(_write(tmp_path / "t.parquet", error=told)).frame
    assert frame["error"].tolist() == [None] * 6 + ["False alarm", "429"]
    assert frame["status"].tolist() == ["ok"] * 6 + ["error"] * 2


def test_a_null_that_was_made_text_is_nobody(tmp_path: Path) -> None:
    """Else all who have no session are in one, and splits keep sessions whole."""
    told = ["null", "NULL", "None", "nan", "\\N", "Nan"]
    path = _write(tmp_path / "t.parquet", session_id=told, user_id=told, response=told)
    frame = read_traffic(path).frame
    assert frame["session_id"].tolist() == frame["user_id"].tolist() == [None] * 5 + ["Nan"]
    assert frame["response"].tolist() == told  # an answer may be just that


@pytest.mark.parametrize(
    "spelled",
    [
        "2026-11-02 10:45:37,893",
        "2026-11-02 10:45:37.893 UTC",
        "2026-11-02 10:45:37.893+00",
        "2026-11-02T10:45:37.893Z",
        "2026-11-02 10:45:37.893",
        "2026-11-02T12:45:37.893+02:00",
        "1793616337.893",
        1793616337.893,
        1793616337893,
        datetime(2026, 11, 2, 10, 45, 37, 893000),
        datetime(2026, 11, 2, 11, 45, 37, 893000, timezone(timedelta(hours=1))),
    ],
)
def test_times_with_and_without_zone(spelled: Any) -> None:
    read, bad = times([spelled, None, ""])
    assert read[0] == pd.Timestamp("2026-11-02T10:45:37.893Z")
    assert read[1:].isna().all()
    assert not bad.any()


def test_times_that_are_none() -> None:
    odd = ["\ud83d", "02/03/2026", float("inf"), {"a": 1}, True, 10**400, "2026-13-01"]
    read, bad = times(odd)
    assert read.isna().all()
    assert bad.all()


@pytest.mark.parametrize("date", [20261102, 20261102104537, "20261102104537", 1.5, -1, 2**63])
def test_a_number_of_no_time_that_a_log_can_have_is_no_time(date: Any) -> None:
    """As epochs these would be of 1970 or 2612."""
    read, bad = times([date, 1793616337, 0])
    assert read.isna().tolist() == [True, False, True]
    assert bad.tolist() == [True, False, False]  # 0: nobody knows


def test_times_of_mixed_types_keep_their_places() -> None:
    read, bad = times(["x", date(2026, 1, 2), 1793616337, None, "2026-01-03T00:00:00+01:00"])
    assert bad.tolist() == [True, False, False, False, False]
    assert read[1] == pd.Timestamp("2026-01-02T00:00Z")
    assert read[4] == pd.Timestamp("2026-01-02T23:00Z")


def test_numbers() -> None:
    spelled = ["1", " 2.5 ", "True", False, Decimal("0.5"), None, "", "nan", float("nan"), pd.NA]
    read, bad = numbers(spelled)
    np.testing.assert_array_equal(read, [1, 2.5, 1, 0, 0.5, *[np.nan] * 5])
    assert not bad.any()
    _, bad = numbers(["1,5", "1_0", "0x1", [1], 10**400, "ten"])
    assert bad.all()


def test_tags() -> None:
    read, bad = tags(["a|b", '["c", "d"]', None, ["e"], "", np.array(["f"], object), 5])
    assert tags(["['a', 'b']", "[draft"])[0].tolist() == [["a", "b"], ["[draft"]]
    assert read.tolist()[:6] == [["a", "b"], ["c", "d"], [], ["e"], [], ["f"]]
    assert bad.tolist() == [False] * 6 + [True]


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "x" * 300_000,
        "nul \0 byte",
        "👩‍👩‍👧 emoji",
        "שלום עולם",
        "[1, 2] sorted?",
        "{not json",
        "\ufeff",
    ],
)
def test_any_prompt_comes_through(prompt: str) -> None:
    assert _contents(canonical_messages(prompt)) == [prompt]
    assert _contents(canonical_messages([{"role": "user", "content": prompt}])) == [prompt]


CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": 'it\'s "so"\\?'}]


@pytest.mark.parametrize(
    "text", [str(CHAT), f" {CHAT}\n", json.dumps(json.dumps(CHAT)), json.dumps(CHAT, indent=1)]
)
def test_messages_as_other_programs_spell_them(text: str) -> None:
    """pandas' to_csv writes lists as Python does: they were read as prompts."""
    assert json.loads(canonical_messages(text)) == CHAT


@pytest.mark.parametrize(
    "text",
    [
        str(CHAT)[:-9],
        str(np.array(CHAT, object)),
        json.dumps(json.dumps(CHAT))[:-9],
        '[{"role": "user", "parts": [{"text": "hello"}]}]',
    ],
)
def test_messages_that_cannot_be_read_are_no_prompts(text: str) -> None:
    with pytest.raises(ValueError, match=r"cut off|parts"):
        canonical_messages(text)


def test_a_lone_surrogate_in_a_time_is_no_time() -> None:
    read, bad = times(["2026-01-02", "\ud83d"])  # of texts alone pandas makes its own
    assert read[0] == pd.Timestamp("2026-01-02", tz="UTC") and bad.tolist() == [False, True]


def test_lone_surrogates_are_replaced_and_pairs_joined() -> None:
    lone = canonical_messages('[{"role": "user", "content": "a\\ud83d b \\ud83d\\ude00"}]')
    assert _contents(lone) == ["a\ufffd b 😀"]
    assert _contents(canonical_messages("a\udc00")) == ["a\ufffd"]


def test_images_become_facts() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5000}}
    link = {"type": "image_url", "image_url": {"url": "https://a.example/" + "b" * 500}}
    sound = {"type": "input_audio", "input_audio": {"data": "B" * 9000, "format": "wav"}}
    text = {"type": "text", "text": "data:" + "c" * 1000}
    kept = canonical_messages([{"role": "user", "content": [part, link, sound, text]}])
    assert _contents(kept)[0] == [
        {
            "type": "image_url",
            "image_url": {"url": "data:image/png;base64", "url_characters": 5022},
        },
        link,
        {"type": "input_audio", "input_audio": {"data_characters": 9000, "format": "wav"}},
        text,
    ]


words = st.text(max_size=20)
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"])},
    optional={"content": st.none() | words, "tool_calls": st.just([{"id": "1"}]), "name": words},
)


@given(st.lists(message, min_size=1, max_size=4))
def test_canonical_messages_are_a_fixed_point(chat: list[dict[str, Any]]) -> None:
    once = canonical_messages(chat)
    assert canonical_messages(once) == once
    assert [m["role"] for m in json.loads(once)] == [m["role"] for m in chat]
    assert _contents(once) == [m.get("content") for m in chat]


@given(
    st.one_of(st.none(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.text()))
)
def test_messages_are_text_or_a_reason(value: Any) -> None:
    try:
        assert isinstance(canonical_messages(value), str)
    except ValueError as reason:
        assert str(reason).startswith(("is", "holds"))


anything = st.none() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=3)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(SCHEMA.names, anything)))
def test_a_row_is_taken_or_told_of(values: dict[str, Any]) -> None:
    """No value whatever raises: either the row converts to the schema, or it has a reason."""
    frame, problems = normalise({name: [value] for name, value in values.items()}, 1)
    assert len(problems) <= 1
    if not problems:
        row = to_arrow(frame).to_pylist()[0]
        assert row["request_id"]
        assert row["score"] is None or 0 <= row["score"] <= 1


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2)), max_size=40), st.integers(1, 5))
def test_duplicates_are_resolved_as_a_dictionary_would(
    rows: list[tuple[int, int]], width: int
) -> None:
    """Of the contents, 0 has no score."""
    keys, contents = [(str(key), "t") for key, _ in rows], [(content,) for _, content in rows]
    hashes = row_hashes(keys, contents, np.array([content > 0 for _, content in rows], bool))
    chunks = [hashes[i : i + width] for i in range(0, len(rows), width)]
    resolved = resolve(chunks)
    last = dict(rows)
    expected = [rows.index((key, content)) for key, content in last.items()]
    assert np.flatnonzero(resolved.keep).tolist() == sorted(expected)
    identical = sum(last[key] == content for key, content in rows) - len(last)
    assert resolved.identical == identical
    assert resolved.conflicting == len(rows) - len(last) - identical
    assert resolved.unscored == sum(content > 0 and not last[key] for key, content in rows)


def test_keys_do_not_run_into_each_other() -> None:
    one, two = row_hashes([("ab", "c"), ("a", "bc")], [(1,), (1,)], np.ones(2, bool))
    assert (one["high"], one["low"]) != (two["high"], two["low"])


def test_many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.log.keys.PART", 100)
    rows = [(f"{row % 3000}", "t") for row in range(5000)]
    resolved = resolve([row_hashes(rows, [("x",)] * 5000, np.ones(5000, bool))])
    assert resolved.keep.tolist() == [True] * 3000 + [False] * 2000
    assert resolved.identical == 2000


def test_utc_is_kept_through_the_store(tmp_path: Path) -> None:
    frame, _ = normalise(
        {
            "request_id": ["a"],
            "messages": ["x"],
            "tier": ["t"],
            "at": ["2026-01-01T00:00:00+01:00"],
        },
        1,
    )
    pq.write_table(pa.Table.from_batches([to_arrow(frame)]), tmp_path / "t.parquet")
    again = read_traffic(tmp_path / "t.parquet").frame
    assert again["at"][0].to_pydatetime() == datetime(2025, 12, 31, 23, tzinfo=UTC)
    pd.testing.assert_frame_equal(again, frame)


def test_a_folder_whose_columns_changed_half_way(tmp_path):
    """What a file lacks is unknown in its rows; a column that became another type is refused."""
    old, new = (pd.DataFrame(make_rows(2, seed)) for seed in (0, 1))
    new["request_id"] = "new-" + new["request_id"]
    folder = tmp_path / "log"
    folder.mkdir()
    old.drop(columns="score").to_parquet(folder / "1.parquet", index=False)
    new.astype({"output_tokens": float}).to_parquet(folder / "2.parquet", index=False)
    frame = read_traffic(folder).frame
    assert frame["score"].isna().tolist() == [True] * 4 + [False] * 4
    assert frame["output_tokens"].tolist() == [*old["output_tokens"], *new["output_tokens"]]
    new["score"] = ["good", "bad", "good", "good"]
    new.to_parquet(folder / "3.parquet", index=False)
    with pytest.raises(BadInput, match=r"3\.parquet: column score is .*string.*double.*ingest"):
        read_traffic(folder)
