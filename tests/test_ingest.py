"""Logs in, the traffic table out: what is read, what is refused, and what stays as it was."""

import csv
import fcntl
import gzip
import io
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.errors import BadInput
from training.log.adapters import ADAPTERS, Bad, Mapping, Record, Skip, files, table
from training.log.adapters.files import csv_records
from training.log.ingest import IngestReport, ingest
from training.log.pseudonyms import pseudonym
from training.log.traffic import TrafficTable, read_traffic

HEADER = "request_id,prompt,model,score"


@pytest.fixture
def warehouse(shared_data: Path) -> Path:
    """The maintainers' sample of a warehouse table."""
    folder = shared_data.parent / "logs" / "warehouse"
    if not folder.is_dir():
        pytest.skip("the log samples are not beside this checkout")
    return folder


def _csv(path: Path, *lines: str, header: str = HEADER, end: str = "\n") -> Path:
    path.write_bytes("".join(line + end for line in (header, *lines)).encode())
    return path


def _prompts(table: TrafficTable) -> list[Any]:
    return [json.loads(text)[0]["content"] for text in table.frame["messages"]]


def _bad_rows(out: Path) -> list[dict[str, Any]]:
    text = out.with_name(out.name + ".quarantine.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def _adds_up(report: IngestReport) -> bool:
    parts = ("ingested", "failed", "duplicate", "skipped", "quarantined")
    counts = [*report.as_json()["files"], report.as_json()["total"]]
    return all(count["read"] == sum(count[name] for name in parts) for count in counts)


def test_csv(tmp_path: Path) -> None:
    source = _csv(
        tmp_path / "log.csv", 'a,"two\nlines, ""quoted""",small,1', "b,,large,", "c,x,m,0.5"
    )
    report = ingest([source], tmp_path / "t.parquet")
    read = read_traffic(tmp_path / "t.parquet")
    assert _prompts(read) == ['two\nlines, "quoted"', "", "x"]
    assert read.frame["score"].tolist()[::2] == [1.0, 0.5]
    assert read.frame["score"].isna().tolist() == [False, True, False]
    assert report.as_json() == {
        "files": [
            {
                "path": str(source),
                "format": "table",
                "read": 3,
                "ingested": 3,
                "failed": 0,
                "duplicate": 0,
                "skipped": 0,
                "quarantined": 0,
            }
        ],
        "total": {
            "read": 3,
            "ingested": 3,
            "failed": 0,
            "duplicate": 0,
            "skipped": 0,
            "quarantined": 0,
        },
    }
    assert "table (CSV with columns request_id, prompt, model, score)" in report.notes[0]
    assert report.quarantine is None


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_delimiters_byte_order_mark_and_crlf(tmp_path: Path, delimiter: str) -> None:
    lines = [HEADER, 'a,"x, y",m,1', "", "b,z,m,0"]
    text = "\r\n".join(lines).replace('"x, y"', '"x; y\t|"').replace(",", delimiter)
    (tmp_path / "log.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    ingest([tmp_path / "log.csv"], tmp_path / "t.parquet")
    assert _prompts(read_traffic(tmp_path / "t.parquet")) == ["x; y\t|", "z"]


def test_json_lines_and_dotted_mapping(tmp_path: Path) -> None:
    rows = [
        {
            "id": number,
            "request": {"messages": [{"role": "user", "content": f"q{number}"}], "model": "m"},
            "usage": {"in": number},
            "rating": "up" if number else "down",
            "tags": ["a", "b"],
        }
        for number in range(3)
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "map.toml").write_text(
        """
        [columns]
        request_id = ["request_id", "id"]
        messages = "request.messages"
        model = "request.model"
        input_tokens = "usage.in"
        score = "rating"
        [constants]
        source = "bot"
        [values.score]
        up = 1.0
        down = 0
        """
    )
    ingest([tmp_path / "log.jsonl"], tmp_path / "t.parquet", map_file=tmp_path / "map.toml")
    frame = read_traffic(tmp_path / "t.parquet").frame
    assert frame["request_id"].tolist() == ["0", "1", "2"]
    assert frame["input_tokens"].tolist() == [0, 1, 2]
    assert frame["score"].tolist() == [0, 1, 1]
    assert frame["source"].tolist() == ["bot"] * 3
    assert frame["tags"].tolist() == [["a", "b"]] * 3


def test_a_mapped_column_may_come_late(tmp_path: Path) -> None:
    """Logs leave out what is null: a file was refused as its first 20 rows had no feedback."""
    rows = [{"request_id": n, "prompt": "x", "model": "m"} for n in range(60)]
    rows[50]["feedback"] = {"thumb": 1}
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "map.toml").write_text('[columns]\nscore = "feedback.thumb"\n')
    ingest([tmp_path / "log.jsonl"], tmp_path / "t.parquet", map_file=tmp_path / "map.toml")
    assert read_traffic(tmp_path / "t.parquet").frame["score"].sum() == 1
    (tmp_path / "map.toml").write_text('[columns]\nscore = "verdict"\n')
    with pytest.raises(BadInput, match="no column verdict, which the mapping names for score"):
        ingest([tmp_path / "log.jsonl"], tmp_path / "u.parquet", map_file=tmp_path / "map.toml")


@pytest.mark.parametrize("folder", [False, True])
def test_a_day_without_feedback_is_read_like_the_others(tmp_path: Path, folder: bool) -> None:
    """A file of a folder was left out, and files that were named refused, for want of a score."""
    (tmp_path / "days").mkdir()
    for day in (1, 2):
        row = {"request_id": day, "prompt": "x", "model": "m"}
        row |= {"feedback": {"thumb": 1}} if day == 2 else {}
        (tmp_path / "days" / f"{day}.jsonl").write_text(json.dumps(row))
    (tmp_path / "map.toml").write_text('[columns]\nscore = "feedback.thumb"\n')
    given = [tmp_path / "days"] if folder else sorted((tmp_path / "days").iterdir())
    report = ingest(given, tmp_path / "t.parquet", map_file=tmp_path / "map.toml")
    assert report.total["ingested"] == 2
    assert read_traffic(tmp_path / "t.parquet").frame["score"].sum() == 1
    assert not any("null in every row" in note for note in report.notes)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_path_that_no_row_has_is_noted(tmp_path: Path, ending: str) -> None:
    rows = [{"request_id": n, "prompt": "x", "model": "m", "usage": {"in": n}} for n in range(3)]
    log = tmp_path / f"log.{ending}"
    pd.DataFrame(rows).to_parquet(log) if ending == "parquet" else log.write_text(
        "\n".join(map(json.dumps, rows))
    )
    (tmp_path / "map.toml").write_text(
        '[columns]\ninput_tokens = "usage.in"\noutput_tokens = ["usage.otu", "usage.two.much"]\n'
    )
    report = ingest([log], tmp_path / "t.parquet", map_file=tmp_path / "map.toml")
    [told] = [note for note in report.notes if "null in every row" in note]
    assert told.startswith("output_tokens") and "usage.otu or usage.two.much" in told
    assert read_traffic(tmp_path / "t.parquet").frame["input_tokens"].tolist() == [0, 1, 2]


def test_a_prompt_is_messages_where_it_spells_them(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    spelled = [chat, str(chat), json.dumps(chat), json.dumps(json.dumps(chat))]
    rows = [{"request_id": n, "model": "m", "prompt": text} for n, text in enumerate(spelled)]
    pd.DataFrame(rows).to_csv(tmp_path / "log.csv", index=False)
    ingest([tmp_path / "log.csv"], tmp_path / "t.parquet")
    found = read_traffic(tmp_path / "t.parquet").frame["messages"]
    assert [json.loads(text) for text in found] == [chat] * 4


def test_a_mapped_number_means_the_same_however_it_is_spelled(tmp_path: Path) -> None:
    """Integers become floats where a null stands among them: 1.0 was not found under 1."""
    bad = {"a": 1, "b": 0, "c": 1.0, "d": 0.0, "e": True, "f": False, "g": "1.0", "h": None}
    rows = [{"request_id": k, "prompt": k, "model": "m", "bad": v} for k, v in bad.items()]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    spelled = tmp_path / "map.toml"
    spelled.write_text('[columns]\nscore = "bad"\n[values.score]\n0 = 1.0\n1 = 0.0\n')
    ingest([tmp_path / "log.jsonl"], tmp_path / "t.parquet", map_file=spelled)
    score = read_traffic(tmp_path / "t.parquet").frame["score"]
    assert score[:7].tolist() == [0, 1, 0, 1, 0, 1, 0] and score.isna()[7]


@pytest.mark.parametrize("array", [False, True])
def test_long_integers_keep_all_their_digits(tmp_path: Path, array: bool) -> None:
    """UUIDs as numbers: rounded to a float they all were one request."""
    ids = [2**127 + number for number in range(3)]
    call = {"call_type": "", "startTime": 1.8e9, "response_cost": 0, "model": "m"}
    rows = [{**call, "id": name, "messages": f"{10**30}"} for name in ids]
    text = json.dumps(rows) if array else "\n".join(map(json.dumps, rows))
    (tmp_path / "log.json").write_text(text)
    report = ingest([tmp_path / "log.json"], tmp_path / "t.parquet")
    assert report.total["ingested"] == 3
    table = read_traffic(tmp_path / "t.parquet")
    assert table.frame["request_id"].tolist() == list(map(str, ids))
    assert _prompts(table) == [f"{10**30}"] * 3


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("[columns\n", "TOML"),
        ('[columns]\npromt = "x"', "promt is no column"),
        ("[columns]\nmodel = 3", "a column's name"),
        ("[values]\nscore = 3", r"\[values.score\]"),
        ('[colums]\nmodel = "x"', r"\[colums\] is not"),
        ('[columns]\nmodel = "absent"', "no column absent, which the mapping names for model"),
        (None, "expected a TOML file .No such file"),
    ],
)
def test_bad_mappings(tmp_path: Path, toml: str | None, told: str) -> None:
    if toml is not None:
        (tmp_path / "map.toml").write_text(toml)
    source = _csv(tmp_path / "log.csv", "a,x,m,1")
    with pytest.raises(BadInput, match=told):
        ingest([source], tmp_path / "t.parquet", map_file=tmp_path / "map.toml")


