"""`contextrl bench viewer`: how soon a long trajectory, and a run of thousands, can be read."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contextrl.envs.types import Record

if TYPE_CHECKING:
    from contextrl.agents.types import Trajectory

LONG_TURNS, LONG_TOKENS = 35, 30_000
SHORT_TURNS, SHORT_TOKENS = 4, 1_500
WAIT_S = 0.005
"""Between two looks at what a screen shows."""


class Timing(Record):
    name: str
    seconds: float
    """Wall clock: what a person waits."""
    cpu_s: float
    """Of this process: what remains of it on a machine that does other things."""
    note: str = ""


def viewer(
    runs: Annotated[int, typer.Option(min=1, help="Trajectories in the run.")] = 10_000,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a measurement.")] = False,
) -> None:
    """Measure the terminal application and the page on a made-up run of RUNS trajectories."""
    with tempfile.TemporaryDirectory(prefix="contextrl-bench-") as scratch:
        for timing in _measure(Path(scratch), runs):
            if json:
                typer.echo(timing.model_dump_json())
            else:
                typer.echo(
                    f"{timing.name:<34} {timing.seconds:8.2f} s {timing.cpu_s:8.2f} s CPU  "
                    f"{timing.note}"
                )


@dataclass(slots=True)
class _Watch:
    wall: float
    cpu: float

    @classmethod
    def start(cls) -> _Watch:
        return cls(time.perf_counter(), time.process_time())

    def stop(self, name: str, note: str = "") -> Timing:
        return Timing(
            name=name,
            seconds=time.perf_counter() - self.wall,
            cpu_s=time.process_time() - self.cpu,
            note=note,
        )


def _measure(scratch: Path, runs: int) -> Iterator[Timing]:
    from contextrl.agents.viewer.index import TrajectoryIndex
    from contextrl.agents.viewer.page import write_page

    run = scratch / "run"
    size = _write_run(run, runs)
    watch = _Watch.start()
    TrajectoryIndex(run).refresh()
    yield watch.stop("index", f"{runs} trajectories, {size / 1e6:.0f} MB")
    yield from asyncio.run(_terminal(TrajectoryIndex(run), runs))
    watch = _Watch.start()
    bytes_ = write_page(scratch / "page.html", title="bench", index=TrajectoryIndex(run))
    yield watch.stop("page written", f"{bytes_ / 1e6:.1f} MB")


async def _terminal(index: Any, runs: int) -> list[Timing]:
    """In a terminal without a screen: layout and drawing are real, the output goes nowhere."""
    from textual.widgets import DataTable

    from contextrl.agents.viewer.app import ReplayApp

    app = ReplayApp(index)
    watch = _Watch.start()
    async with app.run_test(size=(150, 45)) as pilot:

        async def until(holds: Callable[[], object]) -> None:
            while not holds():
                await pilot.pause(WAIT_S)

        await until(lambda: app.screen.query("#table"))
        table = app.screen.query_one("#table", DataTable)
        await until(lambda: table.row_count)
        found = [watch.stop("first rows on the screen", "from the start of the application")]
        await until(lambda: table.row_count == runs)
        found.append(watch.stop("all rows on the screen"))
        watch = _Watch.start()
        await pilot.press("enter")
        await until(lambda: app.screen.query("#detail"))
        note = f"{LONG_TURNS} turns, {LONG_TOKENS} tokens"
        found.append(watch.stop("the long one opened", note))
        watch = _Watch.start()
        await pilot.press("j", "t")
        found.append(watch.stop("next step, with its tokens"))
        await pilot.press("escape")
        await pilot.press("end")
        watch = _Watch.start()
        await pilot.press("enter")
        await until(lambda: app.screen.query("#detail"))
        found.append(watch.stop("the last one opened"))
    return found


def _write_run(folder: Path, runs: int) -> int:
    """The long trajectory, then short ones that differ in their ids. Returns bytes."""
    from contextrl.agents.store import TRAJECTORIES, RunStore

    with RunStore.open(folder, {"bench": "viewer"}) as store:
        store.append(_made_up(0, LONG_TURNS, LONG_TOKENS))
    line = _made_up(1, SHORT_TURNS, SHORT_TOKENS).model_dump_json() + "\n"
    file = folder / TRAJECTORIES
    with file.open("a", encoding="utf-8") as stream:
        stream.writelines(line.replace("task-1/", f"task-{n}/") for n in range(1, runs))
    return file.stat().st_size


def _made_up(number: int, turns: int, tokens: int) -> Trajectory:
    from contextrl.agents.types import Message, Step, StopReason, TokenRecord, Trajectory

    each = tokens // turns
    sampled = each // 4
    commands = ["cat toolz/itertoolz.py", "sed -i 's/a/b/' toolz/itertoolz.py", "pytest -q"]
    output = "\n".join(f"{n:3} def function_{n}(first, second=None):" for n in range(60))
    steps = tuple(
        Step(
            text=f"THOUGHT: look at part {n}.\n\n```bash\n{commands[n % 3]}\n```",
            command=commands[n % 3],
            observation=output,
            exit_code=0,
            token_span=(n * each, n * each + sampled),
        )
        for n in range(turns)
    )
    return Trajectory(
        trajectory_id=f"task-{number}/rollout-0/0",
        task_id=f"task-{number}",
        policy="made-up",
        messages=(Message(role="user", content="fix it"),),
        steps=steps,
        tokens=TokenRecord(
            prompt_ids=tuple(range(500)),
            response_ids=tuple(range(each * turns)),
            response_mask=((1,) * sampled + (0,) * (each - sampled)) * turns,
            response_logprobs=((-0.5,) * sampled + (0.0,) * (each - sampled)) * turns,
        ),
        stop_reason=StopReason.SUBMITTED,
        submission="--- a/x\n+++ b/x\n",
    )
