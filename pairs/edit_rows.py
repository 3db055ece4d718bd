"""Which rows can be edited at all: the same rule for the run and for its bill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from contextrl.pairs.canvas import Canvas, Size, canvas_for
from contextrl.pairs.encode import IMAGE_MARK
from contextrl.pairs.errors import ImageError, PairFileError
from contextrl.pairs.images import open_image
from contextrl.pairs.vqa import VQARow


@dataclass(frozen=True, slots=True)
class EditRow:
    row_id: str
    question: str
    answer: str
    image: Image.Image
    canvas: Canvas | None
    """What the image model is shown in the image's place; None for the image itself."""


@dataclass(frozen=True, slots=True)
class UnusableRow:
    row_id: str
    reason: str


def edit_row(rows: Sequence[VQARow], number: int, sizes: Sequence[Size]) -> EditRow | UnusableRow:
    """`sizes` are those that the image model draws in; none for any."""
    try:
        row = rows[number]
    except PairFileError as error:
        return UnusableRow(f"row {number}", str(error))
    question = row.problem.replace(IMAGE_MARK, " ").strip()
    answer = row.answer.strip()
    if len(row.images) != 1 or not answer or not question:
        return UnusableRow(row.row_id, "not one image with a question and an answer")
    try:
        image = open_image(row.images[0], row_id=row.row_id)
    except ImageError as error:
        return UnusableRow(row.row_id, str(error))
    return EditRow(row.row_id, question, answer, image, canvas_for(image.size, sizes))