UNREAD = "ts,promptTokens,completion_tokens,feedback,sesion_id,stream"


def test_columns_that_are_not_read_are_named_and_asked_after(tmp_path: Path) -> None:
    first = _csv(
        tmp_path / "1.csv", "a,x,m,5,1,2,1,s,no", header=f"request_id,prompt,model,{UNREAD}"
    )
    row = dict(zip(["request_id", "prompt", "model", *UNREAD.split(",")], "axm512154", strict=True))
    (tmp_path / "2.jsonl").write_text(json.dumps(row | {"request_id": "b"}))
    report = ingest([first, tmp_path / "2.jsonl"], tmp_path / "t.parquet")
    told = [note for note in report.notes if "not read" in note]
    assert told == [
        f"{first} and 1 more: not read: ts, promptTokens, completion_tokens, feedback, sesion_id, "
        'stream; did you mean at = "ts", input_tokens = "promptTokens", '
        'output_tokens = "completion_tokens", score = "feedback", session_id = "sesion_id"? (--map)'
    ]
    assert read_traffic(tmp_path / "t.parquet").frame["at"].isna().all()  # asked, never done


def test_an_index_without_a_name_is_not_told_of(tmp_path: Path) -> None:
    source = _csv(tmp_path / "1.csv", "0,a,x,m", header=",request_id,prompt,model")
    report = ingest([source], tmp_path / "t.parquet")
    assert report.notes == (f"{source}: table (CSV with columns request_id, prompt, model)",)


