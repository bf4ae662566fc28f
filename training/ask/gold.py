"""Labels that people gave, to hold a judge against: a column of the log, or a file of their own."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from training.errors import BadInput

KEYS = ("request_id", "tier", "model")


def read_gold(given: str, traffic: Sequence[Path], frame: pd.DataFrame) -> pd.Series:
    """Gold scores of the frame's rows, float64[n], NaN where there is none.

    `given` is a CSV, JSON lines or Parquet file with request_id, tier (or model) and score, or the
    name of a column of the traffic files.

    Raises:
        BadInput: neither; a score outside [0, 1]; or not one row of the log has a gold score.
    """
    path = Path(given)
    if path.is_file():
        gold, column = _read(path), "score"
    else:
        gold, column = _columns(traffic, given), given
    missing = [name for name in ("request_id", column) if name not in gold]
    if missing or not {"tier", "model"} & set(gold):
        raise BadInput(f"--gold {given}: needs request_id, tier (or model) and {column}")
    try:
        scores = gold[column].astype("float64")
    except (ValueError, TypeError):
        raise BadInput(
            f"--gold {given}: column {column} holds values that are no numbers"
        ) from None
    if not scores.dropna().between(0, 1).all():
        raise BadInput(f"--gold {given}: column {column} holds values outside [0, 1]")
    found = dict(zip(_names(gold), scores, strict=True))
    read = pd.Series([found.get(key, float("nan")) for key in _names(frame)], dtype="float64")
    if read.isna().all():
        raise BadInput(f"--gold {given}: no row of the log has a gold score")
    return read


def _names(frame: pd.DataFrame) -> list[tuple[str, str | None]]:
    tier = frame["tier"] if "tier" in frame else pd.Series(None, frame.index, dtype=object)
    model = frame.get("model", tier)
    answered = tier.where(tier.notna(), model)
    return list(zip(frame["request_id"].astype(str), answered, strict=True))


def _read(path: Path) -> pd.DataFrame:
    try:
        if path.suffix == ".csv":
            return pd.read_csv(path)
        return pd.read_json(path, lines=True) if path.suffix == ".jsonl" else pd.read_parquet(path)
    except (ValueError, OSError, pa.ArrowException) as error:
        raise BadInput(f"{path}: cannot be read as CSV, JSON lines or Parquet ({error})") from error


def _columns(traffic: Sequence[Path], column: str) -> pd.DataFrame:
    parts = []
    for path in traffic:
        table = pq.read_table(path, partitioning=None)
        if column in table.column_names:
            wanted = [name for name in (*KEYS, column) if name in table.column_names]
            parts.append(table.select(wanted).to_pandas())
    if not parts:
        raise BadInput(f"--gold {column}: no such file, and no such column in the traffic")
    return pd.concat(parts, ignore_index=True)
