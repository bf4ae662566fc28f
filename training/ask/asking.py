"""Asking many calls: so many at a time, within a budget, each written down, failures tried again.

The one place that retries. A call that waits for its next attempt holds no place in line, so an
upstream that fails 5 % of the calls costs their repetition and nothing else.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from training.ask.answer import Answer, TryAgain
from training.ask.budget import Budget
from training.ask.calls import Call
from training.ask.client import Client
from training.ask.journal import ANSWERED, ASKED, FAILED, Journal
from training.console import say
from training.errors import EnvironmentProblem, SufficeError

ATTEMPTS = 6
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds; random in a range that doubles
OPEN_PER_PLACE = 4  # calls begun and waiting for an attempt, per place of the concurrency
HOPELESS = 5  # failed attempts in a row, per place, without a single answer: the upstream is gone
PROGRESS = 10.0  # seconds between lines


Follow = Callable[[Call, str], Call | None]  # the call that an answer asks for, if any


@dataclass(slots=True)
class Tally:
    """What a run did: calls answered, failed for good, known from an earlier run, not finished.

    `again` counts attempts beyond a call's first, `in_flight` calls that a killed run may have paid
    for and that were asked for again. `stopped` says in words why calls were left unasked.
    """

    answered: int = 0
    failed: int = 0
    known: int = 0
    left: int = 0
    again: int = 0
    in_flight: int = 0
    usd: float = 0.0
    stopped: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


async def ask_all(
    calls: Sequence[Call],
    client: Client,
    journal: Journal,
    limit: float,
    concurrency: int,
    follow: Follow,
) -> tuple[Tally, SufficeError | None]:
    """Ask every call that the journal does not answer; answers and failures go to the journal.

    `limit` is USD over all runs of this journal. SIGINT and SIGTERM end the run in order: calls
    under way are paid for, so they are waited for and kept.

    Returns:
        What was done, and why the run had to be given up, if so: EnvironmentProblem (the upstream
        is out of reach or refuses the key) or BadInput (the provider has no such model).
    """
    calls = list({call.key: call for call in calls}.values())  # what is said alike is asked once
    todo = [call for first in calls if (call := unasked(first, journal, follow))]
    tally = Tally(in_flight=len(journal.in_flight), known=len(calls) - len(todo), left=len(todo))
    run = _Run(client, journal, Budget(limit, journal.spent), tally, concurrency, follow)
    queue = iter(todo)
    async with _interruptible(run.halt), _progress(tally, len(todo)):
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(OPEN_PER_PLACE * concurrency, len(todo))):
                    group.create_task(run.work(queue))
        except BaseExceptionGroup as group_of:
            raise group_of.exceptions[0] from None
        finally:
            await client.close()
    tally.usd = journal.spent
    if run.last and not tally.answered and tally.failed == len(todo):
        run.give_up()
    return tally, run.fatal


def unasked(call: Call, journal: Journal, follow: Follow) -> Call | None:
    """The first call of a chain that has no answer yet: the call, what follows from it, …"""
    link: Call | None = call
    while link is not None and (record := journal.answered.get(link.key)):
        link = follow(link, record["text"])
    return link


class _Halted(Exception):
    """The run ends before this attempt."""


class _Run:
    """What the workers of one run share."""

    def __init__(
        self,
        client: Client,
        journal: Journal,
        budget: Budget,
        tally: Tally,
        concurrency: int,
        follow: Follow,
    ) -> None:
        self.follow = follow
        self.client, self.journal, self.budget, self.tally = client, journal, budget, tally
        self.places = asyncio.Semaphore(concurrency)
        self.halted = asyncio.Event()
        self.fatal: SufficeError | None = None
        self.last: TryAgain | None = None
        self._hopeless, self._in_a_row = HOPELESS * concurrency, 0

    def halt(self, why: str) -> None:
        """Begin no call and repeat none; those under way come to their end."""
        self.tally.stopped = self.tally.stopped or why
        self.halted.set()

    def give_up(self) -> None:
        """Halt, as the upstream answers nothing that can be used."""
        assert self.last is not None
        how = "answers with failures only" if self.last.answered else "is out of reach"
        told = f"the upstream {how}: {self.last}. Run the same command again when it is back"
        self._fail(EnvironmentProblem(told))

    async def work(self, queue: Iterator[Call]) -> None:
        """Take calls, and what follows from them, from the common queue until the run stops."""
        for first in queue:
            call: Call | None = first
            while call is not None:
                if self.tally.stopped or not await self._within_budget(call):
                    return
                call = unasked(call, self.journal, self.follow)
                if call is not None and call.key in self.journal.failed:
                    break
            self.tally.left -= 1

    async def _within_budget(self, call: Call) -> bool:
        """Ask a call if the budget holds it; whether the run goes on."""
        reserved = await self.budget.reserve(call.tier.name, call.usd)
        if reserved is None:
            self.tally.stopped = f"the budget of ${self.budget.limit:g} is used up"
            return False
        billed: float | None = None
        try:
            billed = await self._ask(call, reserved)
        finally:
            await self.budget.settle(call.tier.name, reserved, billed or 0.0)
        return billed is not None

    async def _ask(self, call: Call, reserved: float) -> float | None:
        """Ask one call, with its repetitions; what it cost in USD, None if it was not begun."""
        at_risk, begun = 0.0, False
        try:
            async for attempt in AsyncRetrying(
                stop=stop_after_attempt(ATTEMPTS),
                wait=_wait,
                sleep=self._sleep,
                retry=retry_if_exception_type(TryAgain),
                reraise=True,
            ):
                with attempt:
                    async with self.places:
                        if self.halted.is_set():
                            raise _Halted
                        if not begun:
                            self._begin(call, reserved)
                        self.tally.again += begun
                        begun = True
                        try:
                            answer = await self._attempt(call)
                        except TryAgain as error:
                            at_risk += call.usd * error.maybe_paid
                            raise
        except TryAgain as error:
            answer = Answer(error=f"after {ATTEMPTS} attempts: {error}")
        except _Halted:
            answer = Answer(error="the run was stopped before the next attempt")
        except SufficeError as error:
            self._fail(error)
            answer = Answer(error=str(error))
        return await self._end(call, answer, at_risk) if begun else None

    def _begin(self, call: Call, reserved: float) -> None:
        known = {"key": call.key, "request_id": call.request_id, "tier": call.tier.name}
        self.journal.note(
            {"kind": ASKED, **known, "model": call.tier.model, "usd": reserved, **call.facts}
        )

    async def _end(self, call: Call, answer: Answer, at_risk: float) -> float:
        billed = call.price(answer) + at_risk
        kind = FAILED if answer.error else ANSWERED
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        record = {"kind": kind, "key": call.key, "usd": billed, "at": now, **asdict(answer)}
        await self.journal.write(record)
        self.tally.failed += kind == FAILED
        self.tally.answered += kind == ANSWERED
        return billed

    async def _attempt(self, call: Call) -> Answer:
        try:
            answer = await self.client.ask(
                call.tier.model, call.messages, call.max_tokens, call.key
            )
        except TryAgain as error:
            self.last = error
            self._in_a_row += 1
            if self._in_a_row >= self._hopeless:
                self.give_up()
            raise
        self._in_a_row = 0
        return answer

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.halted.wait(), seconds)

    def _fail(self, error: SufficeError) -> None:
        self.fatal = self.fatal or error
        self.halt(str(error))


def _wait(state: RetryCallState) -> float:
    """Seconds until the next attempt: what the provider asks for, else a random, doubling range."""
    error = state.outcome.exception() if state.outcome else None
    drawn = wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT)(state)
    asked = error.after if isinstance(error, TryAgain) and error.after is not None else 0.0
    return max(drawn, min(asked, 2 * LONGEST_WAIT))


@asynccontextmanager
async def _interruptible(halt: Callable[[str], None]) -> AsyncIterator[None]:
    """SIGINT and SIGTERM stop in order; a second one ends the process as it would have."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def interrupt(name: str) -> None:
        for number in signals:
            loop.remove_signal_handler(number)
        halt(f"interrupted by {name}")
        say(f"{name}: waiting for the calls under way")

    try:
        for number in signals:
            loop.add_signal_handler(number, interrupt, number.name)
    except (ValueError, RuntimeError, NotImplementedError):
        pass  # not the main thread: whoever owns it handles signals
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


@asynccontextmanager
async def _progress(tally: Tally, total: int) -> AsyncIterator[None]:
    async def tell() -> None:
        while True:
            await asyncio.sleep(PROGRESS)
            done = total - tally.left  # what follows from an answer is not known before
            say(f"{done} of {total} done by {tally.answered} calls; {tally.failed} failed")

    telling = asyncio.create_task(tell())
    try:
        yield
    finally:
        telling.cancel()