def test_what_is_mapped_is_not_asked_after(tmp_path: Path) -> None:
    source = _csv(tmp_path / "1.csv", "a,x,m,5,1", header="request_id,prompt,model,usage,stream")
    (tmp_path / "map.toml").write_text(
        '[columns]\ninput_tokens = "usage.in"\n[constants]\nsource = "bot"\n'
    )
    report = ingest([source], tmp_path / "t.parquet", map_file=tmp_path / "map.toml")
    assert [n.split(": ", 1)[1] for n in report.notes if "not read" in n] == ["not read: stream"]


def test_a_file_without_what_is_needed_is_asked_after_that(tmp_path: Path) -> None:
    source = _csv(tmp_path / "1.csv", "a,x,m,5", header="id,promt,model,ts")
    with pytest.raises(BadInput, match=r'did you mean request_id = "id", prompt = "promt"\?$'):
        ingest([source], tmp_path / "t.parquet")


def test_again_adds_nothing(tmp_path: Path) -> None:
    source = _csv(tmp_path / "log.csv", "a,x,m,1", "b,y,m,0", "b,y,m,1", "a,x,m,1")
    out = tmp_path / "t.parquet"
    first = ingest([source], out)
    assert (first.rows, first.total["ingested"], first.total["duplicate"]) == (2, 2, 2)
    before = out.read_bytes(), out.stat().st_mtime_ns
    again = ingest([source, source], out)
    assert (again.rows, again.total["ingested"], again.total["duplicate"]) == (2, 0, 8)
    assert (out.read_bytes(), out.stat().st_mtime_ns) == before
    assert _adds_up(first)
    assert _adds_up(again)


