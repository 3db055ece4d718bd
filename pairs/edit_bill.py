"""What a run of editing would ask and cost: its own main flow, stopped before each paid call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contextrl.pairs.edit_calls import EditCalls, NotAskedError, Step
from contextrl.pairs.edit_prompts import propose_prompt, verify_prompt
from contextrl.pairs.edit_rows import EditRow, UnusableRow, edit_row
from contextrl.pairs.editing import EditSettings, SameAnswer, follow
from contextrl.pairs.judge import CHARS_PER_TOKEN
from contextrl.pairs.judge_images import PIXELS_PER_TOKEN
from contextrl.pairs.vqa import VQARow


@dataclass(frozen=True, slots=True)
class EditBill:
    """At most: a change may be turned down before it is made, and an edit before it is judged."""

    rows: int
    unusable: int
    answered: int
    """Rows that end without a new call."""
    proposals: int
    edits: int
    verdicts: int
    prompt_tokens: int
    completion_tokens: int
    """If every reply is as long as it may be."""
    chat_usd: float | None
    """None when the price is not known."""
    edit_usd: float | None

    @property
    def total_usd(self) -> float | None:
        if self.chat_usd is None or self.edit_usd is None:
            return None
        return self.chat_usd + self.edit_usd


def bill(
    rows: Sequence[VQARow], calls: EditCalls, settings: EditSettings, same_answer: SameAnswer
) -> EditBill:
    """`calls` is dry: nothing is sent, nothing is written."""
    due = dict.fromkeys(Step, 0)
    unusable = answered = tokens = 0
    edit_usd: float | None = 0.0
    seen: set[str] = set()
    for number in range(len(rows)):
        row = edit_row(rows, number, settings.image_sizes)
        if isinstance(row, UnusableRow):
            unusable += 1
            continue
        try:
            follow(row, calls.about(row), settings, same_answer)
            answered += 1
            continue
        except NotAskedError as error:
            first, key = error.step, error.key
        if key in seen:  # the same row again: its replies are shared
            answered += 1
            continue
        seen.add(key)
        for step in Step:
            if step >= first:
                due[step] += 1
                tokens += _tokens(step, row)
        if first <= Step.EDIT:
            shown = (row.canvas.width, row.canvas.height) if row.canvas else row.image.size
            price = calls.editor.estimate(*shown)
            edit_usd = None if price is None or edit_usd is None else edit_usd + price
    replies = (due[Step.PROPOSE] + due[Step.VERIFY]) * calls.max_reply_tokens
    return EditBill(
        rows=len(rows),
        unusable=unusable,
        answered=answered,
        proposals=due[Step.PROPOSE],
        edits=due[Step.EDIT],
        verdicts=due[Step.VERIFY],
        prompt_tokens=tokens,
        completion_tokens=replies,
        chat_usd=calls.chat.cost(tokens, replies) if tokens else 0.0,
        edit_usd=edit_usd,
    )


def _tokens(step: Step, row: EditRow) -> int:
    """Of the prompt, about."""
    image = row.image.width * row.image.height // PIXELS_PER_TOKEN
    if step is Step.PROPOSE:
        return int(len(propose_prompt(row.question, row.answer)) / CHARS_PER_TOKEN) + image
    if step is Step.VERIFY:
        prompt = verify_prompt(row.question, row.answer, row.answer)
        return int(len(prompt) / CHARS_PER_TOKEN) + 2 * image
    return 0
