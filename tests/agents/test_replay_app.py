"""The terminal application through a real Textual pilot: what keys do and what is seen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import DataTable, Input, OptionList, RichLog, Static

from contextrl.agents.prompting import COMPACT
from contextrl.agents.replay import replay
from contextrl.agents.replay_branch import branch
from contextrl.agents.rollout import rollout
from contextrl.agents.scripted import ScriptedPolicy
from contextrl.agents.store import TRAJECTORIES, RunStore, read_trajectories
from contextrl.agents.types import (
    Limits,
    Message,
    Step,
    StopReason,
    TokenRecord,
    Trajectory,
)
from contextrl.agents.viewer.app import ReplayApp
from contextrl.agents.viewer.index import TrajectoryIndex
from contextrl.agents.viewer.labels import read_labels
from contextrl.agents.viewer.pairs import Cell, Label, PairView, align
from contextrl.envs.fake import FakeProvider


def make(number: int, *, text: str = "line", steps: int = 4, **fields: Any) -> Trajectory:
    commands = ["cat a.py", "sed -i s/a/b/ a.py", "pytest -q", "submit"] * (steps // 4)
    outputs = ["\n".join(f"{text} {n}" for n in range(80)), "(no output)", "1 failed", ""]
    return Trajectory(
        **{
            "trajectory_id": f"task-{number}/rollout-0/0",
            "task_id": f"task-{number}",
            "policy": "tiny",
            "messages": (Message(role="user", content="fix it"),),
            "steps": tuple(
                Step(
                    text=f"look {n}\n\n```bash\n{command}\n```",
                    command=command,
                    observation=outputs[n % 4],
                    exit_code=int(n % 4 == 2),
                    token_span=(3 * n, 3 * n + 2),
                )
                for n, command in enumerate(commands)
            ),
            "tokens": TokenRecord(
                prompt_ids=(1, 2, 3),
                response_ids=tuple(range(3 * len(commands))),
                response_mask=(1, 1, 0) * len(commands),
                response_logprobs=(-0.1, -3.0, 0.0) * len(commands),
            ),
            "stop_reason": StopReason.SUBMITTED,
            **fields,
        }
    )


def write(folder: Path, trajectories: list[Trajectory]) -> TrajectoryIndex:
    with RunStore.open(folder, {}) as store:
        for trajectory in trajectories:
            store.append(trajectory)
    return TrajectoryIndex(folder)


def drive(app: ReplayApp, script: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with app.run_test(size=(120, 36)) as pilot:
            await pilot.pause()
            await script(pilot)

    asyncio.run(run())


def shown(app: ReplayApp, name: str = "#detail") -> str:
    """What the widget displays, as plain text."""
    from io import StringIO

    from rich.console import Console

    console = Console(file=StringIO(), width=200, force_terminal=False)
    console.print(app.screen.query_one(name, Static).content)
    return console.file.getvalue()  # type: ignore[attr-defined]


async def until(pilot: Any, holds: Callable[[], object], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        await pilot.pause(0.05)


def test_keys_walk_through_a_trajectory(tmp_path):
    app = ReplayApp(write(tmp_path / "run", [make(1), make(2)]))

    async def script(pilot: Any) -> None:
        await until(pilot, lambda: app.screen.query_one("#table", DataTable).row_count == 2)
        await pilot.press("enter")
        await pilot.pause()
        assert "step 1" in shown(app)
        assert "... 50 more lines" in shown(app)
        await pilot.press("f")
        assert "line 79" in shown(app)
        await pilot.press("e")
        assert "step 2  edit" in shown(app)
        await pilot.press("x")
        assert "failing tests" in shown(app)
        await pilot.press("t")
        assert "1 masked tokens follow" in shown(app)
        assert "--tokenizer" in shown(app)
        await pilot.press("k", "k")
        assert "step 1" in shown(app)
        await pilot.press("c")
        assert app.clipboard == "cat a.py"
        await pilot.press("question_mark")
        await pilot.pause()
        assert "re-execute all steps" in shown(app, "#help")
        await pilot.press("escape", "escape")
        assert app.screen.query_one("#table", DataTable).row_count == 2

    drive(app, script)


def test_search_finds_text_and_patterns_and_walks_the_matches(tmp_path):
    app = ReplayApp(write(tmp_path / "run", [make(1, steps=8)]))

    async def script(pilot: Any) -> None:
        await until(pilot, lambda: app.screen.query_one("#table", DataTable).row_count)
        await pilot.press("enter")
        await pilot.press("slash")
        app.screen.query_one("#search", Input).value = "/look [57]/"
        await pilot.press("enter")
        await pilot.pause()
        assert "step 6" in shown(app)
        await pilot.press("n")
        assert "step 8" in shown(app)
        await pilot.press("N")
        assert "step 6" in shown(app)
        await pilot.press("slash")
        await pilot.press("escape")
        assert "step 6" in shown(app)  # only the search was left

    drive(app, script)


def test_hostile_text_reaches_the_terminal_as_text(tmp_path):
    attack = "\x1b]0;owned\x07\x1b[2J[bold red]x[/] [@click=app.quit]go[/]\u202e"
    run = write(tmp_path / "run", [make(1, text=attack, policy=attack, stop_detail=attack)])
    app = ReplayApp(run)

    async def script(pilot: Any) -> None:
        await until(pilot, lambda: app.screen.query_one("#table", DataTable).row_count)
        await pilot.press("enter")
        await pilot.pause()
        assert "[bold red]x[/] [@click=app.quit]go[/]<U+202E> 0" in shown(app)
        assert "\x1b" not in shown(app) + shown(app, "#opening")

    drive(app, script)


def test_a_growing_run_grows_on_the_screen(tmp_path):
    index = write(tmp_path / "run", [make(1)])
    app = ReplayApp(index)

    async def script(pilot: Any) -> None:
        table = app.screen.query_one("#table", DataTable)
        await until(pilot, lambda: table.row_count == 1)
        line = make(2).model_dump_json()
        with (tmp_path / "run" / TRAJECTORIES).open("a") as file:
            file.write(line[:50])
            file.flush()
            await pilot.pause(1.3)
            assert table.row_count == 1  # half a line is no trajectory yet
            file.write(line[50:] + "\n")
        await until(pilot, lambda: table.row_count == 2)

    drive(app, script)


@pytest.mark.slow
def test_a_long_trajectory_and_a_run_of_ten_thousand_open_at_once(tmp_path):
    long = make(0, steps=36)
    tokens = TokenRecord(
        prompt_ids=tuple(range(1000)),
        response_ids=tuple(range(36_000)),
        response_mask=((1,) * 900 + (0,) * 100) * 36,
        response_logprobs=(-0.5,) * 36_000,
    )
    steps = [
        step.model_copy(update={"token_span": (1000 * n, 1000 * n + 900)})
        for n, step in enumerate(long.steps)
    ]
    long = long.model_copy(update={"tokens": tokens, "steps": tuple(steps)})
    index = write(tmp_path / "run", [long])
    line = make(1).model_dump_json() + "\n"
    with (tmp_path / "run" / TRAJECTORIES).open("a") as file:
        file.writelines(line.replace("task-1/", f"task-{n}/") for n in range(1, 10_000))
    # A first screen long before all of it: a slice of time ends with the row at hand.
    slices = TrajectoryIndex(tmp_path / "run")
    assert [slices.refresh(0.0) for _ in range(3)] == [1, 1, 1]
    app = ReplayApp(index)

    async def script(pilot: Any) -> None:
        table = app.screen.query_one("#table", DataTable)
        await until(pilot, lambda: table.row_count == 10_000, timeout_s=60)
        await pilot.press("enter")
        await until(pilot, lambda: app.screen.query("#detail"))
        await pilot.press("t")
        assert "900 sampled" in shown(app)

    drive(app, script)


class FakeWorkbench:
    """The real replay and branch in fake sandboxes."""

    def __init__(self, task: Any, provider: FakeProvider, branches: Path) -> None:
        self._task, self._provider, self._branches = task, provider, branches

    def why_not(self, trajectory: Trajectory) -> str:
        return "" if trajectory.task_id == self._task.task_id else "another task"

    def why_no_policy(self) -> str:
        return ""

    def replay(self, trajectory: Trajectory, on_step: Any, cancel: Any) -> Any:
        return replay(trajectory, self._task, self._provider, on_step=on_step, cancel=cancel)

    def branch(
        self, trajectory: Trajectory, step: int, hand: Any, cancel: Any, witness: Any
    ) -> Trajectory:
        replies = [COMPACT.render_reply(each, thought="") for each in ("echo policy", "submit")]
        policy = hand or ScriptedPolicy(replies)
        made = branch(
            trajectory,
            step,
            self._task,
            self._provider,
            policy,
            cancel=cancel,
            witness=witness,
        )
        with RunStore.open(self._branches, {}, resume=True) as store:
            store.append(made)
        return made


@pytest.fixture
def bench(tiny_task, tiny_files, tmp_path):
    """A run of one recorded trajectory, and an application that can re-execute it."""
    provider = FakeProvider(tiny_files)
    commands = ["cat tiny.py", "ls", "sed -i 's/a - b/a + b/' tiny.py", "submit"]
    policy = ScriptedPolicy([COMPACT.render_reply(each, thought="") for each in commands])
    run = tmp_path / "run"
    recorded = rollout(tiny_task, provider, policy, COMPACT, Limits(command_timeout_s=20.0))
    yield ReplayApp(
        write(run, [recorded]),
        workbench=FakeWorkbench(tiny_task, provider, run / "branches"),
    )
    provider.close()


def test_re_executing_marks_every_step(bench):
    async def script(pilot: Any) -> None:
        await until(pilot, lambda: bench.screen.query_one("#table", DataTable).row_count)
        await pilot.press("enter")
        await pilot.press("r")
        steps = bench.screen.query_one("#steps", OptionList)
        marks = lambda: [str(steps.get_option_at_index(n).prompt)[4:6] for n in range(1, 5)]  # noqa: E731
        await until(pilot, lambda: marks() == ["ok", "ok", "ok", "- "])
        assert "re-executed: reproduced (exact)" in shown(bench)

    drive(bench, script)


def test_a_branch_by_hand_is_played_stored_and_shown_below_its_parent(bench, tmp_path):
    async def script(pilot: Any) -> None:
        await until(pilot, lambda: bench.screen.query_one("#table", DataTable).row_count)
        await pilot.press("enter", "j", "j", "b")
        await until(pilot, lambda: bench.screen.query("#command"))
        bench.screen.query_one("#command", Input).value = "echo by-hand > new.txt"
        await pilot.press("enter")
        await pilot.press("ctrl+s")
        screen = bench.screen
        await until(pilot, lambda: screen.done is not None)
        await pilot.press("escape", "escape")
        table = bench.screen.query_one("#table", DataTable)
        await until(pilot, lambda: table.row_count == 2)
        assert str(table.get_row_at(1)[0]).startswith("  + tiny-1/branch-0/0")

    drive(bench, script)
    (made,) = read_trajectories(tmp_path / "run" / "branches")
    assert made.branch is not None
    assert (made.branch.parent_id, made.branch.step) == ("tiny-1/rollout-0/0", 2)
    assert made.branch.repeated
    assert [step.command for step in made.steps] == [
        "cat tiny.py",
        "ls",
        "echo by-hand > new.txt",
        "submit",
    ]
    assert "by-hand" in made.submission
    assert "a + b" not in made.submission


def test_a_branch_by_the_policy_shows_what_it_does(bench, tmp_path):
    async def script(pilot: Any) -> None:
        await until(pilot, lambda: bench.screen.query_one("#table", DataTable).row_count)
        await pilot.press("enter", "j", "p")
        await until(pilot, lambda: bench.screen.query("#log"))
        screen = bench.screen
        await until(pilot, lambda: screen.done is not None)
        lines = [line.text.strip() for line in screen.query_one("#log", RichLog).lines]
        at = lines.index("$ echo policy")
        assert "policy" in lines[at + 1]
        assert lines.index("$ submit") > at
        assert lines.count("$ echo policy") == 1

    drive(bench, script)
    (made,) = read_trajectories(tmp_path / "run" / "branches")
    assert [step.command for step in made.steps] == ["cat tiny.py", "echo policy", "submit"]


def test_leaving_in_the_middle_harms_nothing(tiny_task, tiny_files, tmp_path):
    provider = FakeProvider(tiny_files)
    policy = ScriptedPolicy(
        [COMPACT.render_reply(each, thought="") for each in ("sleep 0.5", "sleep 0.5", "submit")]
    )
    recorded = rollout(tiny_task, provider, policy, COMPACT, Limits(command_timeout_s=20.0))
    workbench = FakeWorkbench(tiny_task, provider, tmp_path / "run" / "branches")
    app = ReplayApp(write(tmp_path / "run", [recorded]), workbench=workbench)

    async def script(pilot: Any) -> None:
        await until(pilot, lambda: app.screen.query_one("#table", DataTable).row_count)
        await pilot.press("enter", "r", "escape", "enter", "j", "b")
        await until(pilot, lambda: app.screen.query("#command"))
        await pilot.press("escape", "escape")
        await until(pilot, lambda: all(sandbox.closed for sandbox in provider.started))
        await pilot.press("slash")
        assert app.screen.query_one("#table", DataTable).row_count == 1

    drive(app, script)
    assert not (tmp_path / "run" / "branches").exists()


def test_a_pair_is_labelled_with_one_key(tmp_path):
    left = (Cell(role="user", text="same"), Cell(role="user", text="one <PATCH_MASKED>"))
    right = (left[0], Cell(role="user", text="two\nkey line", decisive=("key line",)))
    pairs = [
        PairView(
            pair_id=f"pair-{n}",
            question="which?",
            answer="+fix",
            rows=align(left, right),
            margins={"positive-first": 1.25, "positive-second": -0.5},
        )
        for n in range(3)
    ]
    app = ReplayApp(pairs=pairs, labels=tmp_path / "labels.jsonl")

    async def script(pilot: Any) -> None:
        await until(pilot, lambda: len(app.screen.query(".row")) == 2)
        assert "positive-first +1.25, positive-second -0.50" in shown(app, "#question")
        assert len(app.screen.query(".differs")) == 2
        await pilot.press("v", "j", "i", "j", "u", "v", "d")
        await pilot.pause()

    drive(app, script)
    assert read_labels(tmp_path / "labels.jsonl") == {
        "pair-0": Label.VALID,
        "pair-1": Label.INVALID,
        "pair-2": Label.VALID,
    }