def test_append_and_replace(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    ingest([_csv(tmp_path / "1.csv", "a,x,m,1", "b,y,m,0")], out)
    report = ingest([_csv(tmp_path / "2.csv", "b,y,m,1", "c,z,m,0", "a,x,n,1")], out)
    frame = read_traffic(out).frame
    seen = zip(frame["request_id"], frame["model"], frame["score"], strict=True)
    assert list(seen) == [("a", "m", 1), ("b", "m", 1), ("c", "m", 0), ("a", "n", 1)]
    assert report.total["ingested"] == 3
    assert report.rows == 4
    assert any("the last one counts" in note for note in report.notes)
    assert not any("had a score" in note for note in report.notes)


def test_a_score_that_a_later_row_takes_away_is_told(tmp_path: Path) -> None:
    """As where a log is ingested again without the file of its outcomes."""
    out = tmp_path / "t.parquet"
    ingest([_csv(tmp_path / "1.csv", "a,x,m,1", "b,y,m,0", "c,z,m,")], out)
    report = ingest([_csv(tmp_path / "2.csv", "a,x,m,", "b,y,m,1", "c,z,n,")], out)
    assert any(note.startswith("1 of these had a score") for note in report.notes), report.notes


def test_append_to_a_table_from_elsewhere(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    pq.write_table(pa.table({"request_id": [1], "messages": ["x"], "model": ["m"]}), out)
    ingest([_csv(tmp_path / "1.csv", "1,x,m,", "2,y,m,0")], out)
    assert _prompts(read_traffic(out)) == ["x", "y"]
    pq.write_table(
        pa.table({"request_id": [1], "messages": ["x"], "model": ["m"], "own": [1]}), out
    )
    with pytest.raises(BadInput, match=r"does not keep \(own\)"):
        ingest([tmp_path / "1.csv"], out)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut last line": lambda text: text + b'z,"half a pro',
    "cut in the middle": lambda text: text.replace(b"r50,", b'z,"half a pro\nr50,', 1),
    "too few fields": lambda text: text.replace(b"r50,", b"z,\nr50,", 1),
    "too many fields": lambda text: text.replace(b"r50,", b"z,1,2,3,4,5\nr50,", 1),
    "invalid UTF-8": lambda text: text.replace(b"r50,", b"z,\xff\xfe,m,1\nr50,", 1),
    "score out of range": lambda text: text.replace(b"r50,", b"z,p,m,7\nr50,", 1),
    "no id": lambda text: text.replace(b"r50,", b",p,m,1\nr50,", 1),
    "text behind a quote": lambda text: text.replace(b"r50,", b'z,"a\nb"c,m,1\nr50,', 1),
}


def test_another_encoding_is_told_with_its_remedy(tmp_path: Path) -> None:
    text = _csv(tmp_path / "log.csv", *(f"r{row},café {row},m,1" for row in range(9))).read_text()
    (tmp_path / "log.csv").write_bytes(text.encode("windows-1252"))
    with pytest.raises(BadInput, match=r"line 2: not valid UTF-8 .* iconv -f WINDOWS-1252"):
        ingest([tmp_path / "log.csv"], tmp_path / "t.parquet")


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("compressed", [False, True])
def test_damage_costs_one_row(tmp_path: Path, damage: str, compressed: bool) -> None:
    rows = [f'r{row},"prompt {row}\nsecond, line",m,1' for row in range(150)]
    text = _csv(tmp_path / "log.csv", *rows).read_bytes()
    damaged = DAMAGE[damage](text)
    line = damaged[: next(i for i in range(len(damaged)) if damaged[i] != (text + b"\0")[i])].count(
        b"\n"
    )
    (tmp_path / "log.csv").write_bytes(gzip.compress(damaged) if compressed else damaged)
    report = ingest([tmp_path / "log.csv"], tmp_path / "t.parquet")
    assert report.total["quarantined"] == 1
    assert report.total["ingested"] == 150
    [bad] = _bad_rows(tmp_path / "t.parquet")
    assert bad["path"] == str(tmp_path / "log.csv")
    assert bad["line"] == line + 1
    assert bad["reason"]
    assert bad["raw"]
    assert stat.S_IMODE((tmp_path / "t.parquet.quarantine.jsonl").stat().st_mode) == 0o600
    assert _adds_up(report)


def test_damaged_json_lines(tmp_path: Path) -> None:
    good = [json.dumps({"request_id": f"r{n}", "messages": "x", "model": "m"}) for n in range(5)]
    odd = [
        b"\xff{}",
        b'{"request_id": "cut',
        b"[1]",
        b"[" * 100_000,
        b'{"request_id": "m", "messages": {"role": "user"}, "model": "m"}',
        b'{"request_id": "s", "messages": "x", "model": "m", "score": NaN}',
        b'{"request_id": "i", "messages": "x", "model": "m", "score": Infinity}',
        b'{"request_id": "u", "messages": "lone \\ud83d", "model": "m", "response": "\\udc00"}',
    ]
    source = tmp_path / "log.jsonl"
    source.write_bytes(b"\xef\xbb\xbf" + "\n".join(good).encode() + b"\r\n\r\n" + b"\n".join(odd))
    with pytest.raises(BadInput, match=r"6 of 13 rows could not be read, more than --max-bad 0.01"):
        ingest([source], tmp_path / "t.parquet")
    assert not (tmp_path / "t.parquet").exists()
    assert [bad["line"] for bad in _bad_rows(tmp_path / "t.parquet")] == [7, 8, 9, 10, 11, 13]
    report = ingest([source], tmp_path / "t.parquet", max_bad=0.5)
    frame = read_traffic(tmp_path / "t.parquet").frame
    assert frame["request_id"].tolist() == [f"r{n}" for n in range(5)] + ["s", "u"]
    assert frame["response"][6] == "\ufffd"
    assert _adds_up(report)


def test_too_much_damage_leaves_the_table_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    ingest([_csv(tmp_path / "1.csv", "a,x,m,1")], out)
    before = out.read_bytes()
    with pytest.raises(BadInput, match=r"line 3: column score: '2' is outside \[0, 1\]"):
        ingest([_csv(tmp_path / "2.csv", "b,x,m,1", "c,x,m,2")], out)
    assert out.read_bytes() == before
    left = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith((".", "t.")))
    assert left == ["t.parquet", "t.parquet.key", "t.parquet.quarantine.jsonl"]
    ingest([_csv(tmp_path / "2.csv", "b,x,m,1")], out)
    assert not (tmp_path / "t.parquet.quarantine.jsonl").exists()


