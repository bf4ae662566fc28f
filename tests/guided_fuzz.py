"""Fuzzing of `Router.route` that looks for new paths through the code (atheris, libFuzzer).

    python -m tests.guided_fuzz ARTIFACT -runs=100000 -seed=1

Ends with an error at the first request that raises, or that is answered by no tier. What is drawn
is the bytes' own: the same ones give the same request again, so that a finding can be kept.
"""

import sys
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["router"]):
    from dataclasses import replace

    from router import DecisionLog, Exploration, Router
    from router.artifact import load_artifact
    from router.request import read_body
    from router.rules_file import parse_rules

from tests.builders import TIERS
from tests.fuzz import KEYS, KINDS, ROLES
from tests.test_fuzz import RULES

NAMES = {tier.name for tier in TIERS}
ODD = (None, True, False, -1, 2**70, float("nan"), float("-inf"), object(), {1, 2}, "\ud800", "🎉")
FACTS = ("tools", "max_tokens", "json_mode", "session", "tenant", "tags")


class Request:
    """A request read from bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = atheris.FuzzedDataProvider(data)

    def one_of(self, values: Any) -> Any:
        return self.data.PickValueInList(list(values))

    def text(self) -> str:
        text: str = self.data.ConsumeUnicode(self.data.ConsumeIntInRange(0, 200))
        return text * self.one_of((1, 1, 1, 7, 400))

    def value(self, depth: int = 4) -> Any:
        kind = self.data.ConsumeIntInRange(0, 7 if depth else 3)
        if kind == 0:
            return self.one_of(ODD)
        if kind == 1:
            return self.data.ConsumeBytes(self.data.ConsumeIntInRange(0, 20))
        if kind < 4:
            return self.text()
        count = self.data.ConsumeIntInRange(0, 4)
        if kind == 4:
            return [self.value(depth - 1) for _ in range(count)]
        if kind == 5:
            return tuple(self.value(depth - 1) for _ in range(count))
        return {self.one_of((*KEYS, "x")): self.value(depth - 1) for _ in range(count)}

    def message(self) -> Any:
        if self.data.ConsumeProbability() < 0.1:
            return self.value()
        part = {"type": self.one_of(KINDS), "text": self.value(1)}
        content = self.one_of((self.text(), [part, self.value(1)], self.value()))
        return {"role": self.one_of(ROLES), "content": content, "tool_calls": self.value(2)}

    def prompt(self) -> Any:
        if self.data.ConsumeBool():
            return self.value()
        return [self.message() for _ in range(self.data.ConsumeIntInRange(0, 5))]

    def facts(self) -> dict[str, Any]:
        return {name: self.value(2) for name in FACTS if self.data.ConsumeBool()}


def main() -> None:
    artifact = load_artifact(Path(sys.argv.pop(1)))  # the rest is libFuzzer's
    ruled = replace(artifact, rules=parse_rules(RULES, TIERS))
    log = DecisionLog(lambda _: None, messages=True)
    router = Router(ruled, b"key", log=log, explore=Exploration(0.1, down=True))

    def one(data: bytes) -> None:
        request = Request(data)
        prompt, facts = request.prompt(), request.facts()
        if request.data.ConsumeBool():  # by way of the body of an API request
            prompt, facts = read_body({"messages": prompt, **facts})
        decision = router.route(prompt, **facts)
        assert decision.tier in NAMES, decision
        assert 0.0 < decision.propensity <= 1.0, decision

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
