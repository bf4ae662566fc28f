"""A log gives itself away under any ids, and no single prompt does."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from router.artifact import read_artifact
from router.prompt import Prompt
from tests.traffic_makers import call, make_rows, requests_of
from training.learn.seen import added, recognise, sketch


def prompts(start, stop):
    return [Prompt.of(f"question number {i} of this kind") for i in range(start, stop)]


def rows_of(start, stop):
    return [
        row | {"request_id": f"n-{i}", "messages": f"question number {i} of this kind"}
        for i, row in zip(range(start, stop), make_rows(stop - start), strict=False)
    ]


@pytest.fixture(scope="module")
def artifact(job):
    return read_artifact(job.artifact)[0]


@pytest.mark.parametrize(("first", "share"), [(0, 1.0), (500, 0.5), (900, 0.1), (1000, None)])
def test_how_many_are_known(first, share, artifact, tmp_path):
    arrays = {"seen": sketch(artifact.predictor.vectorizer.embedder, prompts(0, 1000))}
    found = recognise(artifact, arrays, requests_of(rows_of(first, first + 1000), tmp_path))
    assert (found is None) == (share is None)
    if found is not None:
        assert found.share == pytest.approx(share, abs=0.05)
        assert found.prompts == 1000


def test_new_prompts_are_not_taken_for_old_ones(artifact, tmp_path):
    arrays = {"seen": sketch(artifact.predictor.vectorizer.embedder, prompts(0, 400))}
    alarms = [
        recognise(artifact, arrays, requests_of(rows_of(k, k + 300), tmp_path))
        for k in range(1000, 10_000, 300)
    ]
    assert all(alarm is None for alarm in alarms)


def test_a_single_prompt_cannot_be_told(artifact):
    embedder = artifact.predictor.vectorizer.embedder
    table = np.unpackbits(sketch(embedder, prompts(0, 5000)))
    assert 0.08 < table.mean() < 0.15  # so many of all other prompts would be taken for known ones
    more = np.unpackbits(added(np.packbits(table), embedder, prompts(5000, 6000)))
    assert (more >= table).all() and more.mean() > table.mean()


def test_the_same_log_under_new_ids(job, tmp_path, capsys):
    frame = pd.read_parquet(job.traffic)
    frame["request_id"] = "other-" + frame["request_id"]
    path = tmp_path / "again.parquet"
    frame.to_parquet(path)
    told = call(capsys, "evaluate", job.artifact, "--traffic", path, "--json", tmp_path / "r.json")
    assert told.code == 0, told
    notes = json.loads((tmp_path / "r.json").read_text())["notes"]
    assert "prompts are known to the artifact" in notes[0] and "better than" in notes[0]
    named = call(capsys, "compare", job.artifact, job.artifact, "--traffic", path).out
    version = read_artifact(job.artifact)[0].version
    assert (
        len(re.findall(rf"\({version}\): about .* prompts are known to the artifact", named)) == 1
    )
    asked = ("policy", job.artifact, "--traffic", path, "--set", "min_quality=0.9")
    call(capsys, *asked, "--out", tmp_path / "new").refused("worth nothing")
    assert not (tmp_path / "new").exists()
    until = pd.Timestamp(read_artifact(job.artifact)[0].manifest["training"]["until"])
    frame["at"] = until + pd.to_timedelta(np.arange(len(frame)) + 1, unit="s")
    frame.to_parquet(path)
    later = call(capsys, *asked, "--out", tmp_path / "new")
    assert later.code == 0 and "asked again" in later.out, later
    frame["request_id"] = "third-" + frame["request_id"]  # the very rows that were just spent
    frame.to_parquet(path)
    spent = ("policy", tmp_path / "new", "--traffic", path, "--set", "min_quality=0.9")
    call(capsys, *spent, "--out", tmp_path / "newer").refused("worth nothing")
    fresh = call(capsys, "evaluate", job.artifact, "--traffic", job.fresh)
    assert fresh.code == 0 and "known to the artifact" not in fresh.out
