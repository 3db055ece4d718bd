"""The terminal application: a table of trajectories, and from there one of them, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.screen import ModalScreen, Screen
from textual.widgets import DataTable, Footer, Input, OptionList, Static

from contextrl.agents.errors import AgentsError
from contextrl.agents.viewer.detail import Decode
from contextrl.agents.viewer.index import Row, TrajectoryIndex, in_tree_order
from contextrl.agents.viewer.pair_screen import PairScreen
from contextrl.agents.viewer.pairs import PairView
from contextrl.agents.viewer.running import RunningList
from contextrl.agents.viewer.searching import pattern_of
from contextrl.agents.viewer.trajectory_screen import TrajectoryScreen
from contextrl.agents.viewer.visible import visible
from contextrl.agents.viewer.workbench import Workbench

SLICE_S = 0.03
"""How long the index may read before keys are looked at again."""
POLL_S = 1.0
COLUMNS = ("trajectory", "outcome", "ended by", "turns", "tokens", "seconds")

HELP = """\
Table        enter open   / filter   g the newest   l those that are running   q quit
Trajectory   j k next, previous step      e next edit      x next failing test     ! next error
             / search, /re/ a regular expression           n N next, previous match
             f fold or unfold     t tokens     c copy command     y copy observation
             r re-execute all steps in a fresh sandbox, marking what diverged
             b branch before this step, by hand      p the same, by the policy
Pair         v valid   i invalid   u uncertain   d to the decisive rows   j k next, previous pair
Everywhere   escape back   ? this help

Marks of steps:  x failing tests   ! error   * edit   = submission   # diverged when re-executed"""


