"""Pairs of images as the authors released theirs: `images`, `problem`, `answer`, one row a pair."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from contextrl.pairs.errors import PairFileError
from contextrl.pairs.export import CARD, PARQUET, Subject, card, new_file
from contextrl.pairs.images import ImageStore
from contextrl.pairs.render import orders
from contextrl.pairs.render_images import ImagePairStyle, render_images
from contextrl.pairs.store import PairManifest
from contextrl.pairs.types import ImagePair

_ROWS = 64
SUBJECT = Subject(
    title="Contrastive pairs of images",
    about=(
        "Each asks which of two images supports an answer; the letter is the answer of the row, "
        "and as often A as B."
    ),
    tags=("contrastive", "visual-question-answering"),
)


def export_released_images(
    folder: Path,
    pairs: Sequence[ImagePair],
    manifest: PairManifest,
    style: ImagePairStyle,
    seed: int,
    store: ImageStore,
) -> Path:
    """`folder` holds one parquet file that trains as the released data does, and the card.

    Raises:
        PairFileError: there are no pairs, or the file exists.
        ImageError: an image is missing or another one.
    """
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    if not pairs:
        raise PairFileError("expected pairs to export, found none")
    path = new_file(folder, PARQUET)
    order = orders((pair.pair_id for pair in pairs), seed)
    text = pyarrow.string()
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", text)])
    schema = pyarrow.schema(
        [
            ("images", pyarrow.list_(image)),
            ("problem", text),
            ("answer", text),
            ("row_id", text),
        ]
    )
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, len(pairs), _ROWS):
            rows = []
            for pair in pairs[start : start + _ROWS]:
                shown = render_images(pair, order[pair.pair_id], style, store.read)
                rows.append(
                    {
                        "images": [{"bytes": file, "path": None} for file in shown.images],
                        "problem": shown.prompt,
                        "answer": shown.correct,
                        "row_id": pair.pair_id,
                    }
                )
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
    (folder / CARD).write_text(card(manifest, PARQUET, SUBJECT), encoding="utf-8")
    return path
