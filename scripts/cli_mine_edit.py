"""`contextrl mine edit`: image questions -> pairs by generative editing, measured and judged."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contextrl.scripts.cli_mine_tables import stage_table
from contextrl.scripts.console import ScriptError

if TYPE_CHECKING:  # what these import would slow `contextrl mine --help` down
    from collections.abc import Sequence

    from contextrl.pairs.edit_calls import EditCalls
    from contextrl.pairs.editing import EditReport
    from contextrl.pairs.endpoints import LiteLLMEndpoint
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
    chat_key_env: Annotated[str, typer.Option(help="Holds the chat key.")] = "OPENAI_API_KEY",
    image_key_env: Annotated[str, typer.Option(help="Holds the image key.")] = "OPENAI_API_KEY",
    most_usd: Annotated[float | None, typer.Option(min=0, help="Stop asking beyond it.")] = None,
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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The manifests as JSON.")] = False,
) -> None:
    """Edit images so that the answer changes; print what became of every row."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no download when imported
    from contextrl.pairs.edit_calls import EditCalls
    from contextrl.pairs.editing import MINER, EditSettings, edit_pairs
    from contextrl.pairs.endpoints import EndpointSettings, LiteLLMEndpoint
    from contextrl.pairs.image_endpoint import ImageEndpointSettings, LiteLLMImageEndpoint
    from contextrl.pairs.images import ImageStore
    from contextrl.pairs.ledger import Ledger
    from contextrl.pairs.locality import LocalityLimits
    from contextrl.scripts.image_sets import ImageSet, open_rows, refuse_existing, write_sets
    from contextrl.verl_ext.answers import same_answer

    if not dry_run:
        refuse_existing(out, held_out_frac, overwrite)
    ((name, rows),) = open_rows([source])
    rows = _First(rows, limit)
    chat = LiteLLMEndpoint(
        EndpointSettings(
            model=chat_model,
            base_url=chat_base_url,
            api_key=os.environ.get(chat_key_env) or ("none" if chat_base_url else None),
            timeout_s=timeout_s,
            tries=tries,
            usd_per_million_in=usd_per_million_in,
            usd_per_million_out=usd_per_million_out,
        )
    )
    editor = LiteLLMImageEndpoint(
        ImageEndpointSettings(
            model=image_model,
            base_url=image_base_url,
            api_key=os.environ.get(image_key_env) or ("none" if image_base_url else None),
            timeout_s=timeout_s,
            tries=tries,
            usd_per_edit=usd_per_edit,
        )
    )
    paid_for = work or out.with_name(out.name + ".work")
    calls = EditCalls(chat, editor, paid_for, Ledger(most_usd))
    if dry_run:
        typer.echo(_bill(calls, rows, chat, usd_per_edit))
        return
    report = edit_pairs(
        rows,
        calls,
        ImageStore(out),
        EditSettings(
            source=name,
            limits=LocalityLimits(
                most_changed=most_changed,
                most_box=most_box,
                most_shift=most_shift,
                most_noise=most_noise,
            ),
            concurrency=concurrency,
        ),
        same_answer,
        on_progress=_progress,
    )
    made = ImageSet(pairs=report.pairs, stages=report.stages, miner=MINER, seed=seed)
    manifests = write_sets(out, made, held_out_frac, overwrite=overwrite)
    lines = "".join(each.model_dump_json() + "\n" for each in report.outcomes)
    (out / OUTCOMES).write_text(lines, encoding="utf-8")
    if json:
        typer.echo("\n".join(each.model_dump_json() for each in manifests.values()))
    else:
        typer.echo(_table(report, out))
    if report.unasked:
        raise ScriptError(
            f"expected an outcome for {len(rows)} rows, {sum(report.unasked.values())} have none "
            f"({'; '.join(report.unasked)}); run again with --overwrite: nothing is paid twice"
        )


class _First:
    """The first rows of many; none is read before it is asked for."""

    def __init__(self, rows: Sequence[VQARow], limit: int | None) -> None:
        self._rows = rows
        self._numbers = range(len(rows))[:limit]

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: int) -> VQARow:
        return self._rows[self._numbers[number]]


def _bill(calls: EditCalls, rows: _First, chat: LiteLLMEndpoint, usd_per_edit: float | None) -> str:
    due = calls.bill(rows)
    talk = chat.cost(due.prompt_tokens, due.completion_tokens)
    talk_price = f"${talk:.2f}" if talk else "price not known: pass --usd-per-million-in/out"
    edit_price = (
        f"${due.edits * usd_per_edit:.2f}"
        if usd_per_edit is not None
        else "priced by litellm as they come, or by --usd-per-edit"
    )
    return (
        f"at most {due.proposals} proposals and {due.verdicts} verdicts: about "
        f"{due.prompt_tokens} tokens in, at most {due.completion_tokens} out, {talk_price}\n"
        f"at most {due.edits} edits: {edit_price}"
    )


def _table(report: EditReport, out: Path) -> str:
    return "\n".join(
        [
            stage_table(report.stages),
            f"{len(report.pairs)} pairs in {out}; what became of each row in {out / OUTCOMES}; "
            f"paid now ${report.paid_usd:.4f}",
        ]
    )


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done}/{total} rows", end="\n" if done == total else "", file=sys.stderr)
