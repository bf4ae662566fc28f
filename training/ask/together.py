"""Several traffic files read as one table: a log and its replays, before they are merged."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from training.log.imprint import needs_text
from training.log.traffic import TrafficTable, read_traffic, repeats


def read_together(paths: Sequence[Path]) -> TrafficTable:
    """The rows of all files; of two for the same request and tier (model), the last counts."""
    tables = [read_traffic(path) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if "imprint" in table.frame:
            raise needs_text(path, "asking a model")
    if len(tables) == 1:
        return tables[0]
    frame = pd.concat([table.frame for table in tables], ignore_index=True)
    again = repeats(frame, keep="last")
    notes = tuple(note for table in tables for note in table.notes)
    if again.any():
        notes += (f"{again.sum()} rows come again in a later file: the last one counts",)
    return TrafficTable(frame[~again].reset_index(drop=True), notes)
