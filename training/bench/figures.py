"""The two figures of a comparison: everybody's curves, and the headline metric with intervals."""

from pathlib import Path

from training.bench.result import ORACLE, RANDOM, Bench
from training.measure.compare import ALONG_CURVE
from training.show.plots import Dot, cost_quality_curve, dots, save


def write(found: Bench, folder: Path) -> list[Path]:
    """Write the table as Markdown and both figures as PNG into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "table.md"
    table.write_text(found.as_markdown(), encoding="utf-8")
    curves = dict(found.curves)
    oracle = curves.pop(ORACLE)
    ours = next(iter(found.against))
    measure = ALONG_CURVE[found.headline]
    figure = cost_quality_curve(
        curves.pop(ours),
        found.constants,
        baselines=curves,
        oracle=oracle,
        title="The same requests, routed by each method",
        subtitle=f"{found.tested:,} requests that no method has seen, seed {found.seeds[0]}; "
        f"Suffice: {ours.removeprefix('Suffice, ')} embedder",
    )
    ranked = sorted(
        (
            Dot(name, metrics[found.headline], name in found.against)
            for name, metrics in found.figures.items()
            if name not in (RANDOM, ORACLE)
        ),
        key=lambda dot: dot.interval.value,
    )
    compared = dots(
        ranked,
        found.figures[RANDOM][found.headline].value,
        label=f"{measure.words}; bars: 95 % intervals",
        title=f"{measure.words} of each method, mean of {len(found.seeds)} seeds",
    )
    return [
        table,
        save(figure, folder / "cost_quality.png"),
        save(compared, folder / f"{found.headline}.png"),
    ]
