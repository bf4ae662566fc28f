"""What the boosted trees look at: gain in training, contributions on the requests of the page."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.features import NAMES
from router.head import Head
from router.predictor import Predictor
from router.vectorizer import SURFACE
from training.learn.flatten import Growth, restore_booster
from training.show.words import percent, plain

NAMED = 12  # surface features that are shown
MEANING, WORDING = "meaning: the embedding", "wording: n-grams"


def importance(
    predictor: Predictor, arrays: Mapping[str, NDArray[Any]], dense: NDArray[np.float32]
) -> dict[str, Any] | None:
    """Features by tier, those that move the requests `dense` (float32[n, dim]) most first.

    Contributions are LightGBM's own `pred_contrib` (path-dependent SHAP, Lundberg et al. 2018,
    arXiv:1802.03888) of a booster restored from the artifact; those of the embedding's columns, and
    of the n-grams', are added up before their size is taken. None where the artifact, made by an
    older version, does not hold how its trees grew.
    """
    if any(f"{k}.reference.gain" not in arrays for k in predictor.learned):
        return None
    gains, moves = [], []
    for k in predictor.learned:
        head = predictor.heads[k]
        assert isinstance(head, Head)
        growth = Growth(arrays[f"{k}.reference.rows"], arrays[f"{k}.reference.gain"])
        booster = restore_booster(head.forest, growth, dense.shape[1])
        shap = np.asarray(booster.predict(dense, pred_contrib=True))[:, :-1]
        gain = np.zeros(dense.shape[1])
        np.add.at(gain, head.forest.feature, growth.gain)
        gains.append(_grouped(gain[None], predictor)[0] / max(gain.sum(), 1e-12))
        moves.append(np.abs(_grouped(shap, predictor)).mean(axis=0))
    return {
        "tiers": [predictor.tiers[k].name for k in predictor.learned],
        "rows": list(_rows(np.array(gains), np.array(moves))),
    }


def _grouped(columns: NDArray[np.float64], predictor: Predictor) -> NDArray[np.float64]:
    """Surface features, then the embedding's sum and the n-grams' sum: float64[n, SURFACE + 2]."""
    end = SURFACE + predictor.vectorizer.embedder.dim
    parts = (columns[:, SURFACE:end], columns[:, end:])
    sums = [part.sum(axis=1, keepdims=True) for part in parts]
    return np.concatenate([columns[:, :SURFACE], *sums], axis=1)


def _rows(gains: NDArray[np.float64], moves: NDArray[np.float64]) -> list[dict[str, Any]]:
    """gains, moves: float64[tiers, SURFACE + 2]."""
    names = [*(_plain(name) for name in NAMES), MEANING, WORDING]
    order = np.argsort(-moves.sum(axis=0), kind="stable")
    groups = (SURFACE, SURFACE + 1)
    named = [i for i in order if i < SURFACE][:NAMED]
    widest = 100 / np.maximum(np.array([gains.max(), moves.max()]), 1e-12)
    return [
        {
            "name": names[i],
            "group": i in groups,
            "cells": [
                {
                    "gain": f"{widest[0] * gain:.1f}",
                    "gain_words": percent(float(gain), 0),
                    "shap": f"{widest[1] * move:.1f}",
                    "shap_words": plain(float(move), 2),
                }
                for gain, move in zip(gains[:, i], moves[:, i], strict=True)
            ],
        }
        for i in sorted([*groups, *named], key=lambda i: order.tolist().index(i))
    ]


def _plain(name: str) -> str:
    """A feature's name in words."""
    words = name.removeprefix("share_") if name.startswith("share_") else name
    words = words.removeprefix("log_").replace("_", " ")
    return f"share of {words}" if name.startswith("share_") else words
