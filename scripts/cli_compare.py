"""`contextrl compare`: finished runs side by side, with what their settings did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contextrl.scripts.console import ScriptError

if TYPE_CHECKING:  # what these import would slow `contextrl compare --help` down
    from rich.table import Table

    from contextrl.scripts.compare_runs import Group
    from contextrl.scripts.paired import PairedChange


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

    from contextrl.scripts.compare_runs import draw, group_runs, read_run

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
        draw(groups, plot)


def tables(groups: Sequence[Group]) -> Iterator[Table]:
    """One for rewards, one for selection; a group's pooled row after those of its runs."""
    from rich.table import Table

    from contextrl.scripts.compare_runs import difference
    from contextrl.scripts.report_parts import span

    rewards = Table("settings", "split", "run", "before", "after", "change [95%]", "p")
    selection = Table("settings", "pairs", "run", "before", "after", "change [95%]", "answers A")
    for group in groups:
        for split in group.runs[0].rewards:
            changes = [(f"seed {run.seed}", run.rewards.get(split)) for run in group.runs]
            if len(group.runs) > 1:
                changes.append((f"all {len(group.runs)}", group.pooled(split)))
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
                    f"{probe.share_a_before:.2f} -> {probe.share_a_after:.2f}",
                )
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


def _reward_cells(change: PairedChange) -> tuple[str, str, str, str]:
    from contextrl.scripts.report_parts import span

    return (
        f"{change.before:.3f}",
        f"{change.after:.3f}",
        span(change.change, change.change_interval, sign="+"),
        f"{change.p_value:.4f}",
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
