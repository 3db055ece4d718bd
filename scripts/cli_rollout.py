"""`contextrl rollout`: a policy on a task file; every trajectory and its reward in a run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contextrl.scripts.console import ScriptError

if TYPE_CHECKING:  # what these import would slow `contextrl rollout --help` down
    from contextrl.agents.batch import BatchReport, EpisodeRequest, Progress
    from contextrl.agents.episode import Witness
    from contextrl.agents.prompting import PromptSet
    from contextrl.agents.store import RunStore
    from contextrl.agents.summary import RunSummary
    from contextrl.agents.types import Limits, Trajectory
    from contextrl.envs.types import Task
    from contextrl.scripts.policy_spec import PolicyOf

Play = Callable[["EpisodeRequest", threading.Event, "Witness"], "Trajectory"]


def rollout(
    tasks: Annotated[Path, typer.Option(help="Task file, JSONL.")],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    policy: Annotated[str, typer.Option(help="scripted[:looking], endpoint:URL or local:PATH.")],
    model: Annotated[str, typer.Option(help="Model name, for endpoint:URL.")] = "",
    samples: Annotated[int, typer.Option(min=1, help="Episodes per task.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N tasks.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Episodes at once.")] = 4,
    prompts: Annotated[
        str, typer.Option(help="Prompt set: compact, swe, swe-plus, openhands(-tags).")
    ] = "compact",
    max_turns: Annotated[int, typer.Option(min=1)] = 35,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Per reply.")] = 4096,
    max_context_tokens: Annotated[int, typer.Option(min=1)] = 32768,
    command_timeout_s: Annotated[float, typer.Option(min=0.1)] = 60.0,
    wall_clock_s: Annotated[float, typer.Option(min=0.1, help="Per episode.")] = 3600.0,
    temperature: Annotated[float, typer.Option(min=0.0)] = 1.0,
    seed: Annotated[int, typer.Option(help="Of local sampling.")] = 0,
    grade: Annotated[bool, typer.Option(help="Run the tests on the result.")] = True,
    repos: Annotated[
        Path | None, typer.Option(help="Local clones to build absent images from.")
    ] = None,
    roots: Annotated[
        Path, typer.Option(help="Unpacked images, for a machine without a Docker engine.")
    ] = Path("~/.cache/contextrl/roots"),
    deployment: Annotated[
        Path | None,
        typer.Option(help="TOML of a swe-rex deployment: sandboxes run there, not here."),
    ] = None,
    image_budget_gb: Annotated[
        float | None, typer.Option(min=0.0, help="Disk for images that we pull or build.")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable with the key of endpoint:URL.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in OUT.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace it.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Results as JSON.")] = False,
) -> None:
    """Run a policy on tasks; save every trajectory and its reward."""
    from contextrl.agents.prompting import prompt_set
    from contextrl.agents.store import RunStore, read_trajectories
    from contextrl.agents.summary import summarise
    from contextrl.agents.types import Limits
    from contextrl.envs.tasks import read_tasks
    from contextrl.scripts.policy_spec import open_policy

    if resume and overwrite:
        raise typer.BadParameter("choose one of --resume and --overwrite")
    chosen = prompt_set(prompts)
    limits = Limits(
        max_turns=max_turns,
        max_new_tokens=max_new_tokens,
        max_context_tokens=max_context_tokens,
        command_timeout_s=command_timeout_s,
        wall_clock_s=wall_clock_s,
    )
    wanted = read_tasks(tasks, limit=limit)
    if not wanted:
        raise ScriptError(f"{tasks}: expected at least one task, found none")
    sampling = {"temperature": temperature, "seed": seed}
    # How many tasks and samples is not part of it, so that a run can be extended.
    config = {
        "tasks": hashlib.sha256(tasks.read_bytes()).hexdigest()[:16],
        "policy": policy,
        "model": model,
        "prompts": prompts,
        "limits": dataclasses.asdict(limits),
        "sampling": sampling,
        "grade": grade,
    }
    # The store comes last: a wrong option or a missing engine leaves no run folder behind.
    with (
        open_policy(
            policy,
            model=model,
            prompts=chosen,
            api_key_env=api_key_env,
            max_context_tokens=max_context_tokens,
            temperature=temperature,
            seed=seed,
        ) as policy_of,
        _episodes(
            policy_of,
            chosen,
            limits,
            tasks=wanted,
            grade=grade,
            repos=repos,
            roots=roots,
            deployment=deployment,
            image_budget_gb=image_budget_gb,
            sampling=sampling,
        ) as (play, stop),
        RunStore.open(out, config, resume=resume, overwrite=overwrite) as store,
    ):
        report = _run(wanted, samples, play, stop, store, workers, out)
        if not report.crashed:
            store.finish()
    _print_results(summarise(read_trajectories(out)), out, as_json=json)
    if report.crashed:
        raise ScriptError(
            f"{len(report.crashed)} of {report.requested} episodes met a bug, the first was "
            f"{report.crashed[0]}; see the log above and play them again with --resume"
        )


@contextlib.contextmanager
def _episodes(
    policy_of: PolicyOf,
    prompts: PromptSet,
    limits: Limits,
    *,
    tasks: list[Task],
    grade: bool,
    repos: Path | None,
    roots: Path,
    deployment: Path | None,
    image_budget_gb: float | None,
    sampling: dict[str, float],
) -> Iterator[tuple[Play, Callable[[], None]]]:
    """A function that plays one episode, and one that ends all that are running.

    On a swe-rex deployment if one is given; else in Docker or, without an engine, in namespaces.
    """
    from contextrl.agents.rollout import rollout as play_episode
    from contextrl.envs.grading import DockerGrader
    from contextrl.envs.places import open_provider, with_local_image
    from contextrl.envs.supply import PREFETCHED, SupplyingProvider

    with contextlib.closing(
        open_provider(
            images=[task.image for task in tasks],
            image_budget_gb=image_budget_gb,
            repos=repos,
            roots=roots,
            deployment=deployment,
        )
    ) as provider:
        grader = DockerGrader(provider) if grade else None
        places = {task.task_id: place for place, task in enumerate(tasks)}

        def play(request: EpisodeRequest, cancel: threading.Event, witness: Witness) -> Trajectory:
            if isinstance(provider, SupplyingProvider):
                place = places[request.task.task_id] + 1
                provider.prefetch(tasks[place : place + PREFETCHED])
            # An image that cannot be had is this episode's set-up error, raised again by `start`.
            task = with_local_image(provider, request.task)
            return play_episode(
                task,
                provider,
                policy_of(task),
                prompts,
                limits,
                grader=grader,
                key=request.key,
                config={"sampling": sampling, "image": task.image},
                cancel=cancel,
                witness=witness,
            )

        yield play, provider.close


def _run(
    tasks: list[Task],
    samples: int,
    play: Play,
    stop: Callable[[], None],
    store: RunStore,
    workers: int,
    out: Path,
) -> BatchReport:
    from contextrl.agents.batch import EpisodeRequest, run_batch
    from contextrl.agents.episode import EpisodeKey

    requests = [
        EpisodeRequest(task, EpisodeKey(sample=sample))
        for task in tasks
        for sample in range(samples)
    ]
    try:
        with _progress(len(requests)) as on_progress:
            return run_batch(
                requests,
                play,
                store,
                workers=workers,
                on_progress=on_progress,
                on_interrupt=stop,
            )
    except KeyboardInterrupt:
        print(
            f"{len(store)} of {len(requests)} episodes are in {out}; continue it with --resume",
            file=sys.stderr,
        )
        raise


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Progress | None]:
    """A bar on stderr if that is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        line = bar.add_task("episodes", total=total)
        resolved = 0

        def on_progress(report: BatchReport, trajectory: Trajectory | None) -> None:
            nonlocal resolved
            resolved += bool(trajectory and trajectory.reward and trajectory.reward.resolved)
            done = report.skipped + report.finished + len(report.crashed)
            bar.update(line, completed=done, description=f"episodes, {resolved} resolved")

        yield on_progress


