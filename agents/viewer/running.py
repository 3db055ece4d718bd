"""The episodes of a run that have not ended yet, above the table of those that have."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from contextrl.agents.journal import RunningEpisode
from contextrl.agents.viewer.visible import visible


class RunningList(OptionList):
    """Seen only while an episode is running, or was when its process was killed."""

    DEFAULT_CSS = """
    RunningList { display: none; height: auto; max-height: 8; text-wrap: nowrap; }
    RunningList, RunningList:focus { border: none; text-overflow: ellipsis; }
    RunningList.on { display: block; }
    """

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, markup=False)
        self.episodes: list[RunningEpisode] = []

    def show(self, episodes: list[RunningEpisode]) -> None:
        """The cursor stays on its episode as long as that runs."""
        under_cursor = self.trajectory_id
        if [each.trajectory for each in episodes] != [each.trajectory for each in self.episodes]:
            self.episodes = list(episodes)
            self.set_options(Option(_line(each)) for each in episodes)
            ids = [each.trajectory.trajectory_id for each in episodes]
            self.highlighted = ids.index(under_cursor) if under_cursor in ids else None
        self.set_class(bool(episodes), "on")

    @property
    def trajectory_id(self) -> str:
        """Of the episode under the cursor; empty if there is none."""
        if self.highlighted is None or self.highlighted >= len(self.episodes):
            return ""
        return self.episodes[self.highlighted].trajectory.trajectory_id


def _line(episode: RunningEpisode) -> Text:
    trajectory = episode.trajectory
    steps = trajectory.steps
    tone = "green" if episode.alive else "red"
    text = Text().append("> " if episode.alive else "x ", tone)
    text.append(visible(trajectory.trajectory_id))
    text.append(f"  step {len(steps)}, {visible(trajectory.stop_detail)}", tone)
    if steps:
        command = steps[-1].command or "(no command)"
        text.append("  " + visible(" ".join(command.split()))[:200])
    return text
