"""A rendered pair -> token ids through the model's own chat template, and the letters to compare.

No torch and no transformers here: any object with a tokenizer's four methods will do.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from contextrl.pairs.errors import OptionTokenError, PairsError
from contextrl.pairs.masking import MASK
from contextrl.pairs.types import RenderedPair


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used here."""

    chat_template: Any

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any: ...

    def get_added_vocab(self) -> dict[str, int]: ...


@runtime_checkable
class VisionTokenizer(Tokenizer, Protocol):
    """The tokenizer of a model that also sees."""

    image_placeholder: str
    """What stands for an image in a text, as the model's own chat template writes it."""

    def expand(
        self, token_ids: Sequence[int], images: Sequence[Any], *, row_id: str
    ) -> tuple[list[int], Any]:
        """One token per image feature, and what the model needs besides tokens."""
        ...


IMAGE_MARK = "<image>"
"""Stands for the next image in a prompt that has images, as in the released data."""


@dataclass(frozen=True, slots=True)
class OptionTokens:
    """Ids that stand for each letter at the scored position; the likelier of each is compared."""

    a: tuple[int, ...]
    b: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """A prompt ready for a forward pass. The scored position is the LAST of `token_ids`."""

    pair_id: str
    token_ids: tuple[int, ...]
    correct_ids: tuple[int, ...]
    other_ids: tuple[int, ...]
    vision: Any = None
    """What a model that sees needs besides tokens; opaque here, None for a model of text."""


def option_token_ids(
    tokenizer: Tokenizer, prefill: str = "", *, spaced: bool = False
) -> OptionTokens:
    """Bare letters; with `spaced`, or after a prefill, also the letters behind a space.

    As in the release: both forms for agentic pairs, bare letters for images. A vocabulary may lack
    ` A` where nothing stands before it; after a prefill it is what a model would say.

    Raises:
        OptionTokenError: a letter is not exactly one known token, or both are the same.
    """
    after_word = prefill != "" and not prefill[-1].isspace()
    forms = ("{}", " {}") if after_word else ("{}",)
    a, b = ([_single(tokenizer, form.format(letter)) for form in forms] for letter in "AB")
    if spaced and not after_word:
        with contextlib.suppress(OptionTokenError):
            further = [_single(tokenizer, f" {letter}") for letter in "AB"]
            a, b = [*a, further[0]], [*b, further[1]]
    if set(a) & set(b):
        raise OptionTokenError(
            f"expected different tokens for A and B, found {tuple(a)} and {tuple(b)}; "
            "use a tokenizer whose vocabulary holds both letters"
        )
    return OptionTokens(a=tuple(a), b=tuple(b))


def encode(rendered: RenderedPair, tokenizer: Tokenizer) -> EncodedPair:
    """One user message, the generation prompt without thinking, the prefill; nothing after it.

    Text of a context can never become a control token: `<|im_end|>` inside an observation is
    written `< |im_end|>`.

    Raises:
        OptionTokenError: see `option_token_ids`.
        PairsError: the tokenizer has no chat template, or a control token got through.
    """
    options = option_token_ids(tokenizer, rendered.prefill, spaced=rendered.spaced_letters)
    token_ids, vision = encode_prompt(
        rendered.prompt,
        tokenizer,
        prefill=rendered.prefill,
        images=rendered.images,
        row_id=rendered.pair_id,
    )
    correct, other = (options.a, options.b) if rendered.correct == "A" else (options.b, options.a)
    return EncodedPair(rendered.pair_id, tuple(token_ids), correct, other, vision)


def token_counter(tokenizer: Tokenizer) -> Callable[[str], int]:
    """What `render(count_tokens=...)` wants: tokens of a text once it stands in the template."""
    control = _control_tokens(tokenizer)
    return lambda text: len(_framed(_defused(text, control), "", tokenizer))


