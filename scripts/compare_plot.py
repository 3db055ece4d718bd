"""The figure of `contextrl compare`: every run before and after, and its training reward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contextrl.scripts.compare_runs import Group, Run

SMOOTHED = 5
"""Training steps over which the thick line of a group's reward is averaged."""
APART = 0.055
"""Between the runs of one panel, as a share of its width, so that bars do not hide each other."""


@dataclass(frozen=True, slots=True)
class Ends:
    """One quantity of one run: before and after, each with its 95% interval."""

    before: float
    before_interval: tuple[float, float]
    after: float
    after_interval: tuple[float, float]


def draw(groups: Sequence[Group], path: Path) -> None:
    """One panel for each thing that was measured before and after, then the training reward.

    A colour for each group, an arrow for each run; `path` holds a PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(
        dict.fromkeys(name for group in groups for run in group.runs for name in measured(run))
    )
    figure, panels = plt.subplots(
        1,
        len(names) + 1,
        figsize=(2.3 * len(names) + 3.6, 3.9),
        layout="constrained",
        gridspec_kw={"width_ratios": [1.0] * len(names) + [1.7]},
    )
    for name, axes in zip(names, panels, strict=False):
        _before_and_after(axes, name, groups)
    panels[0].set_ylabel("share right")
    _rewards(panels[-1], groups)
    for axes in panels:
        axes.set_ylim(0, 1.02)
        axes.grid(axis="y", color="0.92")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *panels[-1].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=len(groups),
        frameon=False,
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


def measured(run: Run) -> dict[str, Ends]:
    """By the panel's title."""
    found = {
        f"{_title(split)}\n({each.items} items)": Ends(
            each.before, each.before_interval, each.after, each.after_interval
        )
        for split, each in run.rewards.items()
    }
    for name, probe in run.selection.items():
        found[f"selection: {_title(name)}\n({probe.after.n} pairs)"] = Ends(
            probe.before.mean,
            (probe.before.low, probe.before.high),
            probe.after.mean,
            (probe.after.low, probe.after.high),
        )
    return found


def _title(name: str) -> str:
    return name.replace("_", " ").replace("heldout", "held-out")


def _before_and_after(axes: Any, name: str, groups: Sequence[Group]) -> None:
    runs = list(_coloured(groups))
    for number, (color, run) in enumerate(runs):
        if (ends := measured(run).get(name)) is None:
            continue
        aside = APART * (number - (len(runs) - 1) / 2)
        for x, mean, (low, high) in (
            (0 + aside, ends.before, ends.before_interval),
            (1 + aside, ends.after, ends.after_interval),
        ):
            axes.errorbar(
                x,
                mean,
                [[max(0, mean - low)], [max(0, high - mean)]],
                fmt="o",
                ms=4,
                color=color,
                elinewidth=1,
                alpha=0.8,
            )
        axes.annotate(
            "",
            xy=(1 + aside, ends.after),
            xytext=(0 + aside, ends.before),
            arrowprops={
                "arrowstyle": "->",
                "color": color,
                "alpha": 0.8,
                "shrinkA": 4,
                "shrinkB": 4,
            },
        )
    if name.startswith("selection"):
        axes.axhline(0.5, color="0.5", linewidth=1, linestyle=":")
        axes.text(0.5, 0.47, "chance", color="0.4", fontsize=7, ha="center", va="top")
    axes.set_title(name, fontsize=9)
    axes.set_xlim(-0.35, 1.35)
    axes.set_xticks([0, 1], ["before", "after"])


def _rewards(axes: Any, groups: Sequence[Group]) -> None:
    for number, group in enumerate(groups):
        series = [run.train_reward for run in group.runs if run.train_reward]
        for each in series:
            axes.plot(range(1, len(each) + 1), each, color=f"C{number}", alpha=0.25, linewidth=1)
        if series:
            mean = np.mean([each[: min(map(len, series))] for each in series], axis=0)
            smooth = [mean[max(0, i - SMOOTHED + 1) : i + 1].mean() for i in range(len(mean))]
            seeds = f" ({len(group.runs)} seeds)" if len(group.runs) > 1 else ""
            label = f"{group.label}{seeds}"
            axes.plot(range(1, len(mean) + 1), smooth, color=f"C{number}", linewidth=2, label=label)
    axes.set_title(
        f"reward of the rollouts trained on\n(thick: mean of {SMOOTHED} steps)", fontsize=9
    )
    axes.set_xlabel("training step")


def _coloured(groups: Sequence[Group]) -> Iterator[tuple[str, Run]]:
    for number, group in enumerate(groups):
        for run in group.runs:
            yield f"C{number}", run
