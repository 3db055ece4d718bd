"""`contextrl compare`: finished runs side by side, with what their settings did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import typer

from contextrl.scripts.console import ScriptError

if TYPE_CHECKING:  # what these import would slow `contextrl compare --help` down
    from rich.table import Table

    from contextrl.scripts.compare_runs import Group
    from contextrl.scripts.paired import PairedChange
    from contextrl.scripts.report_parts import ProbeChange


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs, of one job.")
    ],
    plot: Annotated[Path | None, typer.Option(help="Also draw their curves: a PNG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines, on stdout.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the plot.")] = False,
) -> None:
    """Put finished runs side by side: seeds together, settings that differ apart."""
    import json

    from contextrl.scripts.compare_runs import group_runs, read_run

    if plot is not None and plot.exists() and not overwrite:
        raise ScriptError(f"expected no file at {plot}, found one; pass --overwrite")
    groups = group_runs([read_run(folder) for folder in runs])
    if as_json:
        typer.echo(json.dumps([_as_json(group) for group in groups], indent=1))
    else:
        from rich.console import Console

        console = Console(width=None if Console().is_terminal else 140)
        for table in tables(groups):
            console.print(table)
    if plot is not None:
        from contextrl.scripts.compare_plot import draw

        draw(groups, plot)


def tables(groups: Sequence[Group]) -> Iterator[Table]:
    """One for rewards, one for selection; a group's pooled row after those of its runs."""
    from rich.table import Table

    from contextrl.scripts.compare_runs import difference
    from contextrl.scripts.report_parts import span

    rewards = Table("settings", "split", "run", "before", "after", "change [95%]", "p")
    selection = Table(
        *("settings", "pairs", "run", "before", "after", "change [95%]"),
        *("right in both orders", "answers A"),
    )
    for group in groups:
        for split in group.runs[0].rewards:
            changes = [(f"seed {run.seed}", run.rewards.get(split)) for run in group.runs]
            if len(group.runs) > 1:
                # One item counts once, however many seeds drew it: no mean of the rows above.
                changes.append((f"all {len(group.runs)}, by item", group.pooled(split)))
            for name, change in changes:
                if change is not None:
                    rewards.add_row(group.label, split, name, *_reward_cells(change))
        for pairs in group.runs[0].selection:
            for run in group.runs:
                if (probe := run.selection.get(pairs)) is None:
                    continue
                selection.add_row(
                    group.label,
                    pairs,
                    f"seed {run.seed}",
                    f"{probe.before.mean:.3f}",
                    f"{probe.after.mean:.3f}",
                    span(probe.change.mean, (probe.change.low, probe.change.high), sign="+"),
                    _from_to(probe.consistent_before, probe.consistent_after),
                    _from_to(probe.share_a_before, probe.share_a_after),
                )
            probes = [run.selection[pairs] for run in group.runs if pairs in run.selection]
            if len(probes) > 1:
                before, after = (fmean(side) for side in zip(*_ends(probes), strict=True))
                means = (f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}")
                selection.add_row(group.label, pairs, f"mean of {len(probes)}", *means, "", "")
    yield rewards
    if selection.row_count:
        yield selection
    between = Table("after training", "split", "there", "here", "difference [95%]", "p")
    for group in groups[1:]:
        for split in group.runs[0].rewards:
            if (found := difference(groups[0], group, split)) is not None:
                name = f"{groups[0].label} against {group.label}"
                between.add_row(name, split, *_reward_cells(found))
    if between.row_count:
        yield between


def _ends(probes: Sequence[ProbeChange]) -> list[tuple[float, float]]:
    return [(probe.before.mean, probe.after.mean) for probe in probes]


def _from_to(before: float | None, after: float | None) -> str:
    return "" if before is None or after is None else f"{before:.2f} -> {after:.2f}"


def _reward_cells(change: PairedChange) -> tuple[str, str, str, str]:
    from contextrl.scripts.report_parts import p_text, span

    return (
        f"{change.before:.3f}",
        f"{change.after:.3f}",
        span(change.change, change.change_interval, sign="+"),
        p_text(change.p_value).removeprefix("= "),
    )


def _as_json(group: Group) -> dict[str, object]:
    splits = group.runs[0].rewards
    pooled = {split: group.pooled(split) for split in splits}
    return {
        "settings": group.settings,
        "pooled": {name: change.model_dump() for name, change in pooled.items() if change},
        "runs": [
            {
                "run": run.name,
                "seed": run.seed,
                "rewards": {name: change.model_dump() for name, change in run.rewards.items()},
                "selection": {name: each.model_dump() for name, each in run.selection.items()},
            }
            for run in group.runs
        ],
    }
