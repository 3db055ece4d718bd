"""The probe against a chat endpoint: letter log-probabilities where it gives them, else samples."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from contextrl.pairs.endpoints import ChatEndpoint, ChatReply
from contextrl.pairs.probe import ProbeReport, PromptResult, summarise
from contextrl.pairs.types import RenderedPair

TOP_LOGPROBS = 20
MAX_REPLY_TOKENS = 16
_LETTER = re.compile(r"\b([AB])\b")


def probe_endpoint(
    rendered: Sequence[RenderedPair],
    endpoint: ChatEndpoint,
    *,
    style_name: str,
    samples: int = 1,
    concurrency: int = 8,
    over_budget: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> ProbeReport:
    """Ask every prompt. Raises `JudgeError` when the endpoint refuses or stays busy.

    Without log-probabilities the margin is the log-odds of `samples` replies, each letter counted
    half a time more than it was said; with one sample it says right, wrong (+-1.1) or neither (0).
    """

    def ask(prompt: RenderedPair) -> PromptResult:
        text = prompt.prompt + (f"\n{prompt.prefill}" if prompt.prefill else "")
        first = endpoint.ask(text, max_tokens=MAX_REPLY_TOKENS, top_logprobs=TOP_LOGPROBS)
        margin = letter_margin(first)
        if margin is None:
            rest = [
                endpoint.ask(text, max_tokens=MAX_REPLY_TOKENS) for _ in range(max(0, samples - 1))
            ]
            margin = sampled_margin([reply.text for reply in (first, *rest)])
        return PromptResult(
            pair_id=prompt.pair_id,
            order=prompt.order,
            correct=prompt.correct,
            margin=margin if prompt.correct == "A" else -margin,
        )

    results = []
    with ThreadPoolExecutor(concurrency) as pool:
        for result in pool.map(ask, rendered):
            results.append(result)
            on_progress(len(results), len(rendered))
    return summarise(results, style_name=style_name, over_budget=over_budget)


def letter_margin(reply: ChatReply) -> float | None:
    """log p(A) - log p(B) at the first position, None when the endpoint shows neither.

    A letter below the shown ones counts as the least likely of them.
    """
    if not reply.first_token:
        return None
    floor = min(reply.first_token.values())
    letters: dict[str, list[float]] = {"A": [], "B": []}
    for token, value in reply.first_token.items():
        if token.strip() in letters:
            letters[token.strip()].append(value)
    if not (letters["A"] or letters["B"]):
        return None
    return max(letters["A"], default=floor) - max(letters["B"], default=floor)


def sampled_margin(replies: Sequence[str]) -> float:
    """Log-odds of A over B; a reply that names neither or both letters is not counted."""
    said = [set(_LETTER.findall(reply)) for reply in replies]
    a, b = said.count({"A"}), said.count({"B"})
    return math.log((a + 0.5) / (b + 0.5))
