"""The command `contextrl`: one verb per thing to do, each imported when it is called.

`contextrl --help` must answer in half a second, so nothing here may import a verb before it is
known which one is wanted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from contextrl.scripts import console


@dataclass(frozen=True, slots=True)
class Verb:
    summary: str
    load: Callable[[], typer.Typer]


def _single(function: Callable[..., object]) -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(function)
    return app


def _rollout() -> typer.Typer:
    from contextrl.scripts.cli_rollout import rollout

    return _single(rollout)


def _tasks() -> typer.Typer:
    from contextrl.scripts.cli_tasks import app as validate_and_show
    from contextrl.scripts.cli_tasks_bugs import from_bugs
    from contextrl.scripts.cli_tasks_build import build

    app = typer.Typer(
        add_completion=False,
        help=VERBS["tasks"].summary,
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.add_typer(validate_and_show)  # without a name: its verbs become ours
    app.command("build")(build)
    app.command("from-bugs")(from_bugs)
    return app


def _mine() -> typer.Typer:
    from contextrl.scripts.cli_mine import app

    return app


def _probe() -> typer.Typer:
    from contextrl.scripts.cli_probe import probe

    return _single(probe)


def _replay() -> typer.Typer:
    from contextrl.scripts.cli_replay import replay

    return _single(replay)


def _view() -> typer.Typer:
    from contextrl.scripts.cli_view import view

    return _single(view)


def _compare() -> typer.Typer:
    from contextrl.scripts.cli_compare import compare

    return _single(compare)


def _bench() -> typer.Typer:
    from contextrl.scripts.cli_bench import app

    return app


def _clean() -> typer.Typer:
    from contextrl.scripts.cli_clean import clean

    return _single(clean)


VERBS = {
    "rollout": Verb("Run a policy on tasks; save every trajectory and its reward.", _rollout),
    "replay": Verb("Live through recorded runs again: look, re-execute, branch.", _replay),
    "view": Verb("Write a run or a set of pairs as one page to share.", _view),
    "tasks": Verb("Build tasks from a package; validate and show task files.", _tasks),
    "mine": Verb("Turn trajectories or images into contrastive pairs.", _mine),
    "probe": Verb("Measure how often a model picks the supporting context.", _probe),
    "compare": Verb("Put finished runs side by side: what a setting or a seed did.", _compare),
    "bench": Verb("Reprint the numbers of the README.", _bench),
    "clean": Verb("Remove containers and images that runs left behind.", _clean),
}


class LazyGroup(TyperGroup):
    """Lists `VERBS` from their summaries alone; imports one when it is resolved to be called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return _summary_only(cmd_name) if cmd_name in VERBS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name in VERBS:
            command = typer.main.get_command(VERBS[name].load())
        return name, command, rest


def _summary_only(name: str) -> Any:
    def never_called() -> None: ...

    never_called.__doc__ = VERBS[name].summary
    return typer.main.get_command(_single(never_called))


app = typer.Typer(
    name="contextrl",
    cls=LazyGroup,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text: rich would double the time of --help
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"contextrl {version('contextrl')}")
        raise typer.Exit


@app.callback()
def root(
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            show_default=False,
            help="Log progress; -vv logs everything.",
        ),
    ] = 0,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Context-aware RL: sandboxes, rollouts, contrastive pairs, probing and training.

    Training itself starts with: bash scripts/run_swe_contextrl.sh
    """
    console.log_to_stderr(verbose)


def main(argv: list[str] | None = None) -> None:
    command = typer.main.get_command(app)
    sys.exit(console.run(lambda: command.main(args=argv, prog_name="contextrl")))


if __name__ == "__main__":
    main()
