"""RouteLLM's outcome files, one CSV a task: `prompt, <model A>, <model B>[, <A>_response, …]`.

Was each model right, True or False: two rows a line, tier `small` for the first model column and
`large` for the second. `request_id` is `file:row`: the file's name without folder (and without the
ending of its compression), and the row's number starting at 0. There are no times. `source` is the
file's name without .csv.
"""

from collections.abc import Iterator
from pathlib import Path

from training.errors import BadInput
from training.log.adapters.files import csv_records, plain_name
from training.log.adapters.mapping import Mapping
from training.log.adapters.rows import Bad, Record, Row
from training.log.adapters.table import csv_header
from training.log.layout import SCHEMA
from training.log.messages import bare_prompt

TIERS = ("small", "large")


def recognise(path: Path, mapping: Mapping) -> tuple[str | None, str]:
    """What the file was seen to be if it is one of RouteLLM's, else (None, why it is not)."""
    if ".csv" not in path.suffixes:
        return None, "not a CSV file"
    _, names = csv_header(path)
    models = _models(names)
    if "prompt" not in names or set(names).intersection(SCHEMA.names) or len(models) != len(TIERS):
        return None, "a CSV of RouteLLM has the columns prompt and two models, and no others"
    return f"RouteLLM outcomes of {models[0]} and {models[1]}", ""


def rows(path: Path, mapping: Mapping) -> Iterator[Record]:
    """Two rows for each line of one file, streamed."""
    if mapping != Mapping():
        raise BadInput(f"{path}: a mapping is for the table format; RouteLLM's columns are known")
    delimiter, names = csv_header(path)
    at = {name: position for position, name in enumerate(names)}
    models = _models(names)
    file = plain_name(path)
    records = csv_records(path, delimiter)
    next(records)
    for number, record in enumerate(records):
        if isinstance(record, Bad):
            yield record
            continue
        line, fields = record
        messages = bare_prompt(fields[at["prompt"]])
        for tier, model in zip(TIERS, models, strict=True):
            answer = at.get(f"{model}_response")
            yield Row(
                line,
                {
                    "request_id": f"{file}:{number}",
                    "messages": messages,
                    "tier": tier,
                    "model": model,
                    "response": None if answer is None else fields[answer],
                    "source": file.removesuffix(".csv"),
                    "score": fields[at[model]],
                    "score_source": "grader",
                },
            )


def _models(names: list[str]) -> list[str]:
    """The model columns, in order; an index that pandas wrote has no name."""
    known = {"", "Unnamed: 0", "prompt"} | {f"{name}_response" for name in names}
    return [name for name in names if name not in known]
