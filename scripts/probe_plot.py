"""The probe as one picture: accuracy beside the published ones, and the margins."""

from __future__ import annotations

from pathlib import Path

import matplotlib

from contextrl.pairs.probe import ProbeReport
from contextrl.pairs.probe_tables import ProbeTables


def draw(path: Path, model: str, report: ProbeReport, beside: ProbeTables) -> None:
    """`path` holds a PNG."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), width_ratios=(2, 1))
    named = {**beside.published, model: report.accuracy.mean}
    names = sorted(named, key=lambda name: named[name])
    colours = ["tab:orange" if name == model else "tab:blue" for name in names]
    left.barh(names, [named[name] for name in names], color=colours)
    share = report.accuracy
    left.errorbar(
        share.mean,
        names.index(model),
        xerr=[[share.mean - share.low], [share.high - share.mean]],
        color="black",
        capsize=3,
    )
    left.axvline(0.5, linestyle="--", color="grey")
    left.set_xlabel("selection accuracy")
    right.hist([each.margin for each in report.prompts], bins=30)
    right.axvline(0, linestyle="--", color="grey")
    right.set_xlabel("log p(correct) - log p(other), nats")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