def test_a_line_too_long_is_one_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LINE_LIMIT", 1000)
    source = _csv(tmp_path / "log.csv", "a,x,m,1", 'b,"' + "y" * 5000 + '",m,1', "c,z,m,1")
    ingest([source], tmp_path / "t.parquet", max_bad=0.5)
    assert _prompts(read_traffic(tmp_path / "t.parquet")) == ["x", "z"]
    [bad] = _bad_rows(tmp_path / "t.parquet")
    assert bad["line"] == 3
    assert len(bad["raw"]) <= 4000


def test_cut_gzip(tmp_path: Path) -> None:
    random = [f"r{n},{os.urandom(40).hex()},m,1" for n in range(5000)]
    whole = gzip.compress(_csv(tmp_path / "log.csv", *random).read_bytes())
    (tmp_path / "log.csv.gz").write_bytes(whole[: len(whole) // 2])
    report = ingest([tmp_path / "log.csv.gz"], tmp_path / "t.parquet")
    assert report.total["quarantined"] == 1
    assert 1000 < report.rows < 4000
    assert "damaged" in _bad_rows(tmp_path / "t.parquet")[0]["reason"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("log.csv", b"", "the file is empty"),
        ("log.csv", b"request_id,prompt,model\n", "an empty log: no rows"),
        ("log.csv", b"id,prompt,model\n1,2,3\n", "no column request_id .columns seen: id, prompt"),
        ("log.csv", HEADER.encode("utf-16"), "UTF-16"),
        ("log.csv", "request_id,prompt,größe\na,b,3\n".encode("latin-1"), "no UTF-8 text"),
        ("log.xlsx", b"PK\x03\x04\x14\x00\x08\x08\x08\x00\xb9\x97\n\x00", "save it as CSV"),
        ("log.csv", b"request_id,prompt,model,model\na,b,c,d\n", "column model is there twice"),
        ("log.json", b'[{"request_id": 1}]', "one JSON array"),
        ("log.json", b'{\n "request_id": 1\n}\n', "no JSON object a line"),
        ("log.parquet", b"PAR1 and no more", "not a whole Parquet file"),
        ("log.jsonl", b'{"request_id": 1}\n', "no column messages or prompt"),
    ],
)
def test_sources_that_are_no_log(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=told):
        ingest([tmp_path / name], tmp_path / "out" / "t.parquet")
    assert not list(tmp_path.glob("out/*"))
    assert not list(tmp_path.glob("out/.*"))


def test_calls_that_cannot_be(tmp_path: Path) -> None:
    source = _csv(tmp_path / "log.csv", "a,x,m,1")
    with pytest.raises(BadInput, match="no such file"):
        ingest([tmp_path / "absent.csv"], tmp_path / "t.parquet")
    with pytest.raises(BadInput, match="choose auto or"):
        ingest([source], tmp_path / "t.parquet", format="xml")
    with pytest.raises(BadInput, match="no fraction"):
        ingest([source], tmp_path / "t.parquet", max_bad=5)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadInput, match="nothing to read"):
        ingest([tmp_path / "empty"], tmp_path / "t.parquet")


