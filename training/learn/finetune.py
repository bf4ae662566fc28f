"""A transformer fine-tuned on the log, as one more member of every head.

The fit rows are divided once, whole groups together: seven tenths are learned from, one tenth says
after which epoch to stop, two tenths say how much the encoder counts beside the other members, and
calibrate. Then the transformer learns from all fit rows for as many epochs; that one is exported,
with int8 weights, and served. Choose and test rows are not looked at.

What is under way is kept after each epoch in the cache (`training.learn.memory`), under a hash of
the model, the rows and the seed: a job that was killed goes on there, and one that is run again on
the same rows finds the encoder made. Of two jobs on the same rows at once one waits for the other.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path
from time import monotonic
from typing import Any, Final

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit

from router.embedder import cut_tokens
from router.onnx_embedder import framing
from router.prompt import Prompt
from training.console import say, step
from training.errors import BadInput
from training.golden import golden_prompts
from training.learn import encoder
from training.learn.distill import load_encoder, model_identity, tokenizer_of
from training.learn.heads import sort_tiers
from training.learn.memory import Remembering, cache_folder
from training.learn.pooling import kinds
from training.learn.tuner import Examples, Tuner
from training.learn.vectorize import texts_of
from training.log.requests import Requests

VERSION: Final = 4  # of the method; another one makes caches void
MAX_TOKENS: Final = 192  # of a prompt; of longer ones head and tail are read
EPOCHS: Final = 2
BLEND, STOP = 0.2, 0.125  # of the fit rows; of those that are left
MIN_ROWS: Final = 300
MIN_CORRELATION: Final = 0.98  # of margins with int8 weights and with the original ones


@dataclass(frozen=True, slots=True)
class Tuning:
    """What --finetune may be told: its limit in minutes, None for none."""

    max_minutes: float | None = None


@dataclass(frozen=True, slots=True)
class Tuned:
    """A fine-tuned encoder, and what it says.

    Attributes:
        encoder: as it will be served; its "vector" is a margin per learned tier.
        read: float32[n, learned tiers], margins of all requests; NaN where it learned from them.
        notes: in words.
    """

    encoder: Remembering
    read: NDArray[np.float32]
    notes: tuple[str, ...]


class Clock:
    """How long fine-tuning has taken, and may take."""

    def __init__(self, minutes: float | None) -> None:
        """Start; None: there is no limit."""
        self._started, self.limit = monotonic(), None if minutes is None else 60.0 * minutes

    @property
    def seconds(self) -> float:
        """Since the start."""
        return monotonic() - self._started

    def resume(self, seconds: float) -> None:
        """Go on as if so much time had been taken, also where its work was found in the cache."""
        self._started = monotonic() - seconds

    def allows(self, seconds: float) -> bool:
        """Whether so much more is within the limit."""
        return self.limit is None or self.seconds + seconds <= self.limit


def finetune(
    folder: Path,
    requests: Requests,
    fit: NDArray[np.int64],
    group: NDArray[np.int64],
    names: tuple[str, ...],
    seed: int,
    max_minutes: float | None,
) -> Tuned:
    """Fine-tune a transformer on the fit rows.

    Args:
        folder: of sentence-transformers, beginning with a transformer.
        requests: all n of them.
        fit: int64[m], the rows that may be learned from.
        group: int64[n], rows that stay together.
        names: the tiers' names.
        seed: of the division and the order of the batches.
        max_minutes: limit for all of it but the export, None for none; what does not fit in is
            left out, and a note says so.

    Raises:
        BadInput: too few rows, or the model cannot be fine-tuned or exported.
        EnvironmentProblem: the extra `encoders` is not installed.
    """
    encoder.need("onnx", "onnxruntime", "torch")
    if len(fit) < MIN_ROWS:
        raise BadInput(f"--finetune needs {MIN_ROWS} fit rows, there are {len(fit)}: leave it out")
    prompts = texts_of(list(requests.prompts), "--finetune")
    learned, _, _ = sort_tiers(requests.score[fit], names)
    examples = _examples(folder, prompts, requests, learned)
    learn, stop, blend = _divide(fit, group[fit], seed)
    key = _key(folder, examples, (learn, stop, blend), (seed, max_minutes))
    home = cache_folder() / "finetuned" / key
    clock = Clock(max_minutes)
    first, last = home / "first", home / "last"
    made = _made(first, lambda: _learn(folder, examples, learn, seed, first, clock, EPOCHS, stop))
    epochs = made["epochs"]
    clock.resume(made["seconds"])
    notes = [f"encoder fine-tuned on {len(learn)} rows, {epochs} epochs"]
    in_time = clock.allows(clock.seconds * len(fit) / len(learn))
    if in_time and _made(
        last, lambda: _learn(folder, examples, fit, seed, last, clock, epochs, None)
    ):
        notes.append(f"then on all {len(fit)} fit rows")
    else:
        notes.append(f"--max-minutes left no time to fit it on all {len(fit)}")
        last = first
    read = np.full((len(requests), len(learned)), np.nan, dtype=np.float32)
    held, served = (Remembering(encoder.load_export(made)) for made in (first, last))
    others = np.setdiff1d(np.arange(len(requests)), fit)
    for rows, reader in ((blend, held), (others, served)):
        texts = [prompts[row].text for row in rows]
        reader.fill(texts)
        read[rows] = [reader.embed(cut_tokens(reader.tokenize(text))) for text in texts]
    return Tuned(served, read, (", ".join(notes),))


def _made(out: Path, learn: Callable[[], None]) -> dict[str, Any]:
    """What is said of the encoder in `out`, {} where there is none; `learn` makes it, once."""
    facts = out / "embedder.json"
    if not facts.is_file():
        out.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{out}.lock"):
            if not facts.is_file():  # by the job that held the lock
                learn()
    return json.loads(facts.read_text(encoding="utf-8")) if facts.is_file() else {}


def _learn(
    folder: Path,
    examples: Examples,
    rows: NDArray[np.int64],
    seed: int,
    out: Path,
    clock: Clock,
    epochs: int,
    stop: NDArray[np.int64] | None,
) -> None:
    """Learn from rows and export to `out`.

    With `stop` rows, the epoch that serves them best; without, `epochs`, at the learning rates that
    EPOCHS would have, or nothing where the time ends before.
    """
    tuner = Tuner(folder, examples.taught(rows), rows, EPOCHS, seed)

    def kept(epoch: int) -> Path:
        return out.parent / f"{out.name}-{epoch}.pt"

    losses = {}
    for epoch in range(1, epochs + 1):
        before = clock.seconds
        if kept(epoch).is_file():
            tuner.load(kept(epoch))
        else:
            with step(f"fine-tuning on {len(rows)} rows, epoch {epoch} of {epochs}"):
                tuner.epoch(lambda batch, batches: _tell(batch, batches, clock))
            tuner.save(kept(epoch))
        if stop is None:
            continue
        losses[epoch] = tuner.loss(stop)
        say(f"  cross-entropy of the {len(stop)} rows kept for stopping: {losses[epoch]:.4f}")
        if losses[epoch] > min(losses.values()) or not clock.allows(2.5 * (clock.seconds - before)):
            break
    best = min(losses, key=losses.__getitem__) if losses else tuner.done
    if best != tuner.done:
        tuner.load(kept(best))
    if stop is not None or clock.allows(0):  # half a schedule is not what was weighed
        _export(tuner, folder, out, {"epochs": best, "seconds": clock.seconds})
    for file in out.parent.glob(f"{out.name}-*.pt"):
        file.unlink()


def _tell(batch: int, batches: int, clock: Clock) -> bool:
    """Say how far an epoch is, every tenth of it; whether there is time to go on."""
    if batch and batch * 10 // batches != (batch - 1) * 10 // batches:
        say(f"  {batch} of {batches} batches, {clock.seconds:.0f} s")
    return clock.allows(0)


def _export(tuner: Tuner, folder: Path, out: Path, took: dict[str, float]) -> None:
    """Write the folder that `training.learn.encoder.load_export` reads."""
    tokenizer = tokenizer_of(tuner.body, folder)
    prompts = [prompt.text for prompt in golden_prompts()]
    whole = tuner.whole()
    beside = out.with_name(f".{out.name}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    with step("exporting the encoder"):
        encoder.write_graph(whole, beside)
        tokenizer.save(str(beside / "tokenizer.json"), pretty=False)
        facts = encoder.describe(folder, beside, MAX_TOKENS) | took
        (beside / "embedder.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        made = encoder.load_export(beside)
        ours, theirs = encoder.both(made, whole, prompts)
        known = theirs.any(axis=1)
        same = np.corrcoef(ours[known].ravel(), theirs[known].ravel())[0, 1]
        say(f"  int8 keeps a correlation of {same:.4f} with the original margins")
        if not same >= MIN_CORRELATION:
            raise BadInput(
                f"{folder}: with int8 weights the fine-tuned encoder's margins correlate by "
                f"{same:.3f} with the original ones (needed: {MIN_CORRELATION}); another model may "
                "lose less"
            )
        beside.rename(out)


def _examples(
    folder: Path, prompts: list[Prompt], requests: Requests, learned: list[int]
) -> Examples:
    tokenizer = tokenizer_of(load_encoder(folder), folder)
    before, after = framing(tokenizer)
    room = MAX_TOKENS - len(before) - len(after)
    found = tokenizer.encode_batch([p.text for p in prompts], add_special_tokens=False)
    tokens = [
        np.concatenate([before, cut_tokens(np.array(one.ids, dtype=np.int64), room), after])
        for one in found
    ]
    score, weight = (
        values[:, learned].astype(np.float32) for values in (requests.score, requests.weight)
    )
    return Examples(tokens, score, weight, kinds(requests.source, requests.tags))


def _divide(
    fit: NDArray[np.int64], group: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows to learn from, to stop by, to blend by."""
    parts = []
    for share in (BLEND, STOP):
        splitter = GroupShuffleSplit(1, test_size=share, random_state=seed)
        kept, taken = next(splitter.split(fit, groups=group))
        parts.append(fit[taken])
        fit, group = fit[kept], group[kept]
    blend, stop = parts
    return fit, stop, blend


def _key(
    folder: Path,
    examples: Examples,
    parts: tuple[NDArray[np.int64], ...],
    told: tuple[int, float | None],
) -> str:
    """Hash of all that the result depends on: a limit, too, may have cut it short."""
    digest = sha256(f"{VERSION} {MAX_TOKENS} {EPOCHS} {told} {model_identity(folder)}".encode())
    for row in examples.tokens:
        digest.update(blake2b(row.tobytes()).digest())
    for values in (examples.score, examples.weight, examples.kind, *parts):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:24]
