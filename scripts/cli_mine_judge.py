"""`contextrl mine judge` and `mine review`: a model's verdicts, then a person's."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contextrl.scripts.api_keys import api_key
from contextrl.scripts.cli_mine_tables import REASONS, some
from contextrl.scripts.console import ScriptError

if TYPE_CHECKING:  # what these import would slow `contextrl mine --help` down
    from contextrl.pairs.judge import JudgeReport
    from contextrl.pairs.types import Pair

VERDICTS, REVIEW, DECISIONS = "verdicts.jsonl", "review.jsonl", "decisions.jsonl"
UNJUDGED = "unjudged.jsonl"


def judge(
    path: Annotated[Path, typer.Argument(metavar="PAIRS", help="Pair folder.")],
    model: Annotated[str, typer.Option(help="As litellm names it; openai/NAME for any server.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the VALID pairs.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Verdict cache; OUT.cache beside OUT by default.")
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="Of an OpenAI-compatible server.")] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(help="Environment variable with the key; the provider's own by default."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 8,
    tries: Annotated[int, typer.Option(min=1, help="Per question.")] = 5,
    timeout_s: Annotated[float, typer.Option(help="Per try.")] = 120.0,
    max_reply_tokens: Annotated[
        int, typer.Option(min=50, help="Of a reply, reasoning included.")
    ] = 2_000,
    temperature: Annotated[
        bool, typer.Option(help="Ask for temperature 0 where litellm knows the model to take it.")
    ] = True,
    most_refusals: Annotated[
        int, typer.Option(min=1, help="Stop if these are the first answers.")
    ] = 10,
    max_prompt_tokens: Annotated[int, typer.Option(min=500, help="Trimmed to this.")] = 24_000,
    usd_per_million_in: Annotated[float | None, typer.Option(help="If litellm has none.")] = None,
    usd_per_million_out: Annotated[float | None, typer.Option(help="If litellm has none.")] = None,
    most_usd: Annotated[
        float | None, typer.Option(min=0, help="Ask nothing if the bill may exceed this.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the bill; ask nothing.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N pairs.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a complete OUT.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
) -> None:
    """Let a model say of each pair whether it is VALID, INVALID or UNCERTAIN, and why."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no download when imported
    from contextrl.pairs.endpoints import EndpointSettings, LiteLLMEndpoint
    from contextrl.pairs.errors import PairFileError
    from contextrl.pairs.images import ImageStore
    from contextrl.pairs.judge import JudgeCache, JudgeSettings, bill
    from contextrl.pairs.judge import judge as judge_pairs
    from contextrl.pairs.store import is_complete, read_pairs

    if out is None and not dry_run:
        raise ScriptError("expected --out FOLDER for the verdicts, found none; or use --dry-run")
    if out is not None and is_complete(out) and not overwrite and not dry_run:
        raise PairFileError(
            f"expected no pairs in {out}, found a complete set; pass --overwrite or another --out"
        )
    pairs = read_pairs(path)[:limit]
    settings = JudgeSettings(
        max_prompt_tokens=max_prompt_tokens,
        max_reply_tokens=max_reply_tokens,
        most_refusals=most_refusals,
        concurrency=concurrency,
    )
    home = path if path.is_dir() else path.parent
    store = JudgeCache(cache or (out or home).with_suffix(".cache"))
    endpoint = LiteLLMEndpoint(
        EndpointSettings(
            model=model,
            base_url=base_url,
            api_key=api_key(api_key_env, base_url),
            timeout_s=timeout_s,
            tries=tries,
            temperature=0.0 if temperature else None,
            usd_per_million_in=usd_per_million_in,
            usd_per_million_out=usd_per_million_out,
        )
    )
    if dry_run:
        due = bill(pairs, endpoint, store, settings)
        price = "price not known: pass --usd-per-million-in/out"
        if due.usd is not None:
            price = f"at most ${due.usd:.2f}"
        typer.echo(
            f"{due.to_ask} pairs to ask, {due.cached} in the cache; about {due.prompt_tokens} "
            f"tokens in, at most {due.completion_tokens} out; {price}"
        )
        return
    assert out is not None
    if most_usd is not None:
        due = bill(pairs, endpoint, store, settings)
        if due.usd is None:
            raise ScriptError(
                f"expected a known price for --most-usd, found none for {model}; pass "
                "--usd-per-million-in and --usd-per-million-out"
            )
        if due.usd > most_usd:
            raise ScriptError(
                f"expected a bill of at most ${most_usd:.2f}, found up to ${due.usd:.2f} for "
                f"{due.to_ask} pairs; raise --most-usd or lower --limit"
            )
    report = judge_pairs(
        pairs, endpoint, store, settings, store=ImageStore(home), on_progress=_progress
    )
    left = (
        f"expected a verdict for {len(pairs)} pairs, {report.unasked} were not reached "
        f"({some(each.reason for each in report.unjudged if each.passing)}); run the same command "
        "again: cached verdicts are not paid twice"
    )
    if report.unasked and is_complete(out):
        raise ScriptError(f"{left}; the complete set in {out} was left alone")
    _store(out, home, pairs, report, overwrite)
    typer.echo(report.model_dump_json() if json else _table(report, out))
    if report.unasked:
        raise ScriptError(left)


