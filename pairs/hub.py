"""Rows of a hub data set, streamed: nothing but the row in hand is on this machine."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from contextrl.agents.formats.files import RowAt
from contextrl.pairs.errors import SourceError

PREFIX = "hub:"
DEFAULT_SPLIT = "train"


def hub_rows(name: str, wanted: Collection[int] | None = None) -> Iterator[RowAt]:
    """Rows of `hub:owner/name` or `hub:owner/name@split`, in the data set's order.

    Raises:
        SourceError: `datasets` is not installed, or the hub does not give the set.
    """
    try:
        import datasets
    except ImportError as error:
        raise SourceError(
            "expected the package `datasets` to read the hub, found none; "
            "run: pip install 'contextrl[mine]'"
        ) from error
    dataset, _, split = name.removeprefix(PREFIX).partition("@")
    left = set(wanted) if wanted is not None else None
    try:
        stream = datasets.load_dataset(dataset, split=split or DEFAULT_SPLIT, streaming=True)
        for number, row in enumerate(stream):
            if left is None or number in left:
                yield RowAt(Path(name), number, dict(row))
                if left is not None:
                    left.discard(number)
                    if not left:
                        return
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise SourceError(f"{name}: the hub does not give it: {error}") from error
