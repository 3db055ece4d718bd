"""`contextrl mine edit`: image questions -> pairs by generative editing, measured and judged."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contextrl.scripts.api_keys import api_key
from contextrl.scripts.cli_mine_tables import some, stage_table
from contextrl.scripts.console import ScriptError

if TYPE_CHECKING:  # what these import would slow `contextrl mine --help` down
    from collections.abc import Sequence

    from contextrl.pairs.canvas import Size
    from contextrl.pairs.edit_bill import EditBill
    from contextrl.pairs.editing import EditReport
    from contextrl.pairs.vqa import VQARow

OUTCOMES = "outcomes.jsonl"


def edit(
    source: Annotated[str, typer.Argument(help="Parquet as released, a folder with JSONL, ...")],
    chat_model: Annotated[str, typer.Option(help="Sees; proposes and verifies. litellm's name.")],
    image_model: Annotated[str, typer.Option(help="Edits. litellm's name.")],
    out: Annotated[Path, typer.Option(help="Pair folder to write.")],
    work: Annotated[
        Path | None, typer.Option(help="What was paid for; OUT.work by default. Kept.")
    ] = None,
    chat_base_url: Annotated[str | None, typer.Option(help="OpenAI-compatible server.")] = None,
    image_base_url: Annotated[str | None, typer.Option(help="OpenAI-compatible server.")] = None,
    chat_key_env: Annotated[
        str | None, typer.Option(help="Holds the chat key; the provider's own by default.")
    ] = None,
    image_key_env: Annotated[
        str | None, typer.Option(help="Holds the image key; the provider's own by default.")
    ] = None,
    image_sizes: Annotated[
        str, typer.Option(help="That IMAGE_MODEL draws in, as 1024x1024,1536x1024; any by default.")
    ] = "",
    max_reply_tokens: Annotated[
        int, typer.Option(min=50, help="Of a chat reply, reasoning included.")
    ] = 2_000,
    temperature: Annotated[
        bool, typer.Option(help="Ask for temperature 0 where litellm knows the model to take it.")
    ] = True,
    most_usd: Annotated[
        float | None, typer.Option(min=0, help="Of this run: stop asking beyond it.")
    ] = None,
    most_refusals: Annotated[
        int, typer.Option(min=1, help="Stop if these are the first answers of an endpoint.")
    ] = 10,
    usd_per_million_in: Annotated[float | None, typer.Option(help="If litellm has none.")] = None,
    usd_per_million_out: Annotated[float | None, typer.Option(help="If litellm has none.")] = None,
    usd_per_edit: Annotated[float | None, typer.Option(help="If litellm has none.")] = None,
    most_changed: Annotated[float, typer.Option(help="Share of pixels that may change.")] = 0.2,
    most_box: Annotated[float, typer.Option(help="Share that the changed box may take.")] = 0.4,
    most_shift: Annotated[float, typer.Option(help="Of 255: colour shift elsewhere.")] = 6.0,
    most_noise: Annotated[float, typer.Option(help="Of 255: mean change elsewhere.")] = 10.0,
    concurrency: Annotated[int, typer.Option(min=1, help="Rows at once.")] = 4,
    tries: Annotated[int, typer.Option(min=1, help="Per call.")] = 5,
    timeout_s: Annotated[float, typer.Option(help="Per try.")] = 300.0,
    held_out_frac: Annotated[
        float, typer.Option(min=0.0, max=0.99, help="Write OUT/train and OUT/held-out.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of splits.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the bill; ask nothing.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N rows.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a complete OUT; a partial one goes on.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="The manifests as JSON.")] = False,
) -> None:
    """Edit images so that the answer changes; print what became of every row."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no download when imported
    from contextrl.pairs.edit_bill import bill
    from contextrl.pairs.edit_calls import EditCalls
    from contextrl.pairs.editing import MINER, EditSettings, edit_pairs
    from contextrl.pairs.endpoints import EndpointSettings, LiteLLMEndpoint
    from contextrl.pairs.image_endpoint import ImageEndpointSettings, LiteLLMImageEndpoint
    from contextrl.pairs.images import ImageStore
    from contextrl.pairs.ledger import Ledger
    from contextrl.pairs.locality import LocalityLimits
    from contextrl.scripts.image_sets import (
        ImageSet,
        holds_complete,
        open_rows,
        refuse_existing,
        write_sets,
    )
    from contextrl.verl_ext.answers import same_answer

    if not dry_run:
        refuse_existing(out, held_out_frac, overwrite, [source])
    ((name, rows),) = open_rows([source])
    rows = _First(rows, limit)
    chat = LiteLLMEndpoint(
        EndpointSettings(
            model=chat_model,
            base_url=chat_base_url,
            api_key=api_key(chat_key_env, chat_base_url),
            timeout_s=timeout_s,
            tries=tries,
            temperature=0.0 if temperature else None,
            usd_per_million_in=usd_per_million_in,
            usd_per_million_out=usd_per_million_out,
        )
    )
    editor = LiteLLMImageEndpoint(
        ImageEndpointSettings(
            model=image_model,
            base_url=image_base_url,
            api_key=api_key(image_key_env, image_base_url),
            timeout_s=timeout_s,
            tries=tries,
            usd_per_edit=usd_per_edit,
        )
    )
    paid_for = work or out.with_name(out.name + ".work")
    calls = EditCalls(
        chat,
        editor,
        paid_for,
        Ledger(paid_for, most_usd),
        max_reply_tokens=max_reply_tokens,
        most_refusals=most_refusals,
        dry=dry_run,
    )
    settings = EditSettings(
        source=name,
        limits=LocalityLimits(
            most_changed=most_changed,
            most_box=most_box,
            most_shift=most_shift,
            most_noise=most_noise,
        ),
        image_sizes=_sizes(image_sizes),
        concurrency=concurrency,
    )
    if dry_run:
        typer.echo(_bill(bill(rows, calls, settings, same_answer), chat_model, image_model))
        return
    report = edit_pairs(rows, calls, ImageStore(out), settings, same_answer, on_progress=_progress)
    unasked = sum(report.unasked.values())
    if unasked and holds_complete(out):
        raise ScriptError(f"{_left(report, len(rows))}; the complete set in {out} was left alone")
    made = ImageSet(
        pairs=report.pairs,
        stages=report.stages,
        miner=MINER,
        seed=seed,
        unasked=unasked,
        spent=report.spent,
    )
    manifests = write_sets(out, made, held_out_frac, overwrite=overwrite)
    lines = "".join(each.model_dump_json() + "\n" for each in report.outcomes)
    (out / OUTCOMES).write_text(lines, encoding="utf-8")
    if json:
        typer.echo("\n".join(each.model_dump_json() for each in manifests.values()))
    else:
        typer.echo(_table(report, out))
    if unasked:
        raise ScriptError(_left(report, len(rows)))


