"""Where pairs come from, whatever their contexts: a folder, released JSONL, rows of a table."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from contextrl.pairs.budget import CountTokens
from contextrl.pairs.hub import fetched, on_hub
from contextrl.pairs.images import ImageStore
from contextrl.pairs.released import ReleasedPair
from contextrl.pairs.render import STYLES, PairPromptStyle, render
from contextrl.pairs.render_images import IMAGE_STYLES, ImagePairStyle, render_images
from contextrl.pairs.store import PAIRS, read_any
from contextrl.pairs.types import ImagePair, ImageRef, Order, RenderedPair, TrajectoryPair
from contextrl.pairs.vqa import ReleasedImagePair
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.pair_tables import text_pairs
from contextrl.verl_ext.settings import CAConfig
from contextrl.verl_ext.vqa_rows import COLUMNS, VQARows, open_table

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
        """A pair folder, the released JSONL, parquet of any kind, or either of the hub.

        Raises `PairFileError`, or `SourceError` for the hub.
        """
        name = fetched(str(source))
        if on_hub(name) or name.endswith(".parquet"):
            table = open_table(name)
            if set(table.column_names) >= COLUMNS:
                rows = VQARows(name, table)
                return cls(_RowPairs(rows, rows.kinds()[1]))
            return cls(text_pairs(name, table))
        path = Path(name)
        folder = path.parent if path.name == PAIRS else path
        return cls(read_any(path), ImageStore(folder).read)

    def only(self, numbers: Iterable[int]) -> PairSource:
        """The pairs of these numbers; none is read for it."""
        if isinstance(self._pairs, _RowPairs):
            return PairSource(self._pairs.only(numbers), self._read)
        return PairSource([self._pairs[number] for number in numbers], self._read)

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


def training_pairs(config: CAConfig) -> PairSource:
    """Those of `ca.pairs` that are trained on. Raises `PairFileError`, `SourceError` or
    `ConfigError`."""
    if config.pairs is None:
        raise ConfigError("expected ca.pairs to name a pair file, found null")
    source = PairSource.open(config.pairs)
    held_out = set(_held_out_numbers(config, len(source)))
    return source.only(n for n in range(len(source)) if n not in held_out) if held_out else source


def measured_pairs(config: CAConfig) -> PairSource | None:
    """Those that the probe asks about before and after: of `ca.held_out`, else what
    `ca.n_held_out` leaves out of training; None for none. Raises as `training_pairs` does."""
    if config.held_out is not None:
        return PairSource.open(config.held_out)
    if config.pairs is None or config.n_held_out == 0:
        return None
    source = PairSource.open(config.pairs)
    numbers = _held_out_numbers(config, len(source))
    return source.only(numbers) if numbers else None


def _held_out_numbers(config: CAConfig, n_pairs: int) -> list[int]:
    """By the pairs' numbers alone: the same in every process and run, and none is read."""
    if config.held_out is not None:
        return []
    ranked = sorted(range(n_pairs), key=lambda n: hashlib.sha256(f"{n}".encode()).digest())
    return sorted(ranked[: min(config.n_held_out, n_pairs // 4)])


class _RowPairs(Sequence[FixedPair]):
    def __init__(self, rows: VQARows, numbers: Sequence[int]) -> None:
        self._rows = rows
        self._numbers = numbers

    def only(self, numbers: Iterable[int]) -> _RowPairs:
        return _RowPairs(self._rows, [self._numbers[number] for number in numbers])

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        return ReleasedImagePair(row=self._rows.row(self._numbers[index]))

    def __iter__(self) -> Iterator[FixedPair]:
        return (self[at] for at in range(len(self)))
