"""The journal of paid calls: what a kill leaves behind, and what it costs."""

import asyncio
import json
import stat

import pytest

from training.ask.journal import ANSWERED, ASKED, FAILED, Journal
from training.errors import BadInput


def record(kind, key, usd=1.0):
    return {"kind": kind, "key": key, "usd": usd, "text": "ä\n"}


def write(path, *records):
    async def run():
        with Journal(path) as journal:
            await asyncio.gather(*(journal.write(one) for one in records))

    asyncio.run(run())


def test_what_was_written_is_read_back(tmp_path):
    path = tmp_path / "out.journal.jsonl"
    write(path, record(ASKED, "a"), record(ASKED, "b", 2.0), record(ANSWERED, "a", 0.5))
    with Journal(path) as journal:
        assert journal.answered["a"]["text"] == "ä\n"
        assert list(journal.in_flight) == ["b"]
        assert journal.spent == 2.5  # what is in flight may have been paid
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_call_asked_again_may_have_been_paid_twice(tmp_path):
    path = tmp_path / "j"
    write(path, record(ASKED, "a", 2.0), record(ASKED, "a", 2.0), record(ANSWERED, "a", 1.5))
    with Journal(path) as journal:
        assert journal.in_flight == {}
        assert journal.spent == 3.5


def test_a_failed_call_is_not_in_flight_and_may_be_asked_again(tmp_path):
    path = tmp_path / "j"
    write(path, record(ASKED, "a"), record(FAILED, "a", 0.0))
    with Journal(path) as journal:
        assert list(journal.failed) == ["a"]
        assert journal.in_flight == {}
        journal.note(record(ASKED, "a"))
        assert journal.failed == {}
        assert list(journal.in_flight) == ["a"]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_last_line_cut_by_a_kill_is_dropped_and_the_next_line_is_whole(tmp_path, cut):
    path = tmp_path / "j"
    write(path, record(ASKED, "a"), record(ANSWERED, "a"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with Journal(path) as journal:
        assert "a" in journal.in_flight
    write(path, record(ANSWERED, "a"))
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == [ASKED, ANSWERED]


def test_damage_before_the_end_is_refused_with_its_line(tmp_path):
    path = tmp_path / "j"
    path.write_text('{"kind": "asked", "key": "a", "usd": 1}\nnonsense\n')
    with pytest.raises(BadInput, match="line 2"):
        Journal(path)


def test_two_runs_do_not_share_a_journal(tmp_path):
    path = tmp_path / "j"
    with Journal(path), pytest.raises(BadInput, match="another run"):
        Journal(path)


def test_an_empty_journal_leaves_no_file(tmp_path):
    with Journal(tmp_path / "j"):
        pass
    assert list(tmp_path.iterdir()) == []
