"""Hashes of a log: whether two are the same, in whatever order their rows are."""

import hashlib
from collections.abc import Iterable

import numpy as np

from training.log.imprint import Imprint
from training.log.requests import Requests


def fingerprint(requests: Requests) -> str:
    """Hash of ids and scores, whatever their order: the same log gives the same fingerprint."""
    rows = zip(requests.ids, requests.score, strict=True)
    return _added(str(name).encode() + scores.tobytes() for name, scores in rows)


def contents(requests: Requests) -> str:
    """Hash of all that is learned from, whatever its order: also of what is not an id or a score.

    Propensities, bills, weights of labels and prompts may be mended under the same ids.
    """
    numbers = np.hstack(
        [
            requests.score,
            requests.propensity,
            requests.label_weight,
            requests.input_tokens,
            requests.output_tokens,
            requests.cost_usd,
            requests.sample_probability[:, None],
            requests.signal,
        ]
    )
    at = requests.at.astype(np.int64).tolist()
    words = zip(requests.ids, at, requests.session, requests.source, requests.tags, strict=True)
    rows = zip(words, requests.prompts, numbers, strict=True)
    return _added(
        repr((*word, prompt.same if isinstance(prompt, Imprint) else prompt)).encode()
        + number.tobytes()
        for word, prompt, number in rows
    )


def _added(rows: Iterable[bytes]) -> str:
    """Hash of rows in any order, 32 hex digits."""
    total = 0
    for row in rows:
        total += int.from_bytes(hashlib.sha256(row).digest()[:16], "big")
    return f"{total % (1 << 128):032x}"
