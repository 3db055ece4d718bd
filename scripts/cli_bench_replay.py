"""`contextrl bench replay`: mixed commands on real tasks, recorded and re-executed."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field

from contextrl.envs.types import Record

if TYPE_CHECKING:
    from contextrl.agents.replay import ReplayReport
    from contextrl.agents.types import Trajectory
    from contextrl.envs.types import Task
    from contextrl.scripts.replay_tasks import Sandboxes


@dataclass(frozen=True, slots=True)
class Command:
    """`{file}`, `{folder}`, `{tests}` and `{module}` are the task's own."""

    name: str
    text: str
    never_repeats: bool = False
    """Asks for the load of the machine, a process id or a random number."""


COMMANDS = (
    Command("list", "ls -la"),
    Command("list package", "ls -l {folder}; ls -l {folder}/tests | head -20"),
    Command("walk", "find . -name '*.py' | head -60"),
    Command("grep", "grep -rn 'def ' {folder} | head -60"),
    Command("grep file", "grep -n import {file} | head -20; grep -c return {file}"),
    Command("head", "cat {file} | head -80"),
    Command("range", "sed -n '40,90p' {file}"),
    Command("history", "git log --oneline | head -5; git log -2"),
    Command("status", "git status --short; git diff --stat"),
    Command(
        "commit", "git -c user.name=a -c user.email=a@b commit --allow-empty -qm x; git log -1"
    ),
    Command("tests", "python -m pytest -q {tests}"),
    Command("first failure", "python -m pytest -x {tests} 2>&1 | tail -40"),
    Command("slowest tests", "python -m pytest -q --durations=5 {tests}"),
    Command("one file verbose", "python -m pytest -v {tests} 2>&1 | head -30"),
    Command("import", "python -c 'import {module}; print({module}.__file__)'"),
    Command("set", "python -c \"print({{'a', 'b', 'c', 'd'}}, object())\""),
    Command("traceback", "python -c 'import {module}; {module}.no_such_name'"),
    Command("temporary", "mktemp; mktemp -d; ls -d /tmp/tmp.*"),
    Command("time", "time python -c 'import {module}'"),
    Command("date", "date; date -u; ls -l --time-style=full-iso {file}"),
    Command("disk usage", "du -sh {folder}; du -a {folder} | head"),
    Command("both streams", "for n in 1 2 3; do echo out $n; echo error $n >&2; done"),
    Command("mistakes", "cat nothing.py; grep -rn no-such-text {folder}; ls missing/"),
    Command("processes", "ps aux", never_repeats=True),
    Command("load", "df -h .; free -m; uptime", never_repeats=True),
    Command("random", "echo $$; echo $RANDOM", never_repeats=True),
    Command("job", "sleep 5 & echo $!; jobs", never_repeats=True),
    Command(
        "timeit", "python -m timeit -n 2000 '\"-\".join(map(str, range(50)))'", never_repeats=True
    ),
)


class CommandCount(Record):
    """What became of the steps of one command."""

    name: str
    never_repeats: bool
    results: dict[str, int] = Field(default_factory=dict)
    """Steps by the rule that made them equal, or by why they are not."""


class ReplayBench(Record):
    runs: int
    steps: int
    reproduced: int
    unstable: int
    diverged: int
    submissions_differ: int
    steps_that_can_repeat: int
    """All but those of the commands that never repeat themselves."""
    reproduced_of_these: int
    commands: tuple[CommandCount, ...]


def replay(
    tasks: Annotated[Path, typer.Option(help="Task file, as `contextrl tasks build` writes it.")],
    runs: Annotated[int, typer.Option(min=1, help="Trajectories to record.")] = 100,
    commands: Annotated[int, typer.Option(min=1, help="Drawn for each, before its fix.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Sandboxes at once.")] = 2,
    out: Annotated[
        Path | None, typer.Option(help="Keep the recorded run in this folder, to look at.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The counts as JSON.")] = False,
) -> None:
    """Record runs of mixed commands in fresh sandboxes, re-execute them, count what is equal."""
    from contextrl.scripts.replay_check import check, lines
    from contextrl.scripts.replay_tasks import Sandboxes, TaskBook

    with (
        Sandboxes() as sandboxes,
        tempfile.TemporaryDirectory(prefix="contextrl-bench-") as scratch,
    ):
        folder = out or Path(scratch) / "run"
        names = _record(tasks, folder, sandboxes, runs, commands, seed, workers)
        report = check([folder], TaskBook([tasks]), sandboxes, workers=workers)
    found = count(report.reports, names)
    if json:
        typer.echo(found.model_dump_json())
        return
    typer.echo("\n".join(lines(report)))
    for each in found.commands:
        results = ", ".join(f"{name} {number}" for name, number in each.results.items())
        typer.echo(f"{each.name:<16} {'*' if each.never_repeats else ' '} {results}")
    share = found.reproduced_of_these / max(1, found.steps_that_can_repeat)
    typer.echo(
        f"without the commands marked *, which never repeat themselves: "
        f"{found.reproduced_of_these} of {found.steps_that_can_repeat} steps ({share:.1%})"
    )


