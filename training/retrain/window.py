"""The window: which rows of a data set a retraining job uses, and how much old ones weigh."""

from dataclasses import replace

import numpy as np

from training.errors import BadInput
from training.log.requests import Requests
from training.log.traffic import TrafficTable
from training.retrain.settings import Window


def cut(table: TrafficTable, window: Window) -> TrafficTable:
    """The rows inside the window; all answers to a request stay together.

    Raises:
        BadInput: the window is empty, or asks for times that the log does not have.
    """
    frame = table.frame
    first = frame.groupby("request_id", sort=False)["at"].transform("min")
    timed = window.since is not None or window.until is not None
    if timed and first.isna().all():
        raise BadInput("column at: no request has a time, so [data] since and until mean nothing")
    inside = np.ones(len(frame), dtype=bool)
    if window.since is not None:
        inside &= (first >= window.since).to_numpy()
    if window.until is not None:
        inside &= (first < window.until).to_numpy()
    kept, times = frame[inside], first[inside]
    if window.max_rows is not None:
        order = times.sort_values(ascending=False, na_position="last", kind="stable").index
        latest = kept.loc[order, "request_id"].drop_duplicates().head(window.max_rows)
        kept = kept[kept["request_id"].isin(set(latest))]
    if kept.empty:
        raise BadInput(
            f"the window is empty: {len(frame)} rows from {first.min()} to {first.max()}, none "
            f"from {window.since or 'the beginning'} to {window.until or 'the end'}. Widen [data] "
            "since or until, or ingest newer logs"
        )
    left = frame["request_id"].nunique() - kept["request_id"].nunique()
    note = f"window: {kept['request_id'].nunique()} requests, {left} outside it"
    return replace(table, frame=kept.reset_index(drop=True), notes=(*table.notes, note))


def decay(requests: Requests, half_life_days: float | None) -> Requests:
    """Rows weigh half as much in fitting for every half-life before the newest; NaT as the oldest.

    half_life_days: None leaves the weights as they are.
    """
    known = ~np.isnat(requests.at)
    if half_life_days is None or not known.any():
        return requests
    newest, oldest = requests.at[known].max(), requests.at[known].min()
    age = (newest - np.where(known, requests.at, oldest)) / np.timedelta64(1, "D")
    factor = 0.5 ** (age / half_life_days)
    return replace(requests, weight=requests.weight * factor[:, None])
