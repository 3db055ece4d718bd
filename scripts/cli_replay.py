"""`contextrl replay`: recorded runs in a terminal, or re-executed without one."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contextrl.scripts import console

if TYPE_CHECKING:  # what these import would slow `contextrl replay --help` down
    from contextrl.agents.viewer.app import ReplayApp
    from contextrl.scripts.policy_spec import PolicyOf


def replay(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_OR_TRAJECTORY...",
            help="Run folder, trajectories.jsonl, one trajectory's JSON, or a pair folder.",
        ),
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Re-execute: exit 0 reproduced, 1 diverged, 2 not run.")
    ] = False,
    tasks: Annotated[
        list[Path] | None,
        typer.Option(help="Task file; may be repeated. A training run's own are found."),
    ] = None,
    trajectory: Annotated[str, typer.Option("--id", help="Only the one with this id.")] = "",
    to_step: Annotated[
        int | None, typer.Option(min=1, help="With --check: only the first N steps.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="With --check: the first N.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="With --check: sandboxes at once.")] = 2,
    repos: Annotated[
        Path | None, typer.Option(help="Local clones to build absent images from.")
    ] = None,
    policy: Annotated[str, typer.Option(help="To branch with: endpoint:URL or local:PATH.")] = "",
    model: Annotated[str, typer.Option(help="Model name, for endpoint:URL.")] = "",
    temperature: Annotated[float, typer.Option(min=0.0, help="Of --policy.")] = 1.0,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable with the key of endpoint:URL.")
    ] = None,
    branches: Annotated[
        Path | None, typer.Option(help="Where branches go; `branches` inside the run if not given.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Model folder: gives tokens their text.")
    ] = None,
    probe: Annotated[
        Path | None, typer.Option(help="For pairs: what `contextrl probe --json` printed.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="With --check: results as JSON.")] = False,
) -> None:
    """Live through recorded runs again: look, re-execute, branch."""
    if check:
        raise typer.Exit(
            _check(
                paths,
                tasks,
                only=trajectory,
                to_step=to_step,
                limit=limit,
                workers=workers,
                repos=repos,
                as_json=json,
            )
        )
    if len(paths) != 1:
        raise typer.BadParameter("the terminal application opens one run; --check takes several")
    _explore(
        paths[0],
        tasks,
        PolicyOptions(spec=policy, model=model, temperature=temperature, api_key_env=api_key_env),
        trajectory_id=trajectory,
        branches=branches,
        tokenizer=tokenizer,
        probe=probe,
        repos=repos,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyOptions:
    spec: str
    model: str
    temperature: float
    api_key_env: str | None


def _explore(
    path: Path,
    tasks: list[Path] | None,
    policy: PolicyOptions,
    *,
    trajectory_id: str,
    branches: Path | None,
    tokenizer: Path | None,
    probe: Path | None,
    repos: Path | None,
) -> None:
    from contextrl.agents.viewer.app import ReplayApp
    from contextrl.agents.viewer.index import BRANCHES, TrajectoryIndex
    from contextrl.pairs.store import PAIRS
    from contextrl.scripts.cli_view import EPISODES, decoder
    from contextrl.scripts.pair_views import LABELS, read_pair_views
    from contextrl.scripts.replay_tasks import Sandboxes, TaskBook, tasks_of_run
    from contextrl.scripts.replay_workbench import DockerWorkbench

    if (path / PAIRS).is_file() or path.name == PAIRS:
        folder = path.parent if path.name == PAIRS else path
        app = ReplayApp(pairs=read_pair_views(path, probe), labels=folder / LABELS)
        _run(app)
        return
    path = path / EPISODES if (path / EPISODES).is_dir() else path
    branches = branches or (path if path.is_dir() else path.parent) / BRANCHES
    index = TrajectoryIndex(path, branches=branches)
    with Sandboxes(repos) as sandboxes, _policy(policy) as policy_of:
        workbench = DockerWorkbench(
            TaskBook(tasks or tasks_of_run(path)),
            sandboxes,
            branches,
            policy_of=policy_of,
        )
        _run(
            ReplayApp(
                index,
                workbench=workbench,
                decode=decoder(tokenizer) if tokenizer else None,
                trajectory_id=trajectory_id,
            )
        )


def _run(app: ReplayApp) -> None:
    import logging

    from textual.logging import TextualHandler

    if not (sys.stdin.isatty() and sys.stderr.isatty()):  # it draws on stderr
        raise console.ScriptError(
            "expected a terminal, found none; use --check, or contextrl view for a page"
        )
    # A warning printed on the terminal would tear the screen.
    logging.getLogger().handlers[:] = [TextualHandler(stderr=False)]
    app.run()
    if app.return_code:
        raise typer.Exit(app.return_code)


@contextlib.contextmanager
def _policy(options: PolicyOptions) -> Iterator[PolicyOf | None]:
    if not options.spec:
        yield None
        return
    from contextrl.agents.prompting import COMPACT
    from contextrl.scripts.policy_spec import open_policy

    with open_policy(
        options.spec,
        model=options.model,
        prompts=COMPACT,  # only a script would ask
        api_key_env=options.api_key_env,
        max_context_tokens=32768,
        temperature=options.temperature,
        seed=0,
    ) as policy_of:
        yield policy_of


def _check(
    paths: list[Path],
    tasks: list[Path] | None,
    *,
    only: str,
    to_step: int | None,
    limit: int | None,
    workers: int,
    repos: Path | None,
    as_json: bool,
) -> int:
    """The exit code. Whatever keeps it from running is 2, never the 1 that says diverged."""
    from contextrl.scripts.replay_check import EXIT_NOT_RUN, lines
    from contextrl.scripts.replay_check import check as check_all
    from contextrl.scripts.replay_tasks import Sandboxes, TaskBook, tasks_of_run

    try:
        files = tasks or [file for path in paths for file in tasks_of_run(path)]
        with Sandboxes(repos) as sandboxes:
            report = check_all(
                paths,
                TaskBook(files),
                sandboxes,
                only=only,
                to_step=to_step,
                limit=limit,
                workers=workers,
            )
    except Exception as error:
        line = console.expected_failure(error)
        if line is None:
            raise
        print(f"contextrl: {line}", file=sys.stderr)
        return EXIT_NOT_RUN
    typer.echo(report.model_dump_json() if as_json else "\n".join(lines(report)))
    return report.exit_code
