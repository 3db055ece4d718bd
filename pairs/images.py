"""THE way an image enters: foreign bytes -> RGB pixels, or one line that names the row.

Image files come from strangers. Sizes are read before pixels are decoded, only still raster formats
are tried (nothing that starts another program), and nothing is guessed: an animation, a truncated
file or pixels of unknown range are refused, never half read.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageMath, ImageOps

from contextrl.pairs.errors import ImageError
from contextrl.pairs.store import named, write_whole
from contextrl.pairs.types import ImageRef

MAX_FILE_BYTES = 64 << 20
MAX_PIXELS = 50_000_000
"""Below Pillow's own limit, at which it only warns. Opening 49 million of RGBA took 390 MB."""
MAX_ASPECT = 200
"""The Qwen-VL processors refuse more."""
STRIP_PIXELS = 1_000_000
"""Laid on white at once."""
UNSURE_WHITE = 0xFFF
"""Grey of 16 or 32 bits that stays below may hold 8 or 12 bits, and would open all but black."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_ENDINGS = {"bmp": "bmp", "gif": "gif", "jpeg": "jpg", "png": "png", "tiff": "tif", "webp": "webp"}
# What Pillow's decoders raise on hostile bytes; it has no root class for them.
_BROKEN = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
FOLDER = "images"
# As `put` names them; with a dot and something behind it while it writes.
_STORED_NAME = re.compile(
    rf"([0-9a-f]{{2}})/(\.)?\1[0-9a-f]{{62}}\.(?:{'|'.join(_ENDINGS.values())})(?(2)\.\w+)"
)


def open_image(file: bytes, *, row_id: str) -> Image.Image:
    """The image as it is meant to be seen: RGB of 8 bits, upright, transparency on white.

    Palettes, CMYK, grey of 1 to 16 bits and EXIF orientation are resolved.

    Raises:
        ImageError: names `row_id`. Not a still image of `FORMATS`, truncated, larger than
            `MAX_PIXELS` or `MAX_FILE_BYTES`, longer than `MAX_ASPECT` times its width, animated, or
            pixels whose range nothing tells.
    """
    return _decoded(file, row_id)[0]


def _decoded(file: bytes, row_id: str) -> tuple[Image.Image, str]:
    """The image and its format in `ImageRef`'s words."""
    if len(file) > MAX_FILE_BYTES:
        raise ImageError(
            f"{row_id}: expected an image file of at most {MAX_FILE_BYTES >> 20} MiB, found "
            f"{len(file) >> 20}; scale it down or drop the row"
        )
    try:
        opened = Image.open(io.BytesIO(file), formats=FORMATS)
        _check(opened, row_id)
        kind = "jpeg" if opened.format == "MPO" else str(opened.format).lower()
        opened.load()
        ImageOps.exif_transpose(opened, in_place=True)
        return _rgb(opened, row_id), kind
    except _BROKEN as error:
        said = " ".join(str(error).split())[:120]
        raise ImageError(
            f"{row_id}: expected a whole image file ({', '.join(FORMATS)}), found {len(file)} "
            f"bytes that do not open as one ({said}); fix or drop the row"
        ) from error


def _check(opened: Image.Image, row_id: str) -> None:
    """Of the header alone: no pixel is decoded yet."""
    width, height = opened.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            f"{row_id}: expected at most {MAX_PIXELS / 1e6:.0f} million pixels and sides of at "
            f"most {MAX_ASPECT}:1, found {width} x {height}; scale, crop or drop the image"
        )
    # A phone's JPEG may carry a second picture (MPO); the first is the one that is meant.
    if opened.format != "MPO" and getattr(opened, "is_animated", False):
        raise ImageError(
            f"{row_id}: expected a still image, found several frames; keep the one that is meant"
        )


def _rgb(image: Image.Image, row_id: str) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ImageError(
            f"{row_id}: expected pixels of at most 16 bits, found mode F, whose white nothing "
            "tells; save it with 8 bits"
        )
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = image.convert("I")
        brightest = _brightest(grey)
        if brightest > 0xFFFF or 0 < brightest <= UNSURE_WHITE:
            raise ImageError(
                f"{row_id}: expected grey that uses 16 bits, found mode {image.mode} with "
                f"{brightest:.0f} as its brightest, so that nothing tells what is white; save it "
                "with 8 bits"
            )
        key = image.info.get("transparency")
        # Pillow's own conversion clips at 255 instead of scaling.
        scaled = grey.point(lambda value: value * (1 / 257)).convert("L")
        return _keyed(scaled, grey, key) if isinstance(key, int) else scaled.convert("RGB")
    if image.has_transparency_data:
        return _on_white(image)
    return image.convert("RGB")