def review(
    folder: Annotated[Path, typer.Argument(help="Folder that `mine judge` wrote.")],
    pairs: Annotated[Path, typer.Option(help="The pair folder that was judged.")],
    limit: Annotated[int | None, typer.Option(min=1, help="At most N pairs now.")] = None,
) -> None:
    """Walk through the UNCERTAIN pairs: v valid, i invalid, s skip, q stop; answers are kept."""
    from contextrl.pairs.review import add_reviewed, decide, open_reviews, show
    from contextrl.pairs.store import read_pairs

    by_id = {pair.pair_id: pair for pair in read_pairs(pairs)}
    home = pairs if pairs.is_dir() else pairs.parent
    left = open_reviews(folder / REVIEW, folder / DECISIONS)
    for number, item in enumerate(left[:limit], start=1):
        typer.echo(f"\n{number} of {len(left)}\n{show(by_id[item.pair_id], item, home)}")
        answer = ""
        while answer not in {"v", "i", "s", "q"}:
            answer = typer.prompt("v valid, i invalid, s skip, q stop").strip().lower()[:1]
        if answer == "q":
            break
        if answer != "s":
            decide(folder / DECISIONS, item, valid=answer == "v")
    added = add_reviewed(folder, folder / DECISIONS, by_id)
    typer.echo(f"{added} reviewed pairs were added to {folder}")


def _store(
    out: Path, home: Path, pairs: tuple[Pair, ...], report: JudgeReport, overwrite: bool
) -> None:
    from contextrl.pairs.stages import StageCount
    from contextrl.pairs.store import read_manifest, write_pairs
    from contextrl.pairs.verdicts import JudgeVerdict
    from contextrl.scripts.image_sets import copy_images

    valid, unsure = report.ids(JudgeVerdict.VALID), report.ids(JudgeVerdict.UNCERTAIN)
    # Those of the uncertain too: a review may add them.
    copy_images([pair for pair in pairs if pair.pair_id in valid | unsure], home, out)
    manifest = read_manifest(home)
    stage = StageCount(name="judged VALID", unit="pairs", seen=len(pairs), kept=len(valid))
    write_pairs(
        out,
        [pair for pair in pairs if pair.pair_id in valid],
        miner=manifest.miner,
        seed=manifest.seed,
        stages=[*manifest.stages, stage],
        sources=manifest.sources,
        split=manifest.split,
        unasked=report.unasked,
        overwrite=overwrite,
    )
    for name, chosen in (
        (VERDICTS, report.judgements),
        (REVIEW, [each for each in report.judgements if each.pair_id in unsure]),
        (UNJUDGED, report.unjudged),
    ):
        text = "".join(each.model_dump_json() + "\n" for each in chosen)
        (out / name).write_text(text, encoding="utf-8")


def _table(report: JudgeReport, out: Path) -> str:
    from contextrl.pairs.verdicts import JudgeVerdict

    lines = [f"  {len(report.ids(verdict)):>6} {verdict}" for verdict in JudgeVerdict]
    lines.append(f"  {len(report.unjudged):>6} without a verdict")
    lines += [f"         {n} {why}" for why, n in report.failures.most_common(REASONS)]
    return "\n".join(
        [
            *lines,
            f"{report.from_cache} from the cache; asked now: {report.prompt_tokens} tokens in, "
            f"{report.completion_tokens} out, ${report.paid_usd:.4f}",
            f"VALID pairs in {out}; UNCERTAIN ones in {out / REVIEW}",
        ]
    )


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done}/{total} pairs", end="\n" if done == total else "", file=sys.stderr)
