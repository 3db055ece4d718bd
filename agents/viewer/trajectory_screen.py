"""One trajectory: its steps on the left, on the right the one that the cursor is on."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from rich.console import Group
from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import Screen
from textual.widgets import Footer, Input, OptionList, Static

from contextrl.agents.errors import AgentsError, EpisodeCancelledError
from contextrl.agents.replay import StepReplay
from contextrl.agents.types import StopReason, Trajectory
from contextrl.agents.viewer.branch_screen import BranchScreen
from contextrl.agents.viewer.detail import Decode, Look, detail, opening
from contextrl.agents.viewer.searching import pattern_of
from contextrl.agents.viewer.step_list import StepList
from contextrl.agents.viewer.steps import Kind, StepView, first_prompt, views
from contextrl.agents.viewer.visible import visible
from contextrl.agents.viewer.workbench import Workbench
from contextrl.envs.errors import EnvsError

POLL_S = 0.5
Watch = Callable[[], Trajectory | None]
"""The trajectory as it is now; None if it was given up and will not be stored."""


class TrajectoryScreen(Screen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape", "back", "Back"),
        ("j", "move(1)", "Next"),
        ("k", "move(-1)", "Previous"),
        ("slash", "search", "Search"),
        ("n", "match(1)", "Match"),
        ("N", "match(-1)", ""),
        ("e", "jump('edit')", "Edit"),
        ("x", "jump('failing')", "Failing"),
        ("exclamation_mark", "jump('error')", "Error"),
        ("f", "fold", "Fold"),
        ("t", "tokens", "Tokens"),
        ("c", "copy('command')", "Copy"),
        ("y", "copy('observation')", ""),
        ("r", "replay", "Re-execute"),
        ("b", "branch(True)", "Branch"),
        ("p", "branch(False)", "by policy"),
        ("question_mark", "app.help", "Help"),
    ]
    CSS = """
    #steps { width: 38; height: 1fr; border: none; text-wrap: nowrap; text-overflow: ellipsis; }
    #right { width: 1fr; padding: 0 1; }
    #search { display: none; } #search.on { display: block; }
    #opening { height: auto; max-height: 8; padding: 0 1; background: $surface; }
    """

    def __init__(
        self,
        trajectory: Trajectory,
        decode: Decode | None,
        workbench: Workbench | None,
        *,
        watch: Watch | None = None,
    ) -> None:
        """With `watch` the screen grows as the episode does."""
        super().__init__()
        self.trajectory = trajectory
        self.views = views(trajectory)
        self._workbench = workbench
        self._look = Look(decode=decode, unfinished=_runs(trajectory))
        self._watch = watch
        self._cancel = threading.Event()

    def compose(self) -> ComposeResult:
        yield Static(opening(self.trajectory), id="opening")
        with Horizontal():
            yield StepList(self.views, id="steps")
            with VerticalScroll(id="right", can_focus=True):
                yield Static(id="detail", markup=False)
        yield Input(placeholder="search; /re/ is a regular expression", id="search")
        yield Footer()

    def on_mount(self) -> None:
        self._list.focus()
        self._list.highlighted = 1 if self.views else 0
        if self._watch is not None:
            self._list.go(len(self.views) - 1)
            self.set_timer(POLL_S, self._look_again)
        self._show()

    def on_unmount(self) -> None:
        self._cancel.set()

    @property
    def _list(self) -> StepList:
        return self.query_one("#steps", StepList)

    @property
    def at(self) -> int:
        return self._list.at

    def _say(self, text: str) -> None:
        self.notify(visible(text), markup=False)

    def _look_again(self) -> None:
        """Of an episode that runs: its new steps, with the cursor if that was on the newest."""
        assert self._watch is not None
        try:
            now = self._watch()
        except AgentsError as error:
            self._say(str(error))
            return
        if now is None:
            self._say("it was given up: nothing is stored")
            return
        if now != self.trajectory:
            follows = self._list.at == len(self.views) - 1
            self.trajectory, self.views = now, views(now)
            self._look = replace(self._look, unfinished=_runs(now))
            self._list.grow(self.views)
            self.query_one("#opening", Static).update(opening(now))
            if follows:
                self._list.go(len(self.views) - 1)
            self._show()
            if not _runs(now):
                self._say(f"ended: {now.reward.verdict if now.reward else now.stop_reason}")
                return
        self.set_timer(POLL_S, self._look_again)

    def _show(self) -> None:
        if self.at < 0:
            shown = Group(
                *(
                    Text(visible(f"{role}:\n{said}\n"))
                    for role, said in first_prompt(self.trajectory)
                ),
                Text(visible(f"diff it left:\n{self.trajectory.submission}"), "dim"),
            )
        else:
            view = self.views[self.at]
            shown = detail(view, self._look, self._list.replayed.get(view.index))
        self.query_one("#detail", Static).update(shown)

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        self._look = replace(self._look, unfolded=False)
        self._show()
        self.query_one("#right").scroll_home(animate=False)

    def action_move(self, by: int) -> None:
        self._list.go(self.at + by)

    def action_jump(self, what: str) -> None:
        holds: Callable[[StepView], bool] = {
            "edit": lambda view: view.kind is Kind.EDIT,
            "failing": lambda view: view.failing_tests,
            "error": lambda view: view.error,
        }[what]
        later = [view.index for view in self.views if view.index > self.at and holds(view)]
        if later:
            self._list.go(later[0])
        else:
            self.notify(f"no later step: {what}")

    def action_fold(self) -> None:
        self._look = replace(self._look, unfolded=not self._look.unfolded)
        self._show()

    def action_tokens(self) -> None:
        self._look = replace(self._look, tokens=not self._look.tokens)
        self._show()

    def action_copy(self, what: str) -> None:
        if self.at >= 0:
            step = self.views[self.at].step
            self.app.copy_to_clipboard(
                (step.command if what == "command" else step.observation) or ""
            )
            self.notify(f"{what} copied")

    def action_back(self) -> None:
        search = self.query_one("#search")
        if search.has_class("on"):
            search.remove_class("on")
            self._list.focus()
        else:
            self.app.pop_screen()

    def action_search(self) -> None:
        self.query_one("#search").add_class("on")
        self.query_one("#search").focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.input.remove_class("on")
        self._list.focus()
        found = pattern_of(event.value)
        if event.value and found is None:
            self.notify("not a regular expression", severity="warning")
        self._look = replace(self._look, found=found)
        if found is not None and not self._matches(self.at, found):
            self.action_match(1)
        self._show()

    def action_match(self, by: int) -> None:
        found = self._look.found
        if found is None:
            return
        hits = [view.index for view in self.views if self._matches(view.index, found)]
        later = [n for n in hits if (n > self.at if by > 0 else n < self.at)]
        if later:
            self._list.go(later[0] if by > 0 else later[-1])
        self.notify(f"{len(hits)} steps match")

    def _matches(self, step: int, found: re.Pattern[str]) -> bool:
        if step < 0:
            return False
        each = self.views[step].step
        return any(found.search(visible(text)) for text in (each.text, each.observation))

    def action_replay(self) -> None:
        if self._workbench is None or (why := self._workbench.why_not(self.trajectory)):
            self._say(why if self._workbench else "no sandboxes here")
            return
        self._list.replayed.clear()
        self._run_replay(self._workbench)

    @work(thread=True, exclusive=True)
    def _run_replay(self, workbench: Workbench) -> None:
        def on_step(step: StepReplay) -> None:
            self.app.call_from_thread(self._note, step)

        try:
            report = workbench.replay(self.trajectory, on_step, self._cancel)
        except EpisodeCancelledError:
            return
        except (AgentsError, EnvsError) as error:
            self.app.call_from_thread(self._say, str(error))
            return
        if self._cancel.is_set():
            return
        for step in report.steps:  # a second look may have found some unstable
            self.app.call_from_thread(self._note, step)
        first = report.first_divergence
        said = report.error or (
            f"diverged at step {first.index + 1}: {first.cause}" if first else "reproduced"
        )
        if report.submission_equal is False:
            said += "; the diff differs"
        self.app.call_from_thread(self._say, said)
        if first is not None:
            self.app.call_from_thread(self._list.go, first.index)

    def _note(self, step: StepReplay) -> None:
        if self._cancel.is_set():  # the screen was left, and its widgets are gone
            return
        self._list.note(step)
        if step.index == self.at:
            self._show()

    def action_branch(self, by_hand: bool) -> None:
        why = (
            "no sandboxes here"
            if self._workbench is None
            else (
                self._workbench.why_not(self.trajectory)
                or ("" if by_hand else self._workbench.why_no_policy())
            )
        )
        if why or self._workbench is None:
            self._say(why)
            return
        self.app.push_screen(
            BranchScreen(self.trajectory, max(0, self.at), self._workbench, by_hand=by_hand)
        )


def _runs(trajectory: Trajectory) -> bool:
    return trajectory.stop_reason is StopReason.UNFINISHED
