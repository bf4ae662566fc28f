"""Columns in any spelling → the types of the traffic table, with what could not be read.

Each function takes a column (list, array or Series of any dtype) and returns the values and a
boolean array that is true where a value could not be read.
"""

import json
import re
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from training.log.messages import canonical_messages, clean, python_list

Column = Sequence[Any] | npt.NDArray[Any] | pd.Series
Bools = npt.NDArray[np.bool_]

NOTHING = frozenset({"", "nan", "null", "none", "na", "n/a", "\\n", "<na>"})
NULLS = frozenset({"null", "NULL", "None", "nan", "NaN", "<NA>", "\\N"})  # as programs write them
NO_ERROR = frozenset({"false", "0", "{}", "[]"})
TRUTH = {"true": 1.0, "false": 0.0}
EARLIEST, LATEST = 1e14, 7.3e15  # microseconds: 1973 to 2201, so 20261102 and its like are no epoch
EPOCH = re.compile(r"-?\d{9,19}(\.\d*)?")
OK = frozenset({"ok", "success", "succeeded", "completed", "complete", "200", "true"})
FAILED = frozenset({"error", "failure", "failed", "fail", "exception", "timeout", "false"})


def numbers(values: Column) -> tuple[npt.NDArray[np.float64], Bools]:
    """float64[n], NaN where there is none; numbers, decimals, booleans and their text are read."""
    array = _array(values)
    if array.dtype.kind in "fiub":
        return array.astype(np.float64), np.zeros(len(array), bool)
    read = np.empty(len(array))
    bad = np.zeros(len(array), bool)
    for row, value in enumerate(array.tolist()):
        try:
            read[row] = _number(value)
        except (ValueError, OverflowError, TypeError):
            read[row], bad[row] = np.nan, True
    return read, bad


def _number(value: Any) -> float:
    if value is None or value is pd.NA:
        return float("nan")
    if isinstance(value, str):
        text = value.strip().lower()
        if text in NOTHING:
            return float("nan")
        return TRUTH[text] if text in TRUTH else float(text.replace("_", "?"))
    if isinstance(value, float | int | Decimal | np.generic):
        return float(value)
    raise TypeError


def times(values: Column) -> tuple[pd.Series, Bools]:
    """datetime64[us, UTC]; ISO 8601 with or without zone (then UTC), or epoch s, ms, us or ns.

    A number is an epoch if it is of 1973 to 2201 in one of these units; 0 is unknown.
    """
    try:
        series = pd.Series(values)
    except UnicodeEncodeError:  # a lone surrogate, which pandas' texts do not hold
        series = pd.Series(values, dtype=object)
    if isinstance(series.dtype, pd.DatetimeTZDtype) or series.dtype.kind == "M":
        return _utc(series), np.zeros(len(series), bool)
    array = _array(values)
    if array.dtype.kind in "fiub":
        epoch = array.astype(np.float64)
        texts: npt.NDArray[Any] = np.full(len(array), None, object)
    else:
        cells = [_time_cell(value) for value in array.tolist()]
        epoch = np.array([number for number, _ in cells], np.float64)
        texts = _array([text for _, text in cells])
    stamps = np.full(len(array), "NaT", "datetime64[us]")
    given = pd.notna(texts)
    if given.any():
        spelled = pd.Series(texts[given], dtype=object)
        parsed = pd.to_datetime(spelled, utc=True, format="ISO8601", errors="coerce")
        stamps[given] = _utc(parsed).dt.tz_localize(None).to_numpy()
    epoch[epoch == 0] = np.nan
    micros = _micros(epoch)
    timed = (micros >= EARLIEST) & (micros < LATEST)
    stamps[timed] = micros[timed].astype(np.int64).view("datetime64[us]")
    bad = (given | ~np.isnan(epoch)) & np.isnat(stamps)
    return pd.Series(stamps).dt.tz_localize("UTC"), bad


