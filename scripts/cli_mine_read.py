"""`contextrl mine read`: what we understand of somebody's trajectories."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # what these import would slow `contextrl mine --help` down
    from contextrl.agents.formats.types import ForeignRun
    from contextrl.pairs.sources import SourceReport

UNREADABLE = "unreadable.jsonl"


def read(
    source: Annotated[str, typer.Argument(help="File, folder, or hf://owner/name[@split].")],
    out: Annotated[Path | None, typer.Option(help="Run folder to write.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N runs.")] = None,
    show: Annotated[int, typer.Option(min=0, help="Runs to print, one line each.")] = 5,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The account as JSON.")] = False,
) -> None:
    """Read public trajectories of any supported format; count every row that cannot be read."""
    import contextlib
    from itertools import islice

    from contextrl.agents.store import RunStore
    from contextrl.pairs.sources import Account, read_sources

    account = Account()
    runs = islice(read_sources([source], account), limit)
    with contextlib.ExitStack() as stack:
        store = None
        if out is not None:
            store = stack.enter_context(
                RunStore.open(out, {"source": source, "limit": limit}, overwrite=overwrite)
            )
        for number, run in enumerate(runs):
            if store is not None and run.trajectory.trajectory_id not in store:
                store.append(run.trajectory)
            if number < show and not json:
                typer.echo(_line(run))
        if store is not None:
            store.finish()
    report = account.report()
    if out is not None:
        lines = [each.model_dump_json() + "\n" for each in report.unreadable]
        (out / UNREADABLE).write_text("".join(lines), encoding="utf-8")
    typer.echo(report.model_dump_json() if json else _table(report))


def _line(run: ForeignRun) -> str:
    episode = run.trajectory
    outcome = episode.reward.verdict.value if episode.reward else "outcome not said"
    commands = sum(step.command is not None for step in episode.steps)
    where = f"{run.repo or 'repository not said'} at {run.base_commit[:12] or 'no commit'}"
    return (
        f"{episode.trajectory_id}\n"
        f"    {where}; {len(episode.messages)} messages, "
        f"{commands}/{len(episode.steps)} replies with a command; "
        f"{outcome}, {episode.stop_reason.value}; patch of {len(episode.submission)} characters\n"
        f"    {' '.join(run.problem.split())[:90]}"
    )


def _table(report: SourceReport) -> str:
    lines = [f"{report.read} of {report.rows} rows read"]
    lines += [f"  {count:>9} {name}" for name, count in report.by_format.items()]
    if report.reasons:
        lines.append(f"{report.rows - report.read} rows not read")
        lines += [f"  {count:>9} {reason}" for reason, count in report.reasons.items()]
        named = [each.row_id or f"{each.source}:{each.number}" for each in report.unreadable[:10]]
        lines.append(f"  first of them: {', '.join(named)}")
    return "\n".join(lines)