def _record(
    tasks: Path,
    folder: Path,
    sandboxes: Sandboxes,
    runs: int,
    commands: int,
    seed: int,
    workers: int,
) -> dict[str, list[Command]]:
    """Plays and stores the runs; the commands of each by trajectory id."""
    import threading

    from contextrl.agents.batch import EpisodeRequest, run_batch
    from contextrl.agents.episode import EpisodeKey, Witness
    from contextrl.agents.prompting import SWE
    from contextrl.agents.rollout import rollout
    from contextrl.agents.scripted import ScriptedPolicy, solution_script
    from contextrl.agents.store import RunStore
    from contextrl.agents.types import Limits
    from contextrl.envs.tasks import read_tasks
    from contextrl.scripts.console import ScriptError

    wanted = list(read_tasks(tasks))
    if not wanted:
        raise ScriptError(f"{tasks}: expected at least one task, found none")
    requests = [
        EpisodeRequest(wanted[n % len(wanted)], EpisodeKey(sample=n // len(wanted)))
        for n in range(runs)
    ]
    drawn = {
        request.trajectory_id: random.Random(f"{seed} {request.trajectory_id}").sample(
            COMMANDS, min(commands, len(COMMANDS))
        )
        for request in requests
    }

    def play(request: EpisodeRequest, cancel: threading.Event, witness: Witness) -> Trajectory:
        task = sandboxes.ready(request.task)
        replies = [
            SWE.render_reply(text_of(command, task), thought=command.name)
            for command in drawn[request.trajectory_id]
        ]
        policy = ScriptedPolicy([*replies, *solution_script(task, SWE)])
        return rollout(
            task,
            sandboxes.provider(),
            policy,
            SWE,
            Limits(),
            key=request.key,
            cancel=cancel,
            witness=witness,
        )

    with RunStore.open(folder, {"bench": "replay", "seed": seed}, overwrite=True) as store:
        run_batch(requests, play, store, workers=workers)
    return drawn


def text_of(command: Command, task: Task) -> str:
    """The command with the names of `task`: the file that its gold patch changes, and its tests."""
    from unidiff.patch import PatchSet

    file = PatchSet(task.gold_patch)[0].path
    folder = Path(file).parts[0] if len(Path(file).parts) > 1 else "."
    tests = task.fail_to_pass[0].partition("::")[0]
    module = Path(folder if folder != "." else file).stem
    return command.text.format(file=file, folder=folder, tests=tests, module=module)


def count(reports: Sequence[ReplayReport], drawn: Mapping[str, Sequence[Command]]) -> ReplayBench:
    """Steps by command; those after the drawn ones are the fix."""
    from contextrl.agents.replay import StepResult

    fix = Command("fix", "")
    found: dict[Command, Counter[str]] = {each: Counter() for each in (*COMMANDS, fix)}
    results: Counter[StepResult] = Counter()
    able: Counter[StepResult] = Counter()
    for report in reports:
        commands = drawn[report.trajectory_id]
        for step in report.steps:
            if step.result is StepResult.NOT_RUN:
                continue
            command = commands[step.index] if step.index < len(commands) else fix
            reproduced = step.result is StepResult.REPRODUCED
            found[command][str(step.match) if reproduced else f"{step.result} {step.cause}"] += 1
            results[step.result] += 1
            able[step.result] += not command.never_repeats
    return ReplayBench(
        runs=len(reports),
        steps=results.total(),
        reproduced=results[StepResult.REPRODUCED],
        unstable=results[StepResult.UNSTABLE],
        diverged=results[StepResult.DIVERGED],
        submissions_differ=sum(report.submission_equal is False for report in reports),
        steps_that_can_repeat=able.total(),
        reproduced_of_these=able[StepResult.REPRODUCED],
        commands=tuple(
            CommandCount(
                name=command.name,
                never_repeats=command.never_repeats,
                results=dict(counted.most_common()),
            )
            for command, counted in found.items()
            if counted
        ),
    )
