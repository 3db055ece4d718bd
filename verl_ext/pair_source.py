"""Where pairs come from, whatever their contexts: a folder, released JSONL, rows of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from contextrl.pairs.budget import CountTokens
from contextrl.pairs.images import ImageStore
from contextrl.pairs.released import ReleasedPair
from contextrl.pairs.render import STYLES, PairPromptStyle, render
from contextrl.pairs.render_images import IMAGE_STYLES, ImagePairStyle, render_images
from contextrl.pairs.store import PAIRS, read_any
from contextrl.pairs.types import ImagePair, ImageRef, Order, RenderedPair, TrajectoryPair
from contextrl.pairs.vqa import ReleasedImagePair
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.vqa_rows import VQARows, is_row_file

OwnPair = TrajectoryPair | ImagePair
FixedPair = ReleasedPair | ReleasedImagePair
"""Of the release: its one option order is part of the text."""


@dataclass(frozen=True, slots=True)
class PairStyles:
    """The words around both kinds of contexts, under one name."""

    trajectories: PairPromptStyle
    images: ImagePairStyle

    @property
    def prefill(self) -> str:
        return self.trajectories.prefill


def pair_styles(name: str, prefill: str | None) -> PairStyles:
    """Raises `ConfigError` for an unknown name. `prefill` None keeps the style's own."""
    if name not in STYLES or name not in IMAGE_STYLES:
        raise ConfigError(f"ca.style must be one of {sorted(STYLES)}, got {name!r}")
    style = STYLES[name]
    if prefill is not None:
        style = dataclasses.replace(style, prefill=prefill)
    return PairStyles(style, IMAGE_STYLES[name])


class PairSource(Sequence[OwnPair | FixedPair]):
    """Pairs by number; those of image rows are read when asked for."""

    def __init__(
        self,
        pairs: Sequence[OwnPair | FixedPair],
        read: Callable[[ImageRef], bytes] | None = None,
    ) -> None:
        self._pairs = pairs
        self._read = read

    @classmethod
    def open(cls, source: str | Path) -> PairSource:
        """Raises `PairFileError`."""
        if is_row_file(source):
            return cls(_RowPairs(VQARows.open(source)))
        path = Path(source)
        folder = path.parent if path.name == PAIRS else path
        return cls(read_any(path), ImageStore(folder).read)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._pairs[index]

    @property
    def of_images(self) -> bool:
        """Whether any of its pairs shows images."""
        rows = isinstance(self._pairs, _RowPairs)
        return rows or any(isinstance(pair, ImagePair) for pair in self._pairs)

    def own(self, limit: int | None = None) -> dict[str, OwnPair]:
        """The first pairs by their ids; none of the release's, which do not say where from."""
        if isinstance(self._pairs, _RowPairs):
            return {}
        return {pair.pair_id: pair for pair in self[:limit] if isinstance(pair, OwnPair)}

    def render(
        self,
        pair: OwnPair | FixedPair,
        order: Order,
        styles: PairStyles,
        *,
        max_tokens: int | None = None,
        count_tokens: CountTokens | None = None,
    ) -> RenderedPair:
        """The prompt; a released pair has one order, whatever is asked.

        Raises `PromptBudgetError`, or `ImageError` if an image file is missing.
        """
        if isinstance(pair, FixedPair):
            return pair.rendered(styles.prefill)
        if isinstance(pair, ImagePair):
            assert self._read is not None, "pairs of images come from a folder"
            return render_images(pair, order, styles.images, self._read, prefill=styles.prefill)
        return render(
            pair, order, styles.trajectories, max_tokens=max_tokens, count_tokens=count_tokens
        )


class _RowPairs(Sequence[FixedPair]):
    def __init__(self, rows: VQARows) -> None:
        self._rows = rows
        self._numbers = rows.kinds()[1]

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        return ReleasedImagePair(row=self._rows.row(self._numbers[index]))

    def __iter__(self) -> Iterator[FixedPair]:
        return (self[at] for at in range(len(self)))