def test_folders_and_globs(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    (logs / "deep" / ".hidden").mkdir(parents=True)
    _csv(logs / "1.csv", "a,x,m,1")
    _csv(logs / "deep" / "2.csv", "b,x,m,1")
    _csv(logs / "deep" / ".hidden" / "3.csv", "c,x,m,1")
    (logs / "prices.csv").write_text("model,usd\nm,1\n")
    (logs / "README.md").write_text("words")
    out = logs / "t.parquet"
    report = ingest([logs], out)
    assert [Path(file.path).name for file in report.files] == ["1.csv", "2.csv"]
    assert any("prices.csv left out" in note for note in report.notes)
    assert any("README.md left out: no ending of a log" in note for note in report.notes)
    assert ingest([logs], out).total["read"] == 2  # the table itself is no source
    _csv(logs / "3.CSV", "d,x,m,1")
    _csv(logs / "4.csv.1", "e,x,m,1")  # as logrotate names it
    report = ingest([logs], out)
    assert report.rows == 3 and any("4.csv.1 and 1 more left out" in n for n in report.notes)
    assert ingest([f"{logs}/*/*.csv"], tmp_path / "u.parquet").rows == 1


def test_ids_are_hashed_with_a_key_that_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = "request_id,prompt,model,user_id,session_id"
    source = _csv(tmp_path / "1.csv", "a,x,m,ann,s1", "b,x,m,ann,s2", "c,x,m,,", header=header)
    out, key = tmp_path / "t.parquet", tmp_path / "t.parquet.key"
    ingest([source], out)
    frame = read_traffic(out).frame
    assert frame["user_id"][0] == frame["user_id"][1]
    assert frame["user_id"][0] == pseudonym(key.read_text().strip().encode(), "ann")
    assert frame["user_id"][2] is None
    assert b"ann" not in out.read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    more = _csv(tmp_path / "2.csv", "d,x,m,ann,s1", header=header)
    ingest([more], out)
    assert read_traffic(out).frame["session_id"][3] == frame["session_id"][0]
    monkeypatch.setenv("SUFFICE_KEY", "another")
    with pytest.raises(BadInput, match="another key"):
        ingest([more], out)
    monkeypatch.delenv("SUFFICE_KEY")
    with pytest.raises(BadInput, match="leave out --keep-ids"):
        ingest([more], out, keep_ids=True)
    ingest([more], tmp_path / "plain.parquet", keep_ids=True)
    assert read_traffic(tmp_path / "plain.parquet").frame["user_id"].tolist() == ["ann"]
    assert not (tmp_path / "plain.parquet.key").exists()


@pytest.mark.parametrize("name", ["t.parquet", "t", "days/"])
def test_ids_are_hashed_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = "request_id,prompt,model,user_id"
    first, again = tmp_path / name, tmp_path / "again.parquet"
    ingest([_csv(tmp_path / "1.csv", "a,x,m,ann", header=header)], f"{tmp_path}/{name}")
    hashed = read_traffic(first).frame["user_id"].tolist()
    source = next(path for path in (first, *first.rglob("*.parquet")) if path.is_file())
    with pytest.raises(BadInput, match=r"already hashed, with another key.*set SUFFICE_KEY"):
        ingest([source], again)
    assert not list(tmp_path.glob("again*"))
    monkeypatch.setenv("SUFFICE_KEY", Path(f"{first}.key").read_text().strip())
    ingest([source], again)
    assert read_traffic(again).frame["user_id"].tolist() == hashed
    monkeypatch.delenv("SUFFICE_KEY")
    ingest([source], tmp_path / "kept.parquet", keep_ids=True)
    assert read_traffic(tmp_path / "kept.parquet").frame["user_id"].tolist() == hashed


def test_a_table_without_ids_needs_no_key_of_its_source(tmp_path: Path) -> None:
    ingest([_csv(tmp_path / "1.csv", "a,x,m,1")], tmp_path / "t.parquet")
    assert ingest([tmp_path / "t.parquet"], tmp_path / "u.parquet").rows == 1


@pytest.mark.parametrize(
    ("name", "better"),
    [("t.csv", "t.parquet"), ("t.jsonl", "t.parquet"), ("notes.txt", "notes.parquet")],
)
def test_a_table_has_the_name_of_one_and_overwrites_nothing_else(
    tmp_path: Path, name: str, better: str
) -> None:
    source = _csv(tmp_path / "1.csv", "a,x,m,1")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match=f"Parquet.*--out .*{better}"):
        ingest([source], tmp_path / name)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.csv", "notes.txt"]


