"""`suffice report`: measure an artifact, and write a page for people who decide."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from training.evaluate import log_measured
from training.files import check_file, write_json, write_text
from training.measure.subject import prepare
from training.show.page.html import page_of


@dataclass(frozen=True, slots=True)
class Written:
    """A page that is in place: how many requests it is about, how many it left out, its run."""

    rows: int
    left_out: int
    world: str
    run: str


def report(artifact: Path, traffic: Path, out: Path) -> Written:
    """Measure an artifact on traffic that it was not fitted on, and write the page to `out`.

    Raises:
        BadInput, ArtifactError: see `training.evaluate.evaluate`; nothing was written.
        EnvironmentProblem: MLflow refused the run (the page is in place).
    """
    check_file(out, artifact, traffic)
    subject = prepare(artifact, traffic, False)
    found, text = page_of(subject, traffic.name)
    write_text(out, text)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "report.html").write_text(text, encoding="utf-8")
        write_json(folder / "report.json", {"artifact": subject.artifact.version} | found.as_json())
        run = log_measured("report", subject, found, {"report": folder}, f"{out} is written")
    return Written(found.rows, subject.left_out, subject.world.name, run)
