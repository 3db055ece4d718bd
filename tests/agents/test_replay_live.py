"""An episode that is still running, watched in the terminal application."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from textual.widgets import DataTable, Static

from contextrl.agents.batch import EpisodeRequest, run_batch
from contextrl.agents.episode import EpisodeKey
from contextrl.agents.errors import EpisodeCancelledError
from contextrl.agents.prompting import COMPACT
from contextrl.agents.rollout import rollout
from contextrl.agents.scripted import ScriptedPolicy
from contextrl.agents.store import RunStore
from contextrl.agents.types import Limits
from contextrl.agents.viewer.app import ReplayApp
from contextrl.agents.viewer.index import TrajectoryIndex
from contextrl.agents.viewer.running import RunningList
from contextrl.agents.viewer.step_list import StepList
from contextrl.envs.types import ExecResult

HOSTILE = "\x1b]0;owned\x07[bold]x[/]"


class Stage:
    """A run of one episode whose commands wait for the test."""

    def __init__(self, folder: Any, task: Any, make_provider: Any) -> None:
        self._open = threading.Semaphore(0)
        self._store = RunStore.open(folder, {})
        replies = [COMPACT.render_reply(c, thought=HOSTILE) for c in ("ls", "cat a", "submit")]
        provider = make_provider(self._respond)

        def play(request: EpisodeRequest, cancel: threading.Event, witness: Any) -> Any:
            return rollout(
                request.task,
                provider,
                ScriptedPolicy(replies),
                COMPACT,
                Limits(),
                key=request.key,
                cancel=cancel,
                witness=witness,
            )

        self._fails = False
        self._thread = threading.Thread(
            target=run_batch,
            args=([EpisodeRequest(task, EpisodeKey())], play, self._store),
            kwargs={"workers": 1},
            daemon=True,  # a batch whose only worker was cancelled waits for ever
        )
        self._thread.start()

    def _respond(self, command: str) -> ExecResult:
        assert self._open.acquire(timeout=120)
        if self._fails:
            raise EpisodeCancelledError("Ctrl-C")
        return ExecResult(output=f"ran: {command} {HOSTILE}", exit_code=0, seconds=0.0)

    def release(self) -> None:
        self._open.release()

    def cancel(self) -> None:
        self._fails = True
        self._open.release()

    def close(self) -> None:
        self._open.release(5)
        self._store.close()


@pytest.fixture
def stage(tmp_path, make_task, make_provider):
    stage = Stage(tmp_path / "run", make_task(), make_provider)
    yield stage
    stage.close()


def drive(app: ReplayApp, script: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with app.run_test(size=(120, 36)) as pilot:
            await pilot.pause()
            await script(pilot)

    asyncio.run(run())


def shown(app: ReplayApp, name: str = "#detail") -> str:
    from io import StringIO

    from rich.console import Console

    console = Console(file=StringIO(), width=200, force_terminal=False)
    console.print(app.screen.query_one(name, Static).content)
    return console.file.getvalue()  # type: ignore[attr-defined]


async def until(pilot: Any, holds: Callable[[], object], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        await pilot.pause(0.05)


def test_a_running_episode_is_watched_to_its_end(stage, tmp_path):
    app = ReplayApp(TrajectoryIndex(tmp_path / "run"))

    async def script(pilot: Any) -> None:
        run = app.screen
        await until(pilot, lambda: run.query_one(RunningList).episodes)
        assert "toy__add-1/rollout-0/0" in str(
            run.query_one(RunningList).get_option_at_index(0).prompt
        )
        assert run.query_one("#table", DataTable).row_count == 0
        await pilot.press("l", "enter")
        await until(pilot, lambda: app.screen.query("#detail"))
        await until(pilot, lambda: "ls" in shown(app))
        assert "(not yet)" in shown(app)
        assert "running since" in shown(app, "#opening")
        assert "command running" in shown(app, "#opening")
        steps = app.screen.query_one("#steps", StepList)
        stage.release()
        await until(pilot, lambda: steps.option_count == 3)
        assert steps.at == 1  # the cursor was on the newest step and goes with it
        await pilot.press("k")
        assert "ran: ls" in shown(app)
        assert "\x1b" not in shown(app)
        assert "[bold]x[/]" in shown(app)
        stage.release()
        await until(pilot, lambda: steps.option_count == 4)
        await until(pilot, lambda: "ended by submitted" in shown(app, "#opening"))
        assert steps.at == 0  # the reader was not moved
        await pilot.press("escape")
        await until(pilot, lambda: run.query_one("#table", DataTable).row_count == 1)
        await until(pilot, lambda: not run.query_one(RunningList).episodes)

    drive(app, script)


def test_an_episode_that_is_given_up_says_so_and_keeps_what_was_seen(stage, tmp_path):
    index = TrajectoryIndex(tmp_path / "run")
    deadline = time.monotonic() + 120
    while index.current("toy__add-1/rollout-0/0") is None:  # else there is nothing to open yet
        assert time.monotonic() < deadline, "the episode did not begin in time"
        time.sleep(0.02)
    app = ReplayApp(index, trajectory_id="toy__add-1/rollout-0/0")

    async def script(pilot: Any) -> None:
        await until(pilot, lambda: app.screen.query("#detail"))
        await until(pilot, lambda: "ls" in shown(app))
        stage.cancel()
        await until(pilot, lambda: any("given up" in str(n.message) for n in app._notifications))
        assert "ls" in shown(app)

    drive(app, script)
