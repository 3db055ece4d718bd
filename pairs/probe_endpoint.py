"""The probe against a chat endpoint: letter log-probabilities where it gives them, else samples."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from contextrl.pairs.encode import IMAGE_MARK
from contextrl.pairs.endpoints import ChatEndpoint, ChatReply
from contextrl.pairs.errors import ImageError, JudgeError, RefusedError
from contextrl.pairs.images import open_image, png_file
from contextrl.pairs.probe import ProbeReport, PromptResult, summarise
from contextrl.pairs.refusals import Refusals
from contextrl.pairs.types import RenderedPair

logger = logging.getLogger(__name__)

TOP_LOGPROBS = 20
MAX_REPLY_TOKENS = 16
MAX_PIXELS = 1_003_520
"""Of an image as it is sent; what a local model sees by default, and all that fits a request."""
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
    """Ask every prompt. Raises `JudgeError` when the endpoint refuses all of them or stays busy.

    A pair that it refuses (too long, or its policy), or with an image that does not open, is left
    out, named in the log, and counted on top of `over_budget`. Without log-probabilities the margin
    is the log-odds of `samples` replies, each letter counted half a time more than it was said;
    with one sample it says right, wrong (+-1.1) or neither (0).
    """
    left_out: set[str] = set()
    refused: list[RefusedError] = []
    refusals = Refusals(advice="see the first one with --limit 1")

    def ask(prompt: RenderedPair) -> PromptResult | None:
        text = prompt.prompt + (f"\n{prompt.prefill}" if prompt.prefill else "")
        try:
            images = shown_images(prompt)
        except ImageError as error:
            logger.warning("left out: %s", error)
            left_out.add(prompt.pair_id)
            return None

        def reply(top_logprobs: int = 0) -> ChatReply:
            return endpoint.ask(
                text,
                max_tokens=MAX_REPLY_TOKENS,
                top_logprobs=top_logprobs,
                images=images,
                mark=IMAGE_MARK if images else "",
            )

        try:
            first = reply(TOP_LOGPROBS)
            margin = letter_margin(first)
            if margin is None:
                rest = [reply() for _ in range(max(0, samples - 1))]
                margin = sampled_margin([each.text for each in (first, *rest)])
        except RefusedError as error:
            refusals.add(error)
            refused.append(error)
            logger.warning("left out: %s: %s", prompt.pair_id, error)
            left_out.add(prompt.pair_id)
            return None
        refusals.worked()
        return PromptResult(
            pair_id=prompt.pair_id,
            order=prompt.order,
            correct=prompt.correct,
            margin=margin if prompt.correct == "A" else -margin,
        )

    results: list[PromptResult] = []
    with ThreadPoolExecutor(concurrency) as pool:
        for done, result in enumerate(pool.map(ask, rendered), start=1):
            results += [result] if result is not None else []
            on_progress(done, len(rendered))
    if refused and not results:
        raise JudgeError(f"no prompt got an answer, the last with: {refused[-1]}")
    return summarise(
        [result for result in results if result.pair_id not in left_out],
        style_name=style_name,
        over_budget=over_budget + len(left_out),
    )


def shown_images(prompt: RenderedPair) -> list[bytes]:
    """PNG files of its images, opened and reduced as for a local model.

    Raises `ImageError` naming the pair for a file that does not open, or marks that do not fit.
    """
    marks = prompt.prompt.count(IMAGE_MARK)
    if prompt.images and marks != len(prompt.images):
        raise ImageError(
            f"{prompt.pair_id}: expected one {IMAGE_MARK} for each of its {len(prompt.images)} "
            f"images, found {marks}; fix or drop the row"
        )
    return [png_file(_reduced(open_image(file, row_id=prompt.pair_id))) for file in prompt.images]


def _reduced(image: Image.Image) -> Image.Image:
    width, height = image.size
    if width * height <= MAX_PIXELS:
        return image
    scale = math.sqrt(MAX_PIXELS / (width * height))
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)


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
