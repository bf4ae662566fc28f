"""What `suffice compare` says first, and in which units."""

import shutil

import pytest

from tests.builders import edit_manifest
from tests.traffic_makers import call, make_rows, one_sided, write_log
from training.measure.intervals import Interval
from training.retrain.versus import Figure, SideBySide, compare


def between(quality: tuple[float, float], usd: tuple[float, float]) -> SideBySide:
    """Two routers whose differences (second minus first) have these limits."""
    found = []
    for (low, high), base, name in (
        (quality, 0.9, "quality"),
        (usd, 0.00124, "USD per request"),
    ):
        value = (low + high) / 2
        found.append(Figure(name, base, base + value, Interval(value, value, low, high, 0.0)))
    return SideBySide(("old", "new"), "paired", 600, tuple(found), ())


@pytest.mark.parametrize(
    ("quality", "usd", "said"),
    [
        (
            (-0.00634213, 0.0103421),
            (-0.0005, -0.00031),
            "new against old – cheaper: 33\u202f% less ($1.24 → $0.835) per 1,000; "
            "quality not shown to differ: +0.0020 (-0.0063 to +0.0103)",
        ),
        (
            (-0.03, -0.01),
            (0.0, 0.0),
            "new against old – the same cost: $1.24 per 1,000; "
            "lower quality: -0.0200 (-0.0300 to -0.0100)",
        ),
        (
            (0.01, 0.03),
            (-0.0001, 0.0003),
            "new against old – cost not shown to differ: 8\u202f% more ($1.24 → $1.34) per 1,000; "
            "higher quality: +0.0200 (+0.0100 to +0.0300)",
        ),
    ],
)
def test_the_verdict_comes_first(
    quality: tuple[float, float], usd: tuple[float, float], said: str
) -> None:
    assert between(quality, usd).as_text()[0] == said


@pytest.mark.parametrize("command", ["compare", "evaluate"])
@pytest.mark.parametrize("paired", [True, False])
def test_one_session_alone_tells_nothing(job, workdir, capsys, command, paired):
    rows = [row | {"session_id": "one"} for row in make_rows(300, seed=8)]
    rows = [row | {"request_id": f"later-{row['request_id']}"} for row in rows]
    log = write_log(workdir / "log.parquet", rows if paired else one_sided(rows, 0.3))
    asked = (job.artifact, *[job.artifact] * (command == "compare"), "--traffic", log)
    call(capsys, command, *asked).refused("are of one session")


@pytest.mark.parametrize("command", ["compare", "evaluate"])
@pytest.mark.parametrize("paired", [True, False])
def test_a_session_with_most_of_the_requests_is_told(job, workdir, capsys, command, paired):
    rows = [row | {"request_id": f"later-{row['request_id']}"} for row in make_rows(300, seed=8)]
    ids = sorted({row["request_id"] for row in rows})
    batch = set(ids[: int(0.6 * len(ids))])
    rows = [row | {"session_id": "a batch"} if row["request_id"] in batch else row for row in rows]
    log = write_log(workdir / "log.parquet", rows if paired else one_sided(rows, 0.3))
    asked = (job.artifact, *[job.artifact] * (command == "compare"), "--traffic", log)
    assert "holds 60% of the requests" in call(capsys, command, *asked).out


def test_costs_are_of_1_000_requests_for_people_and_of_one_for_machines() -> None:
    found = between((-0.00634213, 0.0103421), (-0.0005, -0.00031))
    table = found.as_text()[1]
    assert "USD per 1,000" in table
    assert "0.8350" in table and "-0.5000 to -0.3100" in table
    assert "0.00634213" not in table
    assert found.as_json()["figures"]["USD per request"]["first"] == 0.00124


def test_no_loss_seen_is_not_the_same_quality(job, workdir):
    """Forty requests that both tiers answer well, sent to another tier by each router."""
    folders = []
    for tier in range(2):
        folders.append(workdir / str(tier))
        shutil.copytree(job.artifact, folders[-1])
        edit_manifest(folders[-1], lambda found, tier=tier: found["policy"].update(constant=tier))
    rows = make_rows(40, seed=8, easy=(1.0, 1.0), hard=(1.0, 1.0), session=1)
    rows = [row | {"request_id": f"later-{row['request_id']}"} for row in rows]
    log = write_log(workdir / "log.parquet", rows)
    unlike = compare(str(folders[0]), str(folders[1]), log, "suffice")
    quality = next(row.difference for row in unlike.rows if row.name == "quality")
    assert quality.high == pytest.approx(1 - 0.025 ** (1 / 40))  # Clopper and Pearson
    assert "quality not shown to differ" in unlike.verdict
    assert "the same quality" in compare(str(folders[0]), str(folders[0]), log, "suffice").verdict
