"""What a prompt's parts add to each tier's log-odds, exactly: they add up to the router's margin.

Linear and n-gram parts are weight × (value − average value). The forest's are path-dependent SHAP
values (Lundberg et al. 2018, arXiv:1802.03888), computed by LightGBM itself on a booster restored
from the artifact. The neighbours are one part, and so is a fine-tuned encoder. How members are
combined is linear, so parts combine as margins do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.features import NAMES
from router.head import MEMBERS, Blend, Head
from router.predictor import Predictor
from router.vectorizer import SURFACE, Vector
from training.learn.flatten import restore_booster
from training.learn.reference import Reference

SURFACE_GROUPS = {
    "length": ("log_chars", "log_text_chars", "log_words", "mean_word_chars", "log_lines",
               "longest_word", "share_space"),
    "numbers and maths": ("log_numbers", "share_digit", "share_maths"),
    "code": ("share_code", "code_fences", "blanks"),
    "form of the question": ("log_question_marks", "opens_as_question", "ends_as_question",
                             "options", "quotes", "share_punctuation"),
    "language and script": ("share_lower", "share_upper", "share_accented", "share_greek_cyrillic",
                            "share_hebrew_arabic", "share_indic", "share_cjk",
                            "share_kana_hangul", "share_emoji", "share_other", "english_words",
                            "european_words"),
    "conversation": ("log_system_chars", "turns", "images", "tools"),
}  # fmt: skip
MEANING, WORDING, NEIGHBOURS = "meaning", "wording", "similar prompts"
READ = "reading as a whole"  # what the fine-tuned encoder says
GROUPS = (*SURFACE_GROUPS, MEANING, WORDING, NEIGHBOURS, READ)
LINEAR, FOREST, NEAR, ENCODER = range(len(MEMBERS))


@dataclass(frozen=True, slots=True)
class Contributions:
    """Log-odds of one prompt, against a reference.

    Columns are those of the dense vector, then all n-gram terms of the linear member, then the
    neighbours, then the encoder. Tiers are the learned ones only; members those of the blend.

    Attributes:
        base: float64[tiers], the combined margin of the reference.
        parts: float64[members, columns, tiers], already weighted by the blend.
        groups: text[columns], which of GROUPS a column belongs to.
        terms: float64[m, tiers], of each known n-gram in the order of the vector's terms; not
            compared with an average, as a term that is absent adds nothing.
    """

    base: NDArray[np.float64]
    parts: NDArray[np.float64]
    groups: NDArray[np.str_]
    terms: NDArray[np.float64]

    @property
    def margin(self) -> NDArray[np.float64]:
        """float64[tiers], what the router's calibration gets."""
        return np.asarray(self.base + self.parts.sum(axis=(0, 1)))

    @property
    def columns(self) -> NDArray[np.float64]:
        """float64[columns, tiers], all members together."""
        return np.asarray(self.parts.sum(axis=0))

    @property
    def by_group(self) -> dict[str, NDArray[np.float64]]:
        """{group: float64[members, tiers]}."""
        named = GROUPS if len(self.parts) > ENCODER else GROUPS[: GROUPS.index(READ)]
        return {name: self.parts[:, self.groups == name].sum(axis=1) for name in named}


def contribute(
    predictor: Predictor, references: Sequence[Reference], vector: Vector
) -> Contributions:
    """Split a prompt's margins into its parts; needs at least one learned head."""
    heads = [head for head in predictor.heads if isinstance(head, Head)]
    dim, tiers = len(vector.dense), len(heads)
    members = len(predictor.blend.level)
    base = np.zeros((members, tiers))
    parts = np.zeros((members, dim + 3, tiers))
    terms = np.zeros((members, len(vector.terms), tiers))
    for j, (head, reference) in enumerate(zip(heads, references, strict=True)):
        linear = head.linear
        inside = np.clip(vector.dense, linear.low, linear.high).astype(np.float64)
        parts[LINEAR, :dim, j] = (inside - reference.dense) * linear.weights
        terms[LINEAR, :, j] = vector.weights * linear.terms[vector.terms]
        parts[LINEAR, dim, j] = terms[LINEAR, :, j].sum() - reference.terms
        base[LINEAR, j] = linear.bias + reference.dense @ linear.weights + reference.terms
        booster = restore_booster(head.forest, reference.growth, dim)
        shap = np.asarray(booster.predict(vector.dense[None], pred_contrib=True))[0]
        parts[FOREST, :dim, j], base[FOREST, j] = shap[:-1], shap[-1]
        base[NEAR, j] = reference.near
    parts[NEAR, dim + 1] = predictor.neighbours.margins(vector.dense) - base[NEAR]
    if members > ENCODER:
        base[ENCODER] = [reference.read for reference in references]
        parts[ENCODER, dim + 2] = vector.read - base[ENCODER]
    blend = predictor.blend
    single = [Blend(blend.level * one, blend.gap * one) for one in np.eye(members)]
    return Contributions(
        base=blend.combine(base),
        parts=np.stack([member.combine(parts) for member in single]),
        groups=_groups(predictor),
        terms=blend.combine(terms),
    )


def _groups(predictor: Predictor) -> NDArray[np.str_]:
    group_of = {name: group for group, names in SURFACE_GROUPS.items() for name in names}
    reduced = predictor.vectorizer.ngrams.dim
    embedded = predictor.vectorizer.dim - SURFACE - reduced
    surface = [group_of[name] for name in NAMES]
    learned = [MEANING] * embedded + [WORDING] * reduced
    return np.array([*surface, *learned, WORDING, NEIGHBOURS, READ])