def _keyed(image: Image.Image, grey: Image.Image, key: int) -> Image.Image:
    """White where `grey` is `key`; Pillow looks for a key of 16 bits among values of 8."""
    page = Image.new("RGB", image.size, "white")
    for strip in _strips(image.size):
        shown = ImageMath.lambda_eval(
            lambda args: args["convert"](args["grey"] != key, "L"), grey=grey.crop(strip)
        )
        page.paste(image.crop(strip).convert("RGB"), strip, shown.point(lambda at: 255 * at))
    return page


def _on_white(image: Image.Image) -> Image.Image:
    """A few rows at a time: whole layers of a large image would take a gigabyte."""
    page = Image.new("RGB", image.size, "white")
    for strip in _strips(image.size):
        layer = image.crop(strip).convert("RGBA")
        paper = Image.new("RGBA", layer.size, "white")
        page.paste(Image.alpha_composite(paper, layer).convert("RGB"), strip)
    return page


def _strips(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Boxes that cover an image from top to bottom."""
    width, height = size
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        yield 0, top, width, min(top + rows, height)


def png_file(image: Image.Image) -> bytes:
    """The same bytes for the same pixels."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def pixel_digest(image: Image.Image) -> str:
    """Equal for one picture in two encodings."""
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()


def _brightest(image: Image.Image) -> float:
    extrema: Any = image.getextrema()  # of one band: (least, most)
    return float(extrema[1])


class ImageStore:
    """Image files named by the digest of their content, under `images/` of a folder of pairs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER

    def put(self, file: bytes, *, row_id: str) -> ImageRef:
        """The foreign file is kept as it is, once. Raises `ImageError` where `open_image` does."""
        image, kind = _decoded(file, row_id)
        return self._keep(file, image.size, kind)

    def put_drawn(self, image: Image.Image) -> ImageRef:
        """An image of our own, as PNG."""
        return self._keep(png_file(image), image.size, "png")

    def read(self, ref: ImageRef) -> bytes:
        """The file's bytes. Raises `ImageError` when it is missing or another one."""
        path = self.path(ref)
        if not path.exists():
            raise ImageError(
                f"expected the image {path}, found none; copy the folder of pairs with its "
                f"{FOLDER}/, or make the pairs again"
            )
        with named(path):
            file = path.read_bytes()
        if hashlib.sha256(file).hexdigest() != ref.sha256:
            raise ImageError(
                f"expected {path} to be what its name says, found other bytes; make the pairs again"
            )
        return file

    def open(self, ref: ImageRef) -> Image.Image:
        """RGB pixels. Raises `ImageError`."""
        return open_image(self.read(ref), row_id=ref.sha256[:12])

    def keep_only(self, refs: Iterable[ImageRef]) -> None:
        """Stored files that none of `refs` names are gone: those of a set that was written over.

        Nothing is touched but names that only `put` gives: the folder may hold a user's own images.
        """
        wanted = {self.path(ref) for ref in refs}
        with named(self.folder):
            for path in self.folder.glob("*/*"):
                ours = _STORED_NAME.fullmatch(f"{path.parent.name}/{path.name}")
                if ours and path not in wanted:
                    path.unlink()

    def path(self, ref: ImageRef) -> Path:
        return self.folder / ref.sha256[:2] / f"{ref.sha256}.{_ENDINGS[ref.format]}"

    def _keep(self, file: bytes, size: tuple[int, int], kind: str) -> ImageRef:
        ref = ImageRef.model_validate(
            {
                "sha256": hashlib.sha256(file).hexdigest(),
                "format": kind,
                "width": size[0],
                "height": size[1],
            }
        )
        path = self.path(ref)
        if not path.exists():
            with named(path):
                os.makedirs(path.parent, exist_ok=True)
                write_whole(path, [file], to_disk=False)  # `read` compares the digest
        return ref
