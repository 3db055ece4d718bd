"""`contextrl bench`: the numbers of the README, each from one command."""

from __future__ import annotations

import typer

from contextrl.scripts.cli_bench_logprobs import logprobs
from contextrl.scripts.cli_bench_mine import mine
from contextrl.scripts.cli_bench_model import ca_memory, generation, gradients
from contextrl.scripts.cli_bench_replay import replay
from contextrl.scripts.cli_bench_retrieval import retrieval
from contextrl.scripts.cli_bench_sandbox import sandbox
from contextrl.scripts.cli_bench_scenes import scenes
from contextrl.scripts.cli_bench_viewer import viewer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.command()(sandbox)
app.command()(generation)
app.command()(gradients)
app.command("ca-memory")(ca_memory)
app.command()(logprobs)
app.command()(mine)
app.command()(scenes)
app.command()(retrieval)
app.command()(replay)
app.command()(viewer)
