"""`contextrl mine images`: image questions -> pairs that are near in embedding space."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contextrl.scripts.cli_mine_tables import stage_table
from contextrl.scripts.console import ScriptError

if TYPE_CHECKING:  # what these import would slow `contextrl mine --help` down
    from contextrl.pairs.embedders import Embedder


REASONS = 10
"""Printed; the most frequent ones."""
SHOWN_EVERY = {"rows": 50, "couples": 5000}
"""Of the steps that are quick; blocks of a search take a minute each."""


class EmbedWith(StrEnum):
    MODEL = "model"
    SERVER = "server"
    PIXELS = "pixels"


class Compare(StrEnum):
    SAME = "same"
    ANY = "any"


def images(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Parquet as released, a folder of its shards or with JSONL, hf://owner/name."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Pair folder to write.")],
    work: Annotated[
        Path | None, typer.Option(help="Embeddings; OUT.work by default. Kept, and gone on from.")
    ] = None,
    embedder: Annotated[
        EmbedWith, typer.Option(help="In this process, on a server, or by looks alone.")
    ] = EmbedWith.MODEL,
    model: Annotated[str, typer.Option(help="Of the hub, or as the server names it.")] = (
        "Qwen/Qwen3-VL-Embedding-8B"
    ),
    base_url: Annotated[str | None, typer.Option(help="Of a vLLM server, up to /v1.")] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the server's key.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Of a model in this process.")] = None,
    instruction: Annotated[
        str, typer.Option(help="Told to the model; empty for one that takes none.")
    ] = "Represent the user's input.",
    least_cosine: Annotated[float, typer.Option(min=-1, max=1, help="Of two images.")] = 0.85,
    neighbours: Annotated[int, typer.Option(min=1, help="Looked at for each image.")] = 10,
    questions: Annotated[
        Compare, typer.Option(help="Rows with one question, or any two: then judge the pairs.")
    ] = Compare.SAME,
    per_source: Annotated[
        int | None, typer.Option(min=1, help="Couples of a source, or of what a row says is its.")
    ] = None,
    per_image: Annotated[int, typer.Option(min=1, help="Couples that show one picture.")] = 4,
    cells_probed: Annotated[
        int | None, typer.Option(min=1, help="Search an inverted file; exact by default.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images embedded at once.")] = 32,
    seed: Annotated[int, typer.Option(help="Of the choice within the caps, and of splits.")] = 0,
    held_out_frac: Annotated[
        float, typer.Option(min=0.0, max=0.99, help="Write OUT/train and OUT/held-out.")
    ] = 0.0,
    limit: Annotated[int | None, typer.Option(min=2, help="At most N pairs.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The manifests as JSON.")] = False,
) -> None:
    """Retrieve pairs of alike images whose answers differ; print the counts of every stage."""
    from contextrl.pairs.couple_choice import Questions
    from contextrl.pairs.images import ImageStore
    from contextrl.pairs.retrieval import RetrievalSettings, retrieve
    from contextrl.pairs.retrieved_pairs import MINER
    from contextrl.scripts.image_sets import ImageSet, open_rows, refuse_existing, write_sets
    from contextrl.verl_ext.answers import decided_same

    refuse_existing(out, held_out_frac, overwrite, sources)
    rows = open_rows(sources)
    result = retrieve(
        rows,
        _embedder(embedder, model, base_url, api_key_env, device, instruction),
        work or out.with_name(out.name + ".work"),
        ImageStore(out),
        RetrievalSettings(
            least_cosine=least_cosine,
            neighbours=neighbours,
            questions=Questions(questions.value),
            per_source=per_source,
            per_image=per_image,
            limit=limit,
            batch=batch,
            cells_probed=cells_probed,
            seed=seed,
        ),
        decided_same,
        on_progress=_progress,
    )
    made = ImageSet(pairs=result.pairs, stages=result.stages, miner=MINER, seed=seed)
    manifests = write_sets(out, made, held_out_frac, overwrite=overwrite)
    if json:
        typer.echo("\n".join(each.model_dump_json() for each in manifests.values()))
        return
    typer.echo(stage_table(result.stages))
    for reason, count in list(result.unread.items())[:REASONS]:
        typer.echo(f"  {count} rows left out: {reason}")
    if len(result.unread) > REASONS:
        typer.echo(f"  and {len(result.unread) - REASONS} other reasons")
    for folder, manifest in manifests.items():
        typer.echo(f"{manifest.n_pairs} pairs in {folder}")


def _embedder(
    kind: EmbedWith,
    model: str,
    base_url: str | None,
    api_key_env: str | None,
    device: str | None,
    instruction: str,
) -> Embedder:
    from contextrl.pairs import embed_server, embedders
    from contextrl.scripts.api_keys import api_key

    if kind is EmbedWith.PIXELS:
        return embedders.PixelEmbedder()
    if kind is EmbedWith.MODEL and base_url is None:
        return embedders.SentenceTransformersEmbedder(model, device=device, instruction=instruction)
    if base_url is None:
        raise ScriptError("expected --base-url for --embedder server, found none")
    return embed_server.ServerEmbedder(
        embed_server.ServerSettings(
            model=model,
            base_url=base_url,
            api_key=api_key(api_key_env, base_url),
            instruction=instruction,
        )
    )


def _progress(what: str, done: int, total: int) -> None:
    step = SHOWN_EVERY.get(what, 1)
    if sys.stderr.isatty() and (done % step == 0 or done == total):
        print(f"\r\x1b[K{what}: {done}/{total}", end="", file=sys.stderr, flush=True)