def test_failed_calls_are_kept_and_counted(tmp_path: Path) -> None:
    header = "request_id,prompt,model,status,error"
    source = _csv(tmp_path / "1.csv", "a,x,m,failure,Timeout", "b,x,m,success,", header=header)
    report = ingest([source], tmp_path / "t.parquet")
    assert (report.total["failed"], report.total["ingested"], report.rows) == (1, 1, 2)
    assert read_traffic(tmp_path / "t.parquet").frame["status"].tolist() == ["error", "ok"]


def test_skipped_rows_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def some(path: Path, mapping: Mapping) -> Iterator[Record]:
        yield Skip(1, "an embedding")
        yield from table.rows(path, mapping)

    monkeypatch.setitem(ADAPTERS, "table", replace(ADAPTERS["table"], rows=some))
    report = ingest([_csv(tmp_path / "1.csv", "a,x,m,1")], tmp_path / "t.parquet")
    assert (report.total["skipped"], report.total["ingested"]) == (1, 1)
    assert _adds_up(report)


def test_two_writers_at_once_are_refused(tmp_path: Path) -> None:
    source = _csv(tmp_path / "1.csv", "a,x,m,1")
    with (tmp_path / ".t.parquet.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BadInput, match="another job is writing"):
            ingest([source], tmp_path / "t.parquet")


def test_batches_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"r{n % 60},prompt {n % 60},m,{'bad' if n == 33 else n % 2}" for n in range(100)]
    source = _csv(tmp_path / "1.csv", *rows)
    ingest([source], tmp_path / "whole.parquet", max_bad=0.1)
    monkeypatch.setattr("training.log.ingest.BATCH_ROWS", 7)
    monkeypatch.setattr("training.log.store.BATCH_ROWS", 5)
    monkeypatch.setattr("training.log.store.GROUP_ROWS", 11)
    monkeypatch.setattr("training.log.store.GROUP_BATCHES", 2)
    ingest([source], tmp_path / "parts.parquet", max_bad=0.1)
    whole, parts = (pq.read_table(tmp_path / f"{n}.parquet") for n in ("whole", "parts"))
    assert whole.equals(parts)
    assert whole.num_rows == 60


def test_routellm(tmp_path: Path) -> None:
    header = "prompt,org/small-model,gpt-x,org/small-model_response,gpt-x_response"
    folder = tmp_path / "evals"
    folder.mkdir()
    _csv(folder / "task.csv", '"a\nb",True,False,yes,no', ",False,True,,x", header=header)
    report = ingest([tmp_path], tmp_path / "t.parquet")
    frame = read_traffic(tmp_path / "t.parquet").frame
    assert report.files[0].format == "routellm"
    assert frame["request_id"].tolist() == ["task.csv:0"] * 2 + ["task.csv:1"] * 2
    assert frame["tier"].tolist() == ["small", "large"] * 2
    assert frame["model"].tolist() == ["org/small-model", "gpt-x"] * 2
    assert frame["score"].tolist() == [1, 0, 0, 1]
    assert frame["response"].tolist() == ["yes", "no", "", "x"]
    assert set(frame["source"]) == {"task"}
    assert frame["at"].isna().all()


def test_routellm_outcomes_of_mmlu(shared_data: Path, tmp_path: Path) -> None:
    report = ingest([shared_data / "routellm" / "mmlu"], tmp_path / "t.parquet", format="routellm")
    frame = read_traffic(tmp_path / "t.parquet").frame
    assert report.total["ingested"] == len(frame) == 28_084
    means = frame.groupby("tier")["score"].mean().round(3).to_dict()
    assert means == {"small": 0.681, "large": 0.806}
    assert frame["source"].nunique() == 57
    assert frame["request_id"].nunique() == 14_042


