"""The steps of a trajectory as a list: number, outcome, and the beginning of the command."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.widgets import OptionList

from contextrl.agents.replay import StepReplay, StepResult
from contextrl.agents.viewer.steps import StepView
from contextrl.agents.viewer.visible import visible

MARKS = {
    StepResult.REPRODUCED: ("ok", "green"),
    StepResult.DIVERGED: ("#", "bold red"),
    StepResult.UNSTABLE: ("~", "yellow"),
    StepResult.NOT_RUN: ("-", "dim"),
}
TONES = {"x": "red", "!": "yellow", "*": "cyan", "=": "green"}


class StepList(OptionList):
    """The prompt comes first; a step's place in the list is its number."""

    def __init__(self, views: Sequence[StepView], *, id: str) -> None:
        self.views = tuple(views)
        self.replayed: dict[int, StepReplay] = {}
        prompt = Text("  0 prompt", "dim")
        super().__init__(prompt, *map(self._line, self.views), id=id, markup=False)

    @property
    def at(self) -> int:
        """The step under the cursor; -1 on the prompt."""
        return (self.highlighted or 0) - 1

    def go(self, step: int) -> None:
        if -1 <= step < len(self.views):
            self.highlighted = step + 1

    def note(self, step: StepReplay) -> None:
        self.replayed[step.index] = step
        view = self.views[step.index]
        self.replace_option_prompt_at_index(step.index + 1, self._line(view))

    def grow(self, views: Sequence[StepView]) -> None:
        """The same trajectory with more steps, or with more known of those it has."""
        known, self.views = len(self.views), tuple(views)
        for view in self.views[:known]:
            self.replace_option_prompt_at_index(view.index + 1, self._line(view))
        self.add_options(map(self._line, self.views[known:]))

    def _line(self, view: StepView) -> Text:
        replayed = self.replayed.get(view.index)
        text = Text(f"{view.index + 1:3} ")
        if replayed is not None:
            mark, tone = MARKS[replayed.result]
            text.append(f"{mark:2} ", tone)
        text.append(f"{view.mark} ", TONES.get(view.mark, "dim"))
        command = " ".join((view.step.command or str(view.kind)).split())
        text.append(visible(command)[:200])
        return text
