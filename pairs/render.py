"""Pair + order -> the two-option prompt. The ONE source for the probe and for training.

Both contexts come first, the patch after them, the question last: a causal model reads the
evidence once and meets the query with both options already in its cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from contextrl.pairs.budget import Block, CountTokens, trim, whole
from contextrl.pairs.diffs import patch_lines
from contextrl.pairs.encode import (
    EncodedPair,
    OptionTokens,
    Tokenizer,
    encode,
    option_token_ids,
    token_counter,
)
from contextrl.pairs.errors import PromptBudgetError
from contextrl.pairs.types import Order, RenderedPair, TrajectoryContext, TrajectoryPair

__all__ = [
    "COMPACT",
    "RELEASED",
    "STYLES",
    "AnswerForm",
    "EncodedPair",
    "OptionTokens",
    "PairPromptStyle",
    "Tokenizer",
    "encode",
    "option_token_ids",
    "order_for",
    "orders",
    "render",
    "token_counter",
]


class AnswerForm(StrEnum):
    """How much of the answer patch the prompt shows."""

    PATCH = "patch"
    """The whole unified diff."""
    CHANGES = "changes"
    """Its removed and added lines only."""
    REMOVED = "removed"
    """Its removed lines only: the narrowest query, the one a tiny model can learn to look up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairPromptStyle:
    """Every word of the prompt that is ours, joined by newlines. An empty header is no line."""

    name: str
    opening: str
    option_header: str
    """Holds `{letter}`; stands above each context."""
    issue_header: str | None
    """None leaves the issue of each run out."""
    reply_header: str
    observation_header: str
    show_replies: bool
    """False shows only what the run observed."""
    answer_header: str
    answer_form: AnswerForm
    closing: str
    prefill: str = ""
    """What the assistant's message begins with: "" for Qwen3, "The correct option is" for Klear."""
    spaced_letters: bool = False
    """See `RenderedPair`: the release's agentic recipe scores both forms, its image recipe one."""


RELEASED = PairPromptStyle(
    name="released",
    opening=(
        "Below are two debugging sessions by software agents, option A and option B, followed by "
        "one patch. Exactly one of the sessions produced the patch. Wherever a session showed its "
        "own patch the text was replaced by <PATCH_MASKED>."
    ),
    option_header="\n===== Option {letter} =====",
    issue_header="[issue]",
    reply_header="[agent]",
    observation_header="[observation]",
    show_replies=True,
    answer_header="\n===== Patch =====",
    answer_form=AnswerForm.PATCH,
    closing="\nWhich option is the session that produced this patch? Answer A or B, nothing else.",
    spaced_letters=True,
)

COMPACT = PairPromptStyle(
    name="compact",
    opening="",
    option_header="{letter}:",
    issue_header=None,
    reply_header="",
    observation_header="",
    show_replies=False,
    answer_header="patch:",
    answer_form=AnswerForm.CHANGES,
    closing="A or B?",
)

STYLES = {style.name: style for style in (RELEASED, COMPACT)}


def order_for(pair_id: str, seed: int) -> Order:
    """A fair coin fixed by (pair_id, seed). Over a known set of pairs prefer `orders`."""
    return Order.POSITIVE_FIRST if _digest(pair_id, seed)[0] & 1 else Order.POSITIVE_SECOND


def orders(pair_ids: Iterable[str], seed: int) -> dict[str, Order]:
    """An order per id, random by seed, with the two orders' counts at most one apart.

    A function of the SET of ids: their sequence and repeats do not matter.
    """
    ranked = sorted(set(pair_ids), key=lambda pair_id: _digest(pair_id, seed))
    first, second = Order.POSITIVE_FIRST, Order.POSITIVE_SECOND
    if seed % 2:  # an odd set must not always favour one letter
        first, second = second, first
    return {pair_id: second if rank % 2 else first for rank, pair_id in enumerate(ranked)}


def render(
    pair: TrajectoryPair,
    order: Order,
    style: PairPromptStyle,
    *,
    max_tokens: int | None = None,
    count_tokens: CountTokens | None = None,
) -> RenderedPair:
    """The prompt of `pair`, its supporting context shown where `order` says.

    With `max_tokens` (which needs `count_tokens`) lines are left out until prompt and prefill fit:
    lines that both sides share first, never the decisive ones.

    Raises:
        PromptBudgetError: the decisive part alone is longer than the budget.
    """
    if (max_tokens is None) != (count_tokens is None):
        raise ValueError("max_tokens and count_tokens go together")
    removed = patch_lines(pair.answer).removed
    sides = [_blocks(pair.positive, style, removed), _blocks(pair.negative, style, removed)]
    if order is Order.POSITIVE_SECOND:
        sides.reverse()

    def assemble(first: list[str], second: list[str]) -> str:
        pieces = [style.opening] if style.opening else []
        for letter, lines in (("A", first), ("B", second)):
            pieces += [style.option_header.format(letter=letter), *lines]
        pieces += [style.answer_header, _answer(pair.answer, style.answer_form), style.closing]
        return "\n".join(pieces)

    if max_tokens is None or count_tokens is None:
        prompt = assemble(whole(sides[0]), whole(sides[1]))
    else:
        count = count_tokens

        def size(prompt: str) -> int:
            return count(prompt + style.prefill)

        try:
            prompt = trim(sides[0], sides[1], assemble, size, max_tokens)
        except PromptBudgetError as error:
            raise PromptBudgetError(f"pair {pair.pair_id}: {error}") from error
    return RenderedPair(
        pair_id=pair.pair_id,
        order=order,
        prompt=prompt,
        prefill=style.prefill,
        correct=order.correct,
        spaced_letters=style.spaced_letters,
    )


def _blocks(
    context: TrajectoryContext, style: PairPromptStyle, removed: tuple[str, ...]
) -> list[Block]:
    decisive = frozenset(context.decisive) | frozenset(removed)
    blocks = []
    if style.issue_header is not None:
        blocks.append(Block.of(style.issue_header, context.question, frozenset()))
    for message in context.messages:
        if not message.content.strip():
            continue
        if message.role == "assistant":
            if style.show_replies:
                blocks.append(Block.of(style.reply_header, message.content, frozenset()))
        else:
            blocks.append(Block.of(style.observation_header, message.content, decisive))
    return blocks


def _answer(patch: str, form: AnswerForm) -> str:
    if form is AnswerForm.PATCH:
        return patch.rstrip("\n")
    lines = patch_lines(patch)
    shown = [f"-{line}" for line in lines.removed]
    if form is AnswerForm.CHANGES or not shown:
        shown += [f"+{line}" for line in lines.added]
    return "\n".join(shown)


def _digest(pair_id: str, seed: int) -> bytes:
    return hashlib.sha256(f"order {seed} {pair_id}".encode()).digest()