def _time_cell(value: Any) -> tuple[float, Any]:
    """A cell as (epoch number, NaN) or (NaN, something that pandas parses)."""
    if isinstance(value, str):
        text = clean(value.strip())
        if text.lower() in NOTHING:
            return np.nan, None
        text = text.removesuffix(" UTC").replace(",", ".")  # as BigQuery and Python's logging write
        return (float(text), None) if EPOCH.fullmatch(text) else (np.nan, text)
    if value is None or value is pd.NaT or value is pd.NA:
        return np.nan, None
    if isinstance(value, date):
        return np.nan, value
    number = isinstance(value, int | float | Decimal | np.number) and not isinstance(value, bool)
    try:
        return (float(value), None) if number else (np.nan, "no time")
    except OverflowError:
        return np.inf, None


def _micros(epoch: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Epoch numbers → microseconds; the unit shows in the size (seconds until the year 5138)."""
    size = np.abs(epoch)
    factor = np.select([size < 1e11, size < 1e14, size < 1e17], [1e6, 1e3, 1.0], 1e-3)
    return np.round(epoch * factor)


def _utc(series: pd.Series) -> pd.Series:
    series = series.dt.tz_localize("UTC") if series.dt.tz is None else series.dt.tz_convert("UTC")
    return series.dt.as_unit("us")


def texts(values: Column, empty: str | None) -> tuple[npt.NDArray[Any], Bools]:
    """object[n] of str or None; numbers and objects become their (JSON) text.

    `empty` is what empty text becomes. Where that is None, words for a null (`NULLS`) become None,
    too. Lone surrogates are replaced.
    """
    read = np.empty(len(values), object)
    read[:] = [_text(value, empty) for value in values]
    return read, np.zeros(len(values), bool)


def _text(value: Any, empty: str | None) -> str | None:
    if isinstance(value, str):
        return empty if not value or (empty is None and value in NULLS) else clean(value)
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace") or empty
    if isinstance(value, dict | list):
        return clean(json.dumps(value, ensure_ascii=False, default=str))
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return f"{value:.0f}"  # whole numbers become floats where a null stands among them
    return str(value)


def tags(values: Column) -> tuple[npt.NDArray[Any], Bools]:
    """object[n] of lists of str; text is a JSON list, or tags joined with `|`."""
    read = np.empty(len(values), object)
    bad = np.zeros(len(values), bool)
    for row, value in enumerate(values):
        found = _tags(value)
        read[row], bad[row] = ([], True) if found is None else (found, False)
    return read, bad


def _tags(value: Any) -> list[str] | None:
    if isinstance(value, str):
        if value.lstrip()[:1] == "[":
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                value = python_list(value) or [value]
        else:
            return [clean(tag) for part in value.split("|") if (tag := part.strip())]
    if hasattr(value, "tolist") and not np.isscalar(value):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [text for tag in value if (text := _text(tag, None)) is not None]
    return [] if pd.api.types.is_scalar(value) and pd.isna(value) else None


def statuses(values: Column) -> tuple[npt.NDArray[Any], Bools]:
    """object[n] of "ok", "error" or None, from the usual words for them."""
    words, _ = texts(values, None)
    known = {**dict.fromkeys(OK, "ok"), **dict.fromkeys(FAILED, "error")}
    read = np.empty(len(words), object)
    read[:] = [None if word is None else known.get(word.strip().lower()) for word in words]
    return read, pd.isna(read) & ~pd.isna(words)


def errors(values: Column) -> tuple[npt.NDArray[Any], Bools]:
    """object[n] of str or None: what failed; a flag that says no (false, 0) is no error."""
    read, bad = texts(values, None)
    fine = [text is not None and text.strip().lower() in NO_ERROR for text in read]
    read[fine] = None
    return read, bad


def messages(values: Column) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Canonical JSON texts (None where bad), and object[n] of reasons, None where readable."""
    read = np.full(len(values), None, object)
    reasons = np.full(len(values), None, object)
    for row, value in enumerate(values):
        try:
            read[row] = canonical_messages(value)
        except (ValueError, RecursionError, TypeError) as error:
            reasons[row] = str(error)
    return read, reasons


def _array(values: Column) -> npt.NDArray[Any]:
    """A plain array: float64 for numbers with or without gaps, else object."""
    if isinstance(values, pd.Series):
        if pd.api.types.is_numeric_dtype(values.dtype) and values.dtype != object:
            return values.to_numpy(np.float64, na_value=np.nan)
        return values.astype(object).where(values.notna(), None).to_numpy(object)
    if isinstance(values, np.ndarray):
        return values
    array = np.empty(len(values), object)
    array[:] = values
    return array
