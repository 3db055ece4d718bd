"""A contact sheet: what every family draws, easy to hard, for a person to look at."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from contextrl.pairs.scenes import draw_pair
from contextrl.pairs.scenes.types import ScenePair

CELL = 150
GAP = 6
_TEXT = 30


def contact_sheet(
    families: Sequence[str],
    *,
    seed: int = 0,
    difficulties: Sequence[float] = (0.0, 0.5, 1.0),
    across: int = 1,
) -> Image.Image:
    """A couple for each family and difficulty, its decisive region framed; `across` to a row."""
    cells = [(family, difficulty) for family in families for difficulty in difficulties]
    per_row = min(across * len(difficulties), len(cells))
    wide, high = 2 * CELL + 3 * GAP, CELL + _TEXT + GAP
    rows = -(-len(cells) // per_row)
    sheet = Image.new("RGB", (per_row * wide + GAP, rows * high + GAP), "#d8d8d8")
    for number, (family, difficulty) in enumerate(cells):
        row, column = divmod(number, per_row)
        pair = draw_pair(family, seed, difficulty)
        _couple(sheet, pair, GAP + column * wide, GAP + row * high)
    return sheet


def _couple(sheet: Image.Image, pair: ScenePair, left: int, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(11)
    for number, image in enumerate((pair.image_positive, pair.image_negative)):
        side = image.size[0]
        shown = image.resize((CELL, CELL), Image.Resampling.LANCZOS if side > CELL else 0)
        box = [
            CELL * v / side for v in (pair.box.left, pair.box.top, pair.box.right, pair.box.bottom)
        ]
        ImageDraw.Draw(shown).rectangle(
            (
                max(0, box[0] - 2),
                max(0, box[1] - 2),
                min(CELL - 1, box[2] + 1),
                min(CELL - 1, box[3] + 1),
            ),
            outline="#ff0000",
        )
        sheet.paste(shown, (left + number * (CELL + GAP), top + _TEXT))
    title = f"{pair.family} {pair.difficulty:g}, {pair.image_positive.size[0]} px: "
    draw.text((left, top), title + f"{pair.answer_positive} | {pair.answer_negative}", "#000", font)
    draw.text((left, top + 13), _fitted(pair.question, font, 2 * CELL + GAP), "#333", font)


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
