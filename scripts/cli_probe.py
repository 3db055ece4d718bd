"""`contextrl probe`: does a model read its context? Selection accuracy in both option orders."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # what these import would slow `contextrl probe --help` down
    from contextrl.pairs.intervals import Share
    from contextrl.pairs.probe import ProbeReport
    from contextrl.pairs.probe_tables import ProbeTables
    from contextrl.pairs.types import RenderedPair
    from contextrl.verl_ext.pair_source import PairSource, PairStyles


class Style(StrEnum):
    RELEASED = "released"
    COMPACT = "compact"


def probe(
    pairs: Annotated[
        str,
        typer.Option(
            help="Pair folder, released JSONL, parquet; hf://owner/name[@split] or one FILE of it."
        ),
    ],
    model: Annotated[str, typer.Option(help="Folder or hub name of a language or vision model.")],
    style: Annotated[Style, typer.Option(help="Prompt style; no matter for released files.")] = (
        Style.RELEASED
    ),
    prefill: Annotated[
        str | None, typer.Option(help="What the reply begins with; the style's own by default.")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Trim each prompt to this, or leave its pair out; a server's images do not count.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts per forward pass.")] = 16,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N pairs.")] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Ask MODEL at this OpenAI-compatible server.")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the server's key.")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, help="Replies per prompt if the server hides log-probabilities.")
    ] = 1,
    plot: Annotated[Path | None, typer.Option(help="Write accuracies and margins as PNG.")] = None,
    json: Annotated[bool, typer.Option("--json", help="The whole report as JSON.")] = False,
) -> None:
    """Measure how often a model picks the supporting context."""
    from contextrl.pairs.probe_tables import tables
    from contextrl.verl_ext.pair_source import PairSource, pair_styles

    styles = pair_styles(style.value, prefill)
    # Read before the model is loaded: a bad path should not cost a minute.
    source = PairSource.open(pairs)

    def say(report: ProbeReport) -> None:
        beside = tables(report, source.own(limit), of_images=source.of_images)
        _say(report, beside, model, plot, json)

    if base_url is not None:
        say(_ask_server(source, limit, styles, model, base_url, api_key_env, samples, max_tokens))
        return

    from contextrl.verl_ext.probing import probe_source
    from contextrl.verl_ext.scorer_hf import HFPairScorer

    scorer = HFPairScorer.from_pretrained(model, batch_size=batch_size)
    report = probe_source(
        source,
        scorer,
        scorer.tokenizer,
        styles,
        max_tokens=max_tokens,
        limit=limit,
        on_progress=_progress,
    )
    say(report)


def _ask_server(
    source: PairSource,
    limit: int | None,
    styles: PairStyles,
    model: str,
    base_url: str,
    api_key_env: str | None,
    samples: int,
    max_tokens: int | None,
) -> ProbeReport:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no download when imported
    from contextrl.pairs.endpoints import EndpointSettings, LiteLLMEndpoint
    from contextrl.pairs.judge import CHARS_PER_TOKEN
    from contextrl.pairs.probe_endpoint import probe_endpoint
    from contextrl.scripts.api_keys import api_key
    from contextrl.verl_ext.probing import probe_in_parts, style_name

    def count(text: str) -> int:
        return int(len(text) / CHARS_PER_TOKEN) + 1

    endpoint = LiteLLMEndpoint(
        EndpointSettings(
            model=model if "/" in model else f"openai/{model}",
            base_url=base_url,
            api_key=api_key(api_key_env, base_url),
            temperature=0.0 if samples == 1 else 1.0,
        )
    )

    def ask(rendered: Sequence[RenderedPair], on_part: Callable[[int, int], None]) -> ProbeReport:
        return probe_endpoint(
            rendered,
            endpoint,
            style_name=style_name(source, styles),
            samples=samples,
            on_progress=on_part,
        )

    return probe_in_parts(
        source,
        ask,
        styles,
        max_tokens=max_tokens,
        count_tokens=count if max_tokens is not None else None,
        limit=limit,
        on_progress=_progress,
    )


def _say(
    report: ProbeReport, beside: ProbeTables, model: str, plot: Path | None, json: bool
) -> None:
    if json:
        whole = report.model_dump(mode="json") | {"tables": beside.model_dump(mode="json")}
        typer.echo(dumps(whole))
    else:
        typer.echo(table(report))
        typer.echo(groups(beside, model, report.accuracy))
    if plot is not None:
        from contextrl.scripts.probe_plot import draw

        draw(plot, model, report, beside)


def groups(beside: ProbeTables, model: str, accuracy: Share) -> str:
    """Domain, length, margins, and the published figures with this model among them."""
    lines = []
    for title, found in (("by domain", beside.by_domain), ("by length", beside.by_length)):
        lines += [title] if found else []
        lines += [
            f"  {each.name:<40}{_share(each.accuracy)}  n={each.accuracy.n}" for each in found
        ]
    lines.append("margins, nats")
    lines += [f"  {name:<16}{count:>6}" for name, count in beside.histogram.items() if count]
    lines.append(f"beside the published {beside.kind} accuracies (other pairs, so no ranking)")
    ranked = {**beside.published, f"{model} (this run)": accuracy.mean}
    lines += [
        f"  {name:<48}{value:6.1%}" for name, value in sorted(ranked.items(), key=lambda i: -i[1])
    ]
    return "\n".join(lines)


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