class HelpScreen(ModalScreen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [("escape,q,question_mark", "app.pop_screen", "Close")]
    CSS = "HelpScreen { align: center middle; } #help { width: auto; padding: 1 2; border: round; }"

    def compose(self) -> ComposeResult:
        yield Static(Text(HELP), id="help")


class RunScreen(Screen[None]):
    """Rows come in while the index reads, and later as the run grows."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("slash", "filter", "Filter"),
        ("g", "follow", "Newest"),
        ("l", "live", "Running"),
        ("question_mark", "app.help", "Help"),
        ("q", "app.quit", "Quit"),
    ]
    CSS = "#filter { display: none; } #filter.on { display: block; } "
    CSS += "#status { height: 1; } #table { height: 1fr; }"

    def __init__(self, index: TrajectoryIndex) -> None:
        super().__init__()
        self._index = index
        self._shown = 0
        self._replaced = 0
        """Rows of the index that the table has seen."""
        self._filter = ""

    def compose(self) -> ComposeResult:
        yield Static(id="status", markup=False)
        yield RunningList(id="running")
        yield DataTable[Text](id="table", cursor_type="row", zebra_stripes=True)
        yield Input(placeholder="filter by id, outcome or policy; /re/", id="filter")
        yield Footer()

    def on_mount(self) -> None:
        self._table.add_columns(*COLUMNS)
        self._table.focus()
        self._read()

    @property
    def _table(self) -> DataTable[Text]:
        return self.query_one("#table", DataTable)

    def _read(self) -> None:
        """A slice of what the files hold, then the next one soon, or a look a second later."""
        found = self._index.refresh(SLICE_S)
        if self._index.replaced > self._replaced:
            self._shown, self._replaced = len(self._index.rows), self._index.replaced
            self._fill()
        elif len(self._index.rows) > self._shown:  # a watched episode's end reads them as well
            self._add(self._index.rows[self._shown :])
        if not found:
            self.query_one("#running", RunningList).show(self._index.running())
        self._say()
        self.set_timer(0.01 if found else POLL_S, self._read)

    def _add(self, rows: list[Row]) -> None:
        self._shown = len(self._index.rows)
        if any(row.parent_id for row in rows):
            self._fill()  # a branch belongs below its parent, wherever that is
            return
        for row in rows:
            self._add_row(0, row)

    def _fill(self) -> None:
        self._table.clear()
        for depth, row in in_tree_order(self._index.rows):
            self._add_row(depth, row)

    def _add_row(self, depth: int, row: Row) -> None:
        pattern = pattern_of(self._filter)
        if pattern and not pattern.search(f"{row.trajectory_id} {row.failure} {row.policy}"):
            return
        name = f"{'  ' * depth}{'+ ' if depth else ''}{visible(row.trajectory_id)}"
        tone = {"resolved": "green", "ungraded": "dim", "infrastructure": "dim"}
        self._table.add_row(
            Text(name),
            Text(str(row.failure), tone.get(str(row.failure), "red")),
            Text(visible(row.stop_reason or row.problem)),
            Text(str(row.turns)),
            Text(str(row.sampled_tokens or "-")),
            Text(f"{row.seconds:.1f}"),
            key=str(row.number),
        )

    def _say(self) -> None:
        rows = self._index.rows
        graded = [row.score for row in rows if row.score is not None]
        share = f", {sum(graded):.0f} of {len(graded)} resolved" if graded else ""
        text = f"{self._index.path}: {len(rows)} trajectories{share}"
        if self._filter:
            text += f", {self._table.row_count} match {self._filter}"
        self.query_one("#status", Static).update(Text(visible(text)))

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        self.open(int(str(event.row_key.value)))

    def open(self, number: int) -> None:
        try:
            trajectory = self._index.load(number)
        except AgentsError as error:
            self.notify(visible(str(error)), severity="error", markup=False)
            return
        assert isinstance(self.app, ReplayApp)
        self.app.push_screen(TrajectoryScreen(trajectory, self.app.decode, self.app.workbench))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.watch_episode(self.query_one("#running", RunningList).trajectory_id)

    def watch_episode(self, trajectory_id: str) -> bool:
        """Opens one that is running, or has just ended; false if there is none of that id."""
        now = self._index.current(trajectory_id)
        if now is None:
            self.notify("it has ended without being stored")
            return False
        assert isinstance(self.app, ReplayApp)
        self.app.push_screen(
            TrajectoryScreen(
                now,
                self.app.decode,
                self.app.workbench,
                watch=lambda: self._index.current(trajectory_id),
            )
        )
        return True

    def action_live(self) -> None:
        running = self.query_one("#running", RunningList)
        if running.episodes:
            self.set_focus(running)  # at once: the next key may be there already
            running.highlighted = running.highlighted or 0
        else:
            self.notify("no episode is running")

    def action_filter(self) -> None:
        self.query_one("#filter").add_class("on")
        self.query_one("#filter").focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self._filter = event.value
        event.input.remove_class("on")
        self._table.focus()
        self._fill()
        self._say()

    def action_follow(self) -> None:
        self._table.move_cursor(row=self._table.row_count - 1)


class ReplayApp(App[None]):
    """`trajectory_id` opens one at once; pairs, if given, are shown instead of a run."""

    TITLE = "contextrl replay"
    ENABLE_COMMAND_PALETTE = False

    def __init__(
        self,
        index: TrajectoryIndex | None = None,
        *,
        pairs: list[PairView] | None = None,
        labels: Path | None = None,
        workbench: Workbench | None = None,
        decode: Decode | None = None,
        trajectory_id: str = "",
    ) -> None:
        super().__init__()
        self.workbench = workbench
        self.decode = decode
        self._index = index
        self._pairs = pairs or []
        self._labels = labels
        self._wanted = trajectory_id

    def on_mount(self) -> None:
        if self._index is None:
            self.push_screen(PairScreen(self._pairs, self._labels))
            return
        run = RunScreen(self._index)
        self.push_screen(run)
        if self._wanted or self._index.path.suffix == ".json":
            self._index.refresh()
            row = self._index.find(self._wanted) if self._wanted else self._index.rows[0]
            if row is None and self._index.current(self._wanted) is not None:
                self.call_after_refresh(run.watch_episode, self._wanted)
            elif row is None:
                self.exit(
                    return_code=1, message=f"expected a trajectory {self._wanted}, found none"
                )
            else:
                self.call_after_refresh(run.open, row.number)

    def action_help(self) -> None:
        self.push_screen(HelpScreen())