WAREHOUSE_MAP = """
[columns]
at = "ts"
input_tokens = "prompt_tokens"
output_tokens = "completion_tokens"
score = "feedback"
[values.score]
1 = 1.0
-1 = 0.0
"""


def test_warehouse_sample(warehouse: Path, tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text(WAREHOUSE_MAP)
    expected = json.loads((warehouse / "expected.json").read_text())
    tables = {}
    for kind in ("csv", "parquet"):
        name = f"llm_requests.{kind}"
        out = tmp_path / f"{kind}.out"
        source, map_file = warehouse / name, tmp_path / "map.toml"
        report = ingest([source], out, map_file=map_file, keep_ids=True)
        counts = expected["files"][name]
        assert report.total["read"] == counts["rows_parsed"]
        assert report.total["ingested"] == counts["unique_chat_success"]
        assert report.total["failed"] == counts["unique_chat_failure"]
        frame = tables[kind] = read_traffic(out).frame.set_index("request_id")
        assert (frame["score"] == 1).sum() == counts["feedback_up"]
        assert (frame["score"] == 0).sum() == counts["feedback_down"]
        assert frame["user_id"].notna().sum() == counts["with_user"]
    for row in expected["rows"]["llm_requests.csv"]:
        for frame in tables.values():
            found = frame.loc[row["request_id"]]
            assert json.loads(found["messages"]) == row["messages"]
            assert found["at"].timestamp() == pytest.approx(row["start_ts"], abs=0.002)
            assert found["status"] == {"success": "ok", "failure": "error"}[row["status"]]
            assert found["model"].split("/")[-1] == row["model"]
            assert found["error"] == row["error"]
            if row["cost_usd"] is not None:
                assert found["cost_usd"] == pytest.approx(row["cost_usd"], abs=1e-9)
                assert found["input_tokens"] == row["prompt_tokens"]
                assert found["output_tokens"] == row["completion_tokens"]
            if row["response_text"] is not None:
                assert found["response"] == row["response_text"]


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=30)
rows = st.lists(
    st.fixed_dictionaries(
        {
            "request_id": st.uuids().map(str),
            "prompt": text.filter(lambda t: not t.lstrip().startswith("[")),
            "model": st.sampled_from(["m", "n"]),
            "score": st.none() | st.floats(0, 1),
        }
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda row: row["request_id"],
)


@settings(max_examples=25)
@given(rows=rows, kind=st.sampled_from(["csv", "jsonl", "parquet"]))
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], kind: str
) -> None:
    folder = tmp_path_factory.mktemp("trip")
    source = folder / f"log.{kind}"
    if kind == "jsonl":
        source.write_text("\n".join(map(json.dumps, rows)))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), source)
    else:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, rows[0])
        writer.writeheader()
        writer.writerows(rows)
        source.write_bytes(buffer.getvalue().encode())
    ingest([source], folder / "t.out")
    read = read_traffic(folder / "t.out")
    assert read.frame["request_id"].tolist() == [row["request_id"] for row in rows]
    assert _prompts(read) == [row["prompt"] for row in rows]
    scores = [None if score != score else score for score in read.frame["score"].tolist()]
    assert scores == [row["score"] for row in rows]


@given(st.binary(max_size=300))
def test_no_bytes_break_the_csv_reader(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "x.csv"
    path.write_bytes(b"a,b\n" + content)
    header, *records = csv_records(path, ",")
    assert header == (1, ["a", "b"])
    numbers = [r.line if isinstance(r, Bad) else r[0] for r in records]
    assert numbers == sorted(set(numbers))
    assert all(isinstance(r, Bad) or len(r[1]) == 2 for r in records)


def test_whole_numbers_that_became_floats_are_the_same_ids(tmp_path):
    """As pandas makes of integers beside a null."""
    frame = pd.DataFrame(
        {"request_id": [0, 7, 12345678901, None], "messages": "hi", "tier": "small", "score": 1.0}
    )
    frame.to_parquet(tmp_path / "float.parquet")
    ingest([tmp_path / "float.parquet"], tmp_path / "t.parquet", max_bad=1.0)
    found = pd.read_parquet(tmp_path / "t.parquet")["request_id"]
    assert sorted(found) == ["0", "12345678901", "7"]
