"""Ingest: rows per second, and how resident memory grows with the rows.

python -m pytest tests/benchmarks/bench_ingest.py -m benchmark -s
"""

import json
import resource
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import orjson
import pytest

ONE_RUN = """
import json, resource, sys, time
from training.log.ingest import ingest
started = time.perf_counter()
report = ingest([sys.argv[1]], sys.argv[2])
print(json.dumps({"total": report.total, "rows": report.rows,
    "seconds": time.perf_counter() - started,
    "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


def _small_rows(path: Path, rows: int, repeat: bool = False) -> Path:
    with path.open("w") as file:
        file.write("request_id,at,user_id,prompt,model,input_tokens,output_tokens,score\n")
        for row in range(rows):
            number = row % (rows // 2) if repeat else row
            file.write(
                f"request-{number:09d},2026-01-01T00:{row // 60 % 60:02d}:{row % 60:02d}Z,"
                f'u-{row % 5000},"Question {row}, and why?",model-{row % 2},{row % 90},7,0.5\n'
            )
    return path


def _run(source: Path, out: Path) -> dict:
    command = [sys.executable, "-c", ONE_RUN, str(source), str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.benchmark
@pytest.mark.parametrize("what", ["new", "duplicates", "again"])
def test_memory_by_rows(tmp_path: Path, what: str) -> None:
    """New rows; a log that says everything twice; the same log a second time (two passes)."""
    sizes, figures = (200_000, 1_000_000), []
    for rows in sizes:
        source = _small_rows(tmp_path / f"{rows}.csv", rows, repeat=what == "duplicates")
        out = tmp_path / f"{rows}.parquet"
        figure = _run(source, out)
        if what == "again":
            figure = _run(source, out)
            assert figure["total"]["duplicate"] == rows
        figures.append(figure)
        print(
            f"\n{what}, {rows} rows: {rows / figure['seconds']:,.0f} rows/s, "
            f"{figure['rss'] / 2**20:.0f} MiB resident"
        )
    held = (2 if what == "again" else 1) * (sizes[1] - sizes[0])
    growth = (figures[1]["rss"] - figures[0]["rss"]) / held
    print(f"{what}: memory grows by {growth:.1f} bytes a row (figure to reach: 40)")
    assert growth <= 40


@pytest.mark.benchmark
def test_mmlu_outcomes(shared_data: Path, tmp_path: Path) -> None:
    """The 14,042 × 2 outcomes of RouteLLM's MMLU folder."""
    figure = _run(shared_data / "routellm" / "mmlu", tmp_path / "mmlu.parquet")
    print(f"\nMMLU folder: {figure['rows']} rows in {figure['seconds']:.1f} s (figure: 4 s)")
    assert figure["rows"] == 28_084
    assert figure["seconds"] <= 4


@pytest.mark.benchmark
def test_chat_json(tmp_path: Path) -> None:
    """JSON lines of about 13 kB, as gateways write them."""
    source = tmp_path / "chat.jsonl"
    text = "The quick brown fox “jumps” over the lazy dog. " * 60
    with source.open("w") as file:
        for row in range(20_000):
            turns = [{"role": role, "content": f"{row} {text}"} for role in ("system", "user")]
            values = {"request_id": f"r{row}", "messages": turns, "model": "m", "response": text}
            file.write(json.dumps({**values, "unread": {"trace": [text]}}) + "\n")
    figure = _run(source, tmp_path / "chat.parquet")
    megabytes = source.stat().st_size / 1e6
    print(
        f"\nJSON lines of {megabytes / 20_000 * 1e3:.0f} kB: {megabytes / figure['seconds']:.0f} "
        f"MB/s, {figure['rss'] / 2**20:.0f} MiB resident"
    )


@pytest.mark.benchmark
def test_litellm_payloads(shared_data: Path, tmp_path: Path) -> None:
    """LiteLLM's payloads of 13 kB, the sample repeated with new ids, against parsing alone."""
    log = shared_data.parent / "logs" / "litellm" / "standard_logging_payload.jsonl"
    if not log.exists():
        pytest.skip("the log samples are not beside this checkout")
    sample = log.read_bytes().splitlines()
    sizes, figures = (20_000, 100_000), []
    for rows in sizes:
        source = tmp_path / "litellm.jsonl"
        with source.open("wb") as file:
            for row in range(rows):
                new_id = b'{"id": "%07d-' % row
                file.write(sample[row % len(sample)].replace(b'{"id": "', new_id, 1) + b"\n")
        started = perf_counter()
        with source.open("rb") as file:
            for line in file:
                orjson.loads(line)
        parsing = perf_counter() - started
        figure = _run(source, tmp_path / f"{rows}.parquet")
        figures.append(figure)
        assert figure["total"]["read"] == rows
        megabytes = source.stat().st_size / 1e6
        print(
            f"\n{rows} payloads, {megabytes:,.0f} MB: {megabytes / figure['seconds']:.0f} MB/s "
            f"(figure to reach: 80), {figure['seconds'] / parsing:.1f} times parsing alone, "
            f"{figure['rss'] / 2**20:.0f} MiB resident (figure to reach: 600)"
        )
        assert figure["rss"] <= 600 * 2**20
    growth = (figures[1]["rss"] - figures[0]["rss"]) / (sizes[1] - sizes[0])
    print(f"memory grows by {growth:.0f} bytes a row")


@pytest.mark.benchmark
def test_read_traffic(tmp_path: Path) -> None:
    """`read_traffic` of 30,000 rows (figure to reach: 2 s)."""
    from training.log.ingest import ingest
    from training.log.traffic import read_traffic

    out = tmp_path / "t.parquet"
    ingest([_small_rows(tmp_path / "t.csv", 30_000)], out)
    started = perf_counter()
    table = read_traffic(out)
    seconds = perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nread_traffic: {len(table.frame)} rows in {seconds:.2f} s, {peak:.0f} MiB at most")
    assert seconds <= 2