class _First:
    """The first rows of many; none is read before it is asked for."""

    def __init__(self, rows: Sequence[VQARow], limit: int | None) -> None:
        self._rows = rows
        self._numbers = range(len(rows))[:limit]

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: int) -> VQARow:
        return self._rows[self._numbers[number]]


def _sizes(text: str) -> tuple[Size, ...]:
    from contextrl.pairs.canvas import read_sizes

    try:
        return read_sizes(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--image-sizes") from error


def _bill(due: EditBill, chat_model: str, image_model: str) -> str:
    unknown = [
        f"no price for {model}, pass {option}"
        for model, usd, option in (
            (chat_model, due.chat_usd, "--usd-per-million-in/out"),
            (image_model, due.edit_usd, "--usd-per-edit"),
        )
        if usd is None
    ]
    total = f"${due.total_usd:.2f}" if due.total_usd is not None else "; ".join(unknown)
    asked = due.rows - due.answered - due.unusable
    tokens = f"about {due.prompt_tokens} tokens in, at most {due.completion_tokens} out"
    return (
        f"{due.rows} rows: {asked} to ask, {due.answered} answered by what was paid before, "
        f"{due.unusable} not usable\n"
        f"at most {due.proposals} proposals and {due.verdicts} verdicts: {tokens}, "
        f"{_usd(due.chat_usd)}\n"
        f"at most {due.edits} edits: {_usd(due.edit_usd)}\n"
        f"at most, about, in all: {total}"
    )


def _usd(usd: float | None) -> str:
    return "price not known" if usd is None else f"${usd:.2f}"


def _table(report: EditReport, out: Path) -> str:
    spent = report.spent
    unpriced = f", and {spent.unpriced_calls} calls without a price" if spent.unpriced_calls else ""
    return "\n".join(
        [
            stage_table(report.stages),
            f"{len(report.pairs)} pairs in {out}; what became of each row in {out / OUTCOMES}",
            f"paid now ${spent.last_run_usd:.4f}, by all runs ${spent.all_runs_usd:.4f}{unpriced}",
        ]
    )


def _left(report: EditReport, rows: int) -> str:
    return (
        f"expected an outcome for {rows} rows, {sum(report.unasked.values())} have none "
        f"({some(report.unasked)}); run the same command again: nothing is paid twice"
    )


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done}/{total} rows", end="\n" if done == total else "", file=sys.stderr)
