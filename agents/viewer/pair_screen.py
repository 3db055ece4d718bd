"""A pair side by side: aligned, what decides it marked, and a label at one key."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import Screen
from textual.widgets import Footer, OptionList, Static

from contextrl.agents.errors import AgentsError
from contextrl.agents.viewer.labels import append_label
from contextrl.agents.viewer.pairs import AlignedRow, Cell, Label, PairView
from contextrl.agents.viewer.visible import visible

MASK = r"<PATCH_MASKED>|<[A-Z_]*MASKED[A-Z_]*>"
MAX_LINES = 40
"""Of a message."""


class PairScreen(Screen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        ("j", "move(1)", "Next"),
        ("k", "move(-1)", "Previous"),
        ("v", "label('VALID')", "Valid"),
        ("i", "label('INVALID')", "Invalid"),
        ("u", "label('UNCERTAIN')", "Uncertain"),
        ("d", "decisive", "Decisive"),
        ("question_mark", "app.help", "Help"),
        ("q", "app.quit", "Quit"),
    ]
    CSS = """
    #pairs { width: 30; height: 1fr; border: none; text-wrap: nowrap; text-overflow: ellipsis; }
    #question { height: auto; max-height: 12; padding: 0 1; }
    .row { height: auto; } .cell { width: 1fr; height: auto; padding: 0 1; border: round $surface; }
    .differs { border: round $warning; } #rows { width: 1fr; }
    """

    def __init__(self, pairs: list[PairView], labels: Path | None) -> None:
        super().__init__()
        self.pairs = list(pairs)
        self._labels = labels

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield OptionList(*map(_option, self.pairs), id="pairs", markup=False)
            with VerticalScroll(id="rows"):
                yield Static(id="question", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self._list.focus()
        if self.pairs:
            self._list.highlighted = 0

    @property
    def _list(self) -> OptionList:
        return self.query_one("#pairs", OptionList)

    @property
    def _at(self) -> int:
        return self._list.highlighted or 0

    async def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        pair = self.pairs[event.option_index]
        self.query_one("#question", Static).update(_question(pair))
        area = self.query_one("#rows", VerticalScroll)
        await area.query(".row").remove()
        await area.mount_all(_columns(row) for row in pair.rows)
        area.scroll_home(animate=False)

    def action_move(self, by: int) -> None:
        if 0 <= self._at + by < len(self.pairs):
            self._list.highlighted = self._at + by

    def action_decisive(self) -> None:
        """To the first row with a decisive line, else to the first that differs."""
        pair = self.pairs[self._at]
        marked = [n for n, row in enumerate(pair.rows) if _decisive(row)]
        rows = list(self.query(".row"))
        at = marked[0] if marked else pair.divergent
        if at < len(rows):
            self.query_one("#rows", VerticalScroll).scroll_to_widget(rows[at], top=True)

    def action_label(self, name: str) -> None:
        if self._labels is None:
            self.notify("labels have no file here")
            return
        label, pair = Label(name), self.pairs[self._at]
        try:
            append_label(self._labels, pair.pair_id, label)
        except AgentsError as error:
            self.notify(visible(str(error)), severity="error", markup=False)
            return
        self.pairs[self._at] = pair.model_copy(update={"label": label})
        self._list.replace_option_prompt_at_index(self._at, _option(self.pairs[self._at]))
        self.query_one("#question", Static).update(_question(self.pairs[self._at]))


def _option(pair: PairView) -> Text:
    tone = {Label.VALID: "green", Label.INVALID: "red", Label.UNCERTAIN: "yellow"}
    text = Text().append(f"{pair.label or '-':10}", tone[pair.label] if pair.label else "dim")
    text.append(visible(pair.pair_id))
    return text


def _question(pair: PairView) -> Text:
    text = Text().append(visible(pair.pair_id), "bold")
    text.append(f"  {visible(pair.where)}  label: {pair.label or 'none'}\n", "dim")
    margins = ", ".join(f"{order} {value:+.2f}" for order, value in pair.margins.items())
    text.append(f"margin by order, nats: {margins or 'no probe result given'}\n", "cyan")
    text.append(visible(pair.question).strip()[:600] + "\n\n")
    text.append(visible(pair.answer).strip()[:1200], "green")
    return text


def _decisive(row: AlignedRow) -> bool:
    return any(cell is not None and cell.decisive for cell in (row.left, row.right))


def _columns(row: AlignedRow) -> Horizontal:
    kind = "cell" if row.same else "cell differs"
    sides = [Static(_cell(cell), classes=kind, markup=False) for cell in (row.left, row.right)]
    return Horizontal(*sides, classes="row")


def _cell(cell: Cell | None) -> Text:
    if cell is None:
        return Text("(nothing here)", "dim italic")
    lines = visible(cell.text).split("\n")
    text = Text().append(f"{cell.role}\n", "dim")
    for number, line in enumerate(lines):
        if number < MAX_LINES or line in cell.decisive:
            text.append(line + "\n", "black on yellow" if line in cell.decisive else "")
    if len(lines) > MAX_LINES:
        text.append(f"... {len(lines)} lines in all", "dim italic")
    text.highlight_regex(MASK, "reverse")
    return text
