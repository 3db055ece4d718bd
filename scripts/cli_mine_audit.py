"""`contextrl mine audit`: what could be won without reading, and a set without it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # what these import would slow `contextrl mine --help` down
    from contextrl.pairs.audit import AuditReport
    from contextrl.pairs.intervals import Share
    from contextrl.pairs.shortcuts import ShortcutReport


def audit(
    path: Annotated[Path, typer.Argument(metavar="PAIRS", help="Pair folder.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Write the pairs that surface features do not solve with confidence."),
    ] = None,
    rebalance: Annotated[
        bool,
        typer.Option(help="OUT keeps as many pairs that surface features win as they lose."),
    ] = False,
    probe: Annotated[
        list[Path] | None,
        typer.Option(
            help="What `contextrl probe --json` printed: also its accuracy on the pairs that "
            "surface features win and lose. May be repeated."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the classifiers and the option order.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N pairs.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Both reports as JSON.")] = False,
) -> None:
    """Print how often surface features alone find the supporting context."""
    from json import dumps

    from contextrl.pairs.audit import audit as audit_pairs
    from contextrl.pairs.errors import PairsError
    from contextrl.pairs.shortcuts import (
        probe_by_surface,
        rebalanced,
        shortcut_audit,
        without_shortcuts,
    )
    from contextrl.pairs.stages import StageCount
    from contextrl.pairs.store import read_manifest, read_trajectory_pairs, write_pairs
    from contextrl.scripts.pair_views import read_probe

    pairs = read_trajectory_pairs(path)[:limit]
    rules = audit_pairs(pairs)
    report, why_not = None, ""
    try:
        report = shortcut_audit(pairs, seed=seed)
    except PairsError as error:  # a small set still has its rules
        why_not = str(error)
        if out is not None or probe:
            raise
    probed = {}
    if report is not None:
        probed = {str(f): probe_by_surface(report, read_probe(f)) for f in probe or ()}
    if json:
        classified = report.model_dump(mode="json") if report else None
        by_file = {file: found.model_dump(mode="json") for file, found in probed.items()}
        typer.echo(
            dumps(rules.model_dump(mode="json") | {"classifiers": classified, "probes": by_file})
        )
    else:
        typer.echo(_rules(rules))
        typer.echo(_classifiers(report) if report else f"no classifiers: {why_not}")
        for file, found in probed.items():
            typer.echo(f"{file}, on the pairs that the better classifier ...")
            typer.echo(f"  {f'wins ({found.won.n})':<46} {_share(found.won)}")
            typer.echo(f"  {f'loses ({found.lost.n})':<46} {_share(found.lost)}")
    if out is not None and report is not None:
        manifest = read_manifest(path)
        kept = (rebalanced if rebalance else without_shortcuts)(pairs, report)
        name = (
            "won and lost alike by surface features"
            if rebalance
            else ("not solved by surface features")
        )
        stage = StageCount(name=name, unit="pairs", seen=len(pairs), kept=len(kept))
        write_pairs(
            out,
            kept,
            miner=manifest.miner,
            seed=manifest.seed,
            stages=[*manifest.stages, stage],
            sources=manifest.sources,
            split=manifest.split,
            overwrite=overwrite,
        )
        typer.echo(f"{len(kept)} of {len(pairs)} pairs in {out}", err=json)


def _rules(report: AuditReport) -> str:
    lines = [f"{report.n_pairs} pairs; each rule picks the option with ..."]
    for rule in report.rules:
        flag = "  <- not chance" if rule.is_shortcut else ""
        lines.append(f"  {rule.rule:<46} {_share(rule.accuracy)}  {rule.ties} ties{flag}")
    return "\n".join(lines)


def _classifiers(report: ShortcutReport) -> str:
    lines = [
        f"classifiers on all of them, {report.folds} folds grouped by {report.grouped_by} "
        f"({report.groups} groups)"
    ]
    for each in report.classifiers:
        flag = "  <- beats chance" if each.beats_chance else ""
        lines.append(f"  {each.name:<46} {_share(each.accuracy)}{flag}")
    lines.append(f"  {len(report.solved)} pairs are solved with confidence")
    lines.append(f"  {'supporting context is option A':<46} {_share(report.share_a)}")
    return "\n".join(lines)


def _share(share: Share) -> str:
    return f"{share.mean:6.1%}  [{share.low:.1%}, {share.high:.1%}]"
