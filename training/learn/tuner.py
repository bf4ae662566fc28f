"""A transformer with a sigmoid per tier while it is being fitted, on PyTorch.

The loop is written out, and not left to sentence-transformers' trainer, because the loss leaves out
tiers that were not observed, and because on a CPU two choices halve its time: no dropout inside the
transformer, and attention written out instead of fused. Batches hold prompts of about one length.

What is served is a mean of the weights over the last steps, not those of the last one: each outcome
is one draw, and after two epochs the weights have begun to fit the draws. The mean does so less and
costs nothing to serve (cross-entropy on other rows .5919 → .5792 on MMLU-Pro, .4853 → .4817 on
MMLU).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from training.learn.distill import load_encoder
from training.learn.pooling import pooled

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BATCH: Final = 32
BODY_RATE: Final = 5e-5  # peak learning rates
HEAD_RATE: Final = 1e-3
WARM_UP: Final = 0.06  # of all steps
DECAY: Final = 0.01
MEMORY: Final = 0.3  # of all steps: how far back the mean of the weights reaches
_AVERAGED_EVERY: Final = 5  # steps
_POOL: Final = 50  # batches sorted by length together
_STEP: Final = 16  # lengths are rounded up to multiples: fewer shapes, less memory


@dataclass(frozen=True, slots=True)
class Examples:
    """What is learned from: n prompts and what k tiers made of them.

    Attributes:
        tokens: n rows of token ids, int64[t], with special tokens.
        score: float32[n, k], NaN where a tier was not observed.
        weight: float32[n, k].
        kind: int64[n], of each prompt (`learn.pooling`).
    """

    tokens: Sequence[NDArray[np.int64]]
    score: NDArray[np.float32]
    weight: NDArray[np.float32]
    kind: NDArray[np.int64]

    def taught(self, rows: NDArray[np.int64]) -> "Examples":
        """The same, the scores of int64[m] rows pooled over kinds among themselves."""
        score = self.score.copy()
        known = (self.score[rows].astype(np.float64), self.weight[rows].astype(np.float64))
        score[rows] = pooled(*known, self.kind[rows])
        return replace(self, score=score)


class Tuner:
    """The model, its optimiser, and how far it has come."""

    def __init__(
        self, folder: Path, examples: Examples, rows: NDArray[np.int64], epochs: int, seed: int
    ) -> None:
        """Load the transformer.

        Args:
            folder: of sentence-transformers.
            examples: all prompts.
            rows: int64[m], those that are learned from.
            epochs: after so many the learning rate is 0.
            seed: of the order of the batches.
        """
        import torch
        from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

        self.examples, self.rows, self.seed, self.done = examples, rows, seed, 0
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.body = load_encoder(folder, attn_implementation="eager").to(self.device)
        _without_dropout(self.body)
        score, weight = examples.score[rows], examples.weight[rows]
        seen = ~np.isnan(score)
        share = np.where(seen, weight, 0).sum(axis=0)
        rate = (np.where(seen, score * weight, 0).sum(axis=0) + 1) / (share + 2)
        width = int(self.body.get_embedding_dimension())
        self.head = torch.nn.Linear(width, len(rate)).to(self.device)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.copy_(torch.from_numpy(np.log(rate / (1 - rate)).astype(np.float32)))
        groups = [
            {"params": list(self.body.parameters()), "lr": BODY_RATE},
            {"params": list(self.head.parameters()), "lr": HEAD_RATE},
        ]
        self.optimiser = torch.optim.AdamW(groups, weight_decay=DECAY)
        steps = epochs * ceil(len(rows) / BATCH)
        self.learner = torch.nn.ModuleList([self.body, self.head])
        kept = max(1.0 - _AVERAGED_EVERY / max(MEMORY * steps, 1.0), 0.0)
        self.mean = AveragedModel(self.learner, multi_avg_fn=get_ema_multi_avg_fn(kept))
        warm = max(WARM_UP * steps, 1)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda step: max(min((step + 1) / warm, (steps - step) / steps), 0.0)
        )

    def epoch(self, go_on: Callable[[int, int], bool]) -> None:
        """Learn once from every row, in batches; `go_on(batch, batches)` may end it early."""
        import torch

        self.body.train()
        batches = _batches(self.examples.tokens, self.rows, (self.seed, self.done))
        for number, rows in enumerate(batches):
            if not go_on(number, len(batches)):
                break
            margins = self._forward(self.learner, rows)
            score, weight = (
                torch.from_numpy(values[rows]).to(self.device)
                for values in (self.examples.score, self.examples.weight)
            )
            seen = ~torch.isnan(score)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                margins[seen], score[seen], weight[seen], reduction="sum"
            ) / (weight[seen].sum() + 1e-9)
            self.optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.body.parameters(), 1.0)
            self.optimiser.step()
            self.schedule.step()
            if number % _AVERAGED_EVERY == 0:
                self.mean.update_parameters(self.learner)
        self.done += 1

    def loss(self, rows: NDArray[np.int64]) -> float:
        """Mean cross-entropy on rows int64[m], where tiers were observed; NaN if none was."""
        margins = self.margins(rows)
        score, weight = self.examples.score[rows], self.examples.weight[rows]
        seen = ~np.isnan(score)
        each = np.logaddexp(0, margins[seen]) - score[seen] * margins[seen]
        total = float(weight[seen].sum())
        return float((each * weight[seen]).sum()) / total if total else float("nan")

    def margins(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Margins of rows int64[m] by the mean of the weights, float32[m, k]."""
        import torch

        self.mean.eval()
        found = np.zeros((len(self.examples.tokens), self.head.out_features), dtype=np.float32)
        with torch.inference_mode():
            for part in _batches(self.examples.tokens, rows, None):
                found[part] = self._forward(self.mean.module, part).cpu().numpy()
        return np.asarray(found[rows])

    def whole(self) -> Any:
        """Body and head as one module, by the mean: token ids int64[1, t] → float32[1, k]."""
        import torch

        class Whole(torch.nn.Module):  # type: ignore[misc]
            def __init__(self, body: Any, head: Any) -> None:
                super().__init__()
                self.body, self.head = body, head

            def forward(self, ids: Any) -> Any:
                return self.head(_pooled(self.body, ids, torch.ones_like(ids)))

        return Whole(*self.mean.module.cpu()).eval()

    def save(self, file: Path) -> None:
        """Keep all that `load` needs to go on after this epoch; written beside, then renamed."""
        import torch

        state = {name: getattr(self, name).state_dict() for name in _PARTS} | {"done": self.done}
        beside = file.with_suffix(".part")
        torch.save(state, beside)
        beside.replace(file)

    def load(self, file: Path) -> None:
        """Go on from a file of `save`; nothing but tensors and numbers is read from it."""
        import torch

        state = torch.load(file, weights_only=True, map_location=self.device)
        for name in _PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.done = state["done"]

    def _forward(self, model: Any, rows: NDArray[np.int64]) -> Any:
        import torch

        body, head = model
        tokens = [self.examples.tokens[row] for row in rows]
        length = -(-max(map(len, tokens)) // _STEP) * _STEP
        ids = np.zeros((len(rows), length), dtype=np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(tokens):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        given = (torch.from_numpy(values).to(self.device) for values in (ids, mask))
        with torch.autocast(self.device, torch.bfloat16, enabled=_halves_pay(self.device)):
            pooled = _pooled(body, *given)
        return head(pooled.float())


_PARTS: Final = ("learner", "mean", "optimiser", "schedule")


@cache
def _halves_pay(device: str) -> bool:
    """Whether matrix products of bfloat16 are quicker here than those of float32.

    It is tried: processors that have no instructions for them take some 30 times as long.
    """
    import torch

    def seconds(dtype: torch.dtype) -> float:
        sizes = (256, 384), (384, 1536)
        a, b = (torch.ones(size, dtype=dtype, device=device) for size in sizes)
        taken = []
        for _ in range(4):  # the first one makes ready
            started = perf_counter()
            (a @ b).sum().item()
            taken.append(perf_counter() - started)
        return min(taken[1:])

    return seconds(torch.bfloat16) < seconds(torch.float32)


def _pooled(body: "SentenceTransformer", ids: Any, mask: Any) -> Any:
    """The pooled vector, before any normalising: float32[n, dim]."""
    features = {"input_ids": ids, "attention_mask": mask}
    if "token_type_ids" in body.tokenizer.model_input_names:
        features["token_type_ids"] = ids.new_zeros(ids.shape)
    for part in body:
        if type(part).__name__ != "Normalize":
            features = part(features)
    return features["sentence_embedding"]


def _without_dropout(body: "SentenceTransformer") -> None:
    import torch

    for part in body.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0


def _batches(
    tokens: Sequence[NDArray[np.int64]],
    rows: NDArray[np.int64],
    seed: tuple[int, int] | None,
) -> list[NDArray[np.int64]]:
    """Rows in batches of about one length, shuffled where there is a seed."""
    length = np.array([len(row) for row in tokens])
    if seed is None:
        order = rows[np.argsort(length[rows], kind="stable")]
        return [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    rng = np.random.default_rng(seed)
    order, found = rng.permutation(rows), []
    for start in range(0, len(order), _POOL * BATCH):
        pool = order[start : start + _POOL * BATCH]
        pool = pool[np.argsort(length[pool], kind="stable")]
        found += [pool[i : i + BATCH] for i in range(0, len(pool), BATCH)]
    return [found[i] for i in rng.permutation(len(found))]
