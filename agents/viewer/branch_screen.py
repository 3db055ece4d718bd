"""A branch in the making: the repeated steps, then commands typed by hand or those of a policy."""

from __future__ import annotations

import threading
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import Screen
from textual.widgets import Footer, Input, RichLog, Static

from contextrl.agents.episode import EpisodeRecord
from contextrl.agents.errors import AgentsError, EpisodeCancelledError
from contextrl.agents.replay import StepReplay, settings_of
from contextrl.agents.replay_branch import Hand
from contextrl.agents.types import Step, Trajectory
from contextrl.agents.viewer.visible import visible
from contextrl.agents.viewer.workbench import Workbench
from contextrl.envs.errors import EnvsError


class PolicySteps:
    """The witness of a branch that a policy plays: what it does appears as it does it.

    A hand's own replies are on the screen already.
    """

    def __init__(self, screen: BranchScreen) -> None:
        self._screen = screen
        self._announced = -1

    def begin(self, record: EpisodeRecord) -> None:
        """The repeated steps come first."""

    def step(self, index: int, step: Step, *, done: bool) -> None:
        if self._announced != index:
            self._announced = index
            self._log(f"$ {step.command or step.text}", "bold")
        if done:
            self._log(step.observation)

    def _log(self, text: str, style: str = "") -> None:
        if not self._screen.by_hand:
            self._screen.app.call_from_thread(self._screen.log_line, text, style)


class BranchScreen(Screen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape", "leave", "Give up"),
        ("ctrl+s", "submit", "Submit and grade"),
    ]
    CSS = "#log { height: 1fr; } #where { height: 1; background: $surface; }"

    def __init__(
        self, parent_run: Trajectory, step: int, workbench: Workbench, *, by_hand: bool
    ) -> None:
        super().__init__()
        self._parent_run, self._step = parent_run, step
        self.by_hand = by_hand
        self._workbench = workbench
        self._cancel = threading.Event()
        self.done: Trajectory | None = None
        self._streamed = False
        prompts, _ = settings_of(parent_run)
        self._hand = (
            Hand(prompts, self._observed, on_repeat=self._repeated, on_output=self._output)
            if by_hand
            else None
        )

    def compose(self) -> ComposeResult:
        who = "type commands" if self._hand else "the policy goes on"
        name = visible(self._parent_run.trajectory_id)
        yield Static(Text(f"{name} before step {self._step + 1}: {who}"), id="where")
        yield RichLog(id="log", wrap=True, markup=False, highlight=False)
        if self._hand is not None:
            yield Input(placeholder="a command; ctrl+s submits, escape gives up", id="command")
        yield Footer()

    def on_mount(self) -> None:
        self.log_line(f"repeating {self._step} steps in a fresh sandbox ...", "dim")
        if self._hand is not None:
            self.query_one("#command").focus()
        self._play()

    def on_unmount(self) -> None:
        self._stop()

    @property
    def _log(self) -> RichLog:
        return self.query_one("#log", RichLog)

    def log_line(self, text: str, style: str = "") -> None:
        if self._cancel.is_set():  # the screen was left, and its widgets are gone
            return
        self._log.write(Text(visible(text), style))

    @work(thread=True)
    def _play(self) -> None:
        call = self.app.call_from_thread
        try:
            done = self._workbench.branch(
                self._parent_run, self._step, self._hand, self._cancel, PolicySteps(self)
            )
        except EpisodeCancelledError:
            return
        except (AgentsError, EnvsError) as error:
            if not self._cancel.is_set():
                call(self.log_line, str(error), "red")
            return
        if not self._cancel.is_set():
            call(self._finished, done)

    def _finished(self, done: Trajectory) -> None:
        self.done = done
        verdict = done.reward.verdict if done.reward else done.grading_error or "not graded"
        self.log_line(f"ended by {done.stop_reason} {done.stop_detail}: {verdict}", "bold green")
        self.log_line(f"stored as {done.trajectory_id}; escape goes back", "dim")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if self._hand is not None and event.value.strip() and self.done is None:
            self.log_line(f"$ {event.value}", "bold")
            self._streamed = False
            self._hand.type(event.value)
            event.input.clear()

    def _repeated(self, step: StepReplay) -> None:
        self.app.call_from_thread(self.log_line, f"step {step.index + 1}: {step.result}", "dim")

    def _output(self, content: bytes) -> None:
        """While the command runs: what it prints, as it comes."""
        self._streamed = True
        text = content.decode("utf-8", "replace").rstrip("\n")
        self.app.call_from_thread(self.log_line, text)

    def _observed(self, observation: str) -> None:
        if not self._streamed:
            self.app.call_from_thread(self.log_line, observation)
        self.app.call_from_thread(self.log_line, "(done)", "dim")

    def action_submit(self) -> None:
        if self._hand is not None and self.done is None:
            self.log_line("submitted; grading ...", "dim")
            self._hand.submit()

    def action_leave(self) -> None:
        self._stop()
        self.app.pop_screen()

    def _stop(self) -> None:
        self._cancel.set()
        if self._hand is not None:
            self._hand.give_up()
