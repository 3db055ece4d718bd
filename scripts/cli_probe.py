"""`contextrl probe`: does a model read its context? Selection accuracy in both option orders."""

from __future__ import annotations

import dataclasses
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # what these import would slow `contextrl probe --help` down
    from contextrl.pairs.intervals import Share
    from contextrl.pairs.probe import ProbeReport


class Style(StrEnum):
    RELEASED = "released"
    COMPACT = "compact"


def probe(
    pairs: Annotated[Path, typer.Option(help="Pair folder, or a released JSONL file.")],
    model: Annotated[str, typer.Option(help="Folder or hub name of a causal language model.")],
    style: Annotated[Style, typer.Option(help="Prompt style; no matter for released files.")] = (
        Style.RELEASED
    ),
    prefill: Annotated[
        str | None, typer.Option(help="What the reply begins with; the style's own by default.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Trim each prompt to this, or leave its pair out.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts per forward pass.")] = 16,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N pairs.")] = None,
    json: Annotated[bool, typer.Option("--json", help="The whole report as JSON.")] = False,
) -> None:
    """Measure how often a model picks the supporting context."""
    from contextrl.pairs.probe import probe as probe_pairs
    from contextrl.pairs.probe import probe_rendered
    from contextrl.pairs.released import ReleasedPair
    from contextrl.pairs.render import STYLES
    from contextrl.pairs.store import read_any
    from contextrl.pairs.types import Pair

    chosen = STYLES[style.value]
    if prefill is not None:
        chosen = dataclasses.replace(chosen, prefill=prefill)
    # Read before the model is loaded: a bad path should not cost a minute.
    read = read_any(pairs)[:limit]
    released = [pair for pair in read if isinstance(pair, ReleasedPair)]
    own = [pair for pair in read if isinstance(pair, Pair)]

    from contextrl.verl_ext.scorer_hf import HFPairScorer

    scorer = HFPairScorer.from_pretrained(model, batch_size=batch_size)
    if released:
        report = probe_rendered(
            [pair.rendered(chosen.prefill) for pair in released],
            scorer,
            scorer.tokenizer,
            style_name="released-file",
            max_tokens=max_tokens,
            on_progress=_progress,
        )
    else:
        report = probe_pairs(
            own, scorer, scorer.tokenizer, chosen, max_tokens=max_tokens, on_progress=_progress
        )
    typer.echo(report.model_dump_json() if json else table(report))


def table(report: ProbeReport) -> str:
    """The report for people."""
    rows = [
        (
            "accuracy",
            _share(report.accuracy),
            "Wilson over pairs, each the mean of its orders",
        ),
        ("right in both orders", _share(report.consistent), "of the pairs asked in both"),
        ("answers A", f"{report.share_a:6.1%}", "50% without position bias"),
        ("accuracy, correct is A", f"{report.accuracy_when_a:6.1%}", ""),
        ("accuracy, correct is B", f"{report.accuracy_when_b:6.1%}", ""),
        ("mean margin", f"{report.mean_margin:+.3f}", "nats, log p(correct) - log p(other)"),
        ("over the token budget", str(report.over_budget), "pairs left out"),
    ]
    head = f"{report.accuracy.n} pairs, {len(report.prompts)} prompts, style {report.style}"
    lines = [f"  {name:<24}{value:<26}{note}".rstrip() for name, value, note in rows]
    return "\n".join([head, *lines])


def _share(share: Share) -> str:
    if share.n == 0:
        return "-"
    return f"{share.mean:6.1%}  [{share.low:.1%}, {share.high:.1%}]"


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done}/{total} prompts", end="\n" if done == total else "", file=sys.stderr)