def encode_prompt(
    prompt: str,
    tokenizer: Tokenizer,
    *,
    row_id: str,
    closing: str = "",
    prefill: str = "",
    images: Sequence[Any] = (),
) -> tuple[list[int], Any]:
    """Token ids of one user message and the reply's first words; what a model that sees needs too.

    `images` are encoded files, or whatever else the model's `VisionTokenizer` takes. Raises what
    `prompt_ids` does, and what the tokenizer raises for an image.
    """
    token_ids = prompt_ids(
        prompt, tokenizer, row_id=row_id, closing=closing, prefill=prefill, n_images=len(images)
    )
    if isinstance(tokenizer, VisionTokenizer):
        return tokenizer.expand(token_ids, images, row_id=row_id)
    return token_ids, None


def prompt_ids(
    prompt: str,
    tokenizer: Tokenizer,
    *,
    row_id: str,
    closing: str = "",
    prefill: str = "",
    n_images: int = 0,
) -> list[int]:
    """The same with one placeholder for each image: all that can be known before they are opened.

    With images, each `IMAGE_MARK` of the prompt is the next of them. Without, a mark is text.
    `closing` are words of ours that end the message: only what stands before them is foreign, so
    a `<think>` among them is the token of that name.

    Raises:
        PairsError: the marks do not fit the images, the model does not see, there is no chat
            template, or a control token got through.
    """
    control = _control_tokens(tokenizer)
    text, placeholders = _defused(prompt, control), ""
    if n_images:
        if not isinstance(tokenizer, VisionTokenizer):
            raise PairsError(
                f"{row_id}: expected a model with an image processor for its images, found a "
                "model of text; use a vision model"
            )
        marks = text.count(IMAGE_MARK)
        if marks != n_images:
            raise PairsError(
                f"{row_id}: expected one {IMAGE_MARK} for each of its {n_images} images, found "
                f"{marks}; fix or drop the row"
            )
        text = text.replace(IMAGE_MARK, tokenizer.image_placeholder)
        placeholders = tokenizer.image_placeholder * n_images
    token_ids = _framed(text + closing, prefill, tokenizer)
    harmless = _framed("x" + placeholders + closing, prefill, tokenizer)
    expected, found = _count(harmless, control), _count(token_ids, control)
    if found != expected:
        raise PairsError(
            f"{row_id}: expected {expected} control tokens in the prompt, found {found}: its text "
            "holds one that could not be defused; drop it"
        )
    return token_ids


def _framed(prompt: str, prefill: str, tokenizer: Tokenizer) -> list[int]:
    if not tokenizer.chat_template:
        raise PairsError(
            "expected a tokenizer with a chat template, found none; use the model's chat version"
        )
    arguments: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True}
    if "enable_thinking" in str(tokenizer.chat_template):
        arguments["enable_thinking"] = False
    text = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], **arguments)
    return list(tokenizer.encode(text + prefill, add_special_tokens=False))


def _control_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    """Added tokens that look like markup. Runs of spaces, which some vocabularies add, do not."""
    return {
        text: token_id
        for text, token_id in tokenizer.get_added_vocab().items()
        if len(text) > 1 and text != MASK and not text[0].isalnum() and not text[0].isspace()
    }


def _defused(text: str, control: dict[str, int]) -> str:
    if not control:
        return text
    longest_first = sorted(control, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)))
    return pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


def _count(token_ids: list[int], control: dict[str, int]) -> int:
    ids = set(control.values())
    return sum(token_id in ids for token_id in token_ids)


def _single(tokenizer: Tokenizer, letter: str) -> int:
    token_ids = tokenizer.encode(letter, add_special_tokens=False)
    unknown = getattr(tokenizer, "unk_token_id", None)
    if len(token_ids) != 1 or token_ids[0] == unknown:
        raise OptionTokenError(
            f"expected the option letter {letter!r} to be one known token, found {token_ids}; "
            "use another prefill or another tokenizer"
        )
    return token_ids[0]