def _print_results(summary: RunSummary, out: Path, *, as_json: bool) -> None:
    if as_json:
        print(summary.model_dump_json(indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("result", "value", title=str(out), title_justify="left")
    share = summary.resolved_frac
    rows = {
        "tasks": f"{summary.tasks}",
        "episodes": f"{summary.episodes}",
        "excluded (infrastructure)": f"{summary.excluded}",
        "resolved": f"{summary.resolved} of {summary.graded}"
        + ("" if share is None else f" ({share:.1%})"),
        "tasks resolved at least once": f"{summary.tasks_resolved}",
        "ended as": ", ".join(f"{name} {n}" for name, n in summary.endings.items()),
        "ended by": ", ".join(f"{name} {n}" for name, n in summary.stop_reasons.items()),
        "turns, mean": f"{summary.turns_mean:.1f}",
        "sampled tokens, mean": f"{summary.sampled_tokens_mean:.0f}",
        "format errors, mean": f"{summary.format_errors_mean:.2f}",
        "seconds, mean": f"{summary.seconds_mean:.2f} (start {summary.start_s_mean:.2f}, policy "
        f"{summary.policy_s_mean:.2f}, sandbox {summary.sandbox_s_mean:.2f}, grading "
        f"{summary.grading_s_mean:.2f})",
        "our own overhead": f"{summary.overhead_frac:.1%}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)
