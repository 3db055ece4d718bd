"""Foreign image files: opened as they are meant, or refused with one line that names the row."""

from __future__ import annotations

import io
import random
import struct
import zlib

import pytest
from PIL import Image
from pydantic import ValidationError

from contextrl.pairs import images
from contextrl.pairs.errors import ImageError
from contextrl.pairs.images import MAX_FILE_BYTES, ImageStore, open_image
from contextrl.pairs.scenes import draw_pair
from contextrl.pairs.store import read_pairs, read_trajectory_pairs, write_pairs
from contextrl.pairs.types import PAIR, Box, ImageContext, ImagePair, ImageProvenance


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def photo() -> Image.Image:
    """Not uniform, so that a half-decoded file would show."""
    return draw_pair("grid", 1, 0.5).image_positive


def near(found: tuple[int, ...], wanted: tuple[int, ...], by: int = 3) -> bool:
    return all(abs(a - b) <= by for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("form", ["PNG", "BMP", "GIF", "TIFF", "WEBP", "JPEG"])
def test_still_images_of_the_usual_formats_open(form):
    image = open_image(encoded(Image.new("RGB", (30, 20), "#c04020"), form), row_id="r")
    assert (image.mode, image.size) == ("RGB", (30, 20))
    assert near(image.getpixel((5, 5)), (0xC0, 0x40, 0x20), by=5)


def test_palettes_cmyk_and_grey_become_what_a_viewer_shows():
    red = Image.new("RGB", (8, 8), "#ff0000")
    assert open_image(encoded(red.quantize(4)), row_id="r").getpixel((1, 1)) == (255, 0, 0)
    cmyk = encoded(red.convert("CMYK"), "JPEG", quality=95)
    assert near(open_image(cmyk, row_id="r").getpixel((1, 1)), (255, 0, 0), by=6)
    assert open_image(encoded(Image.new("1", (8, 8), 1)), row_id="r").getpixel((1, 1)) == (255,) * 3
    # 16 bits are scaled; Pillow's own conversion would make every value above 255 white.
    grey = encoded(Image.new("I;16", (8, 8), 0x8000))
    assert near(open_image(grey, row_id="r").getpixel((1, 1)), (128,) * 3, by=1)


def test_transparency_lies_on_white():
    clear = encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 0)))
    assert open_image(clear, row_id="r").getpixel((1, 1)) == (255, 255, 255)
    keyed = encoded(Image.new("RGB", (8, 8), (0, 0, 255)), transparency=(0, 0, 255))
    assert open_image(keyed, row_id="r").getpixel((1, 1)) == (255, 255, 255)
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    assert open_image(encoded(palette, transparency=1), row_id="r").getpixel((1, 1)) == (255,) * 3


def test_a_transparent_grey_of_16_bits_is_found_among_16_bits():
    image = Image.new("I;16", (8, 8), 0x8000)
    image.putpixel((2, 2), 0x1234)
    shown = [
        open_image(encoded(image, transparency=key), row_id="r").getpixel((2, 2))
        for key in (0x1234, 0x8000, 0x12)
    ]
    assert shown == [(255,) * 3, (0x12,) * 3, (0x12,) * 3]


def test_strips_lie_on_white_as_the_whole_would(monkeypatch):
    monkeypatch.setattr(images, "STRIP_PIXELS", 70)
    noise = random.Random(0).randbytes(4 * 30 * 20)
    clear = Image.frombytes("RGBA", (30, 20), noise)
    whole = Image.alpha_composite(Image.new("RGBA", (30, 20), "white"), clear).convert("RGB")
    assert open_image(encoded(clear), row_id="r").tobytes() == whole.tobytes()


def test_a_photograph_stands_upright_and_its_size_says_so(tmp_path):
    image = Image.new("RGB", (40, 20), "#000000")
    image.paste("#ffffff", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways: turn it by 90 degrees clockwise
    file = encoded(image, "JPEG", exif=exif)
    opened = open_image(file, row_id="r")
    assert opened.size == (20, 40)
    assert opened.getpixel((10, 5))[0] > 200 > 50 > opened.getpixel((10, 35))[0]
    ref = ImageStore(tmp_path).put(file, row_id="r")
    assert (ref.width, ref.height, ref.format) == (20, 40, "jpeg")


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims any size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 100)
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (b"", "0 bytes that do not open"),
        (b"GIF89a", "do not open"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "do not open"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "do not open"),
        (bomb(100_000, 100_000), "bomb"),
        (bomb(8000, 8000), "million pixels"),
        (bomb(3000, 10), "200:1"),
        (bomb(50, 50), "do not open"),
        (b"\x89PNG" + b"\0" * MAX_FILE_BYTES, "at most 64 MiB"),
    ],
    ids=["empty", "cut", "postscript", "svg", "bomb", "large", "thread", "short", "heavy"],
)
def test_what_is_no_image_of_a_sane_size_is_refused(file, said):
    with pytest.raises(ImageError, match=said) as caught:
        open_image(file, row_id="row 17 of x.parquet")
    assert str(caught.value).startswith("row 17 of x.parquet: expected")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_is_refused(form):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "green")]
    file = encoded(frames[0], form, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="still image"):
        open_image(file, row_id="r")


def test_pixels_of_unknown_range_are_refused():
    with pytest.raises(ImageError, match="mode F"):
        open_image(encoded(Image.new("F", (8, 8), 0.5), "TIFF"), row_id="r")
    with pytest.raises(ImageError, match="mode I"):
        open_image(encoded(Image.new("I", (8, 8), 1 << 20), "TIFF"), row_id="r")


@pytest.mark.parametrize(
    ("mode", "form", "brightest"),
    [("I", "TIFF", 255), ("I", "TIFF", 4095), ("I;16", "PNG", 200), ("I;16", "PNG", 4095)],
)
def test_8_or_12_bits_in_a_wider_file_are_refused_not_shown_as_black(mode, form, brightest):
    image = Image.new(mode, (8, 8), 3)
    image.putpixel((4, 4), brightest)
    with pytest.raises(ImageError, match=f"^row 5: .*with {brightest} as its brightest"):
        open_image(encoded(image, form), row_id="row 5")


def test_wide_grey_that_is_black_or_uses_its_range_opens():
    black = encoded(Image.new("I;16", (8, 8), 0))
    assert open_image(black, row_id="r").getpixel((1, 1)) == (0, 0, 0)
    white = encoded(Image.new("I", (8, 8), 0xFFFF), "TIFF")
    assert open_image(white, row_id="r").getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_damaged_files_open_whole_or_raise_our_error(form):
    file = encoded(photo(), form)
    dice = random.Random(form)
    with pytest.raises(ImageError):
        open_image(file[: len(file) // 2], row_id="r")
    for _ in range(60):
        broken = bytearray(file[: dice.randrange(1, len(file) + 1)])
        for _ in range(dice.randrange(4)):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        try:
            image = open_image(bytes(broken), row_id="r")
        except ImageError:
            continue  # anything else would fail the test
        assert image.mode == "RGB"


def test_the_store_gives_back_what_it_was_given_or_says_what_is_wrong(tmp_path):
    store = ImageStore(tmp_path)
    file = encoded(photo(), "JPEG")
    ref = store.put(file, row_id="r")
    assert store.put(file, row_id="again") == ref
    assert store.read(ref) == file
    drawn = store.put_drawn(photo())
    assert store.open(drawn).tobytes() == photo().tobytes()
    assert len(list(store.folder.rglob("*.*"))) == 2

    store.path(ref).write_bytes(file[:-1] + b"x")
    with pytest.raises(ImageError, match="other bytes"):
        store.read(ref)
    store.path(ref).unlink()
    with pytest.raises(ImageError, match="found none"):
        store.read(ref)
    with pytest.raises(ImageError, match=r"^row 3: "):
        store.put(b"not an image", row_id="row 3")
    assert len(list(store.folder.rglob("*.*"))) == 1


def an_image_pair(store: ImageStore) -> ImagePair:
    scene = draw_pair("shapes", 1)
    sides = [
        ImageContext(image=store.put_drawn(image), answer=answer, box=scene.box)
        for image, answer in (
            (scene.image_positive, scene.answer_positive),
            (scene.image_negative, scene.answer_negative),
        )
    ]
    return ImagePair(
        pair_id="p",
        question=scene.question,
        answer=scene.answer_positive,
        positive=sides[0],
        negative=sides[1],
        provenance=ImageProvenance(source="shapes", group="p", miner="test"),
    )


def test_a_folder_of_image_pairs_is_read_as_such(tmp_path):
    pair = an_image_pair(ImageStore(tmp_path))
    write_pairs(tmp_path, [pair], miner="test", seed=0)
    assert read_pairs(tmp_path) == (pair,)
    with pytest.raises(Exception, match="expected pairs of trajectories"):
        read_trajectory_pairs(tmp_path)


def test_a_pair_that_cannot_decide_is_no_pair(tmp_path):
    pair = an_image_pair(ImageStore(tmp_path))
    with pytest.raises(ValidationError, match="one twice"):
        ImagePair.model_validate({**pair.model_dump(), "negative": pair.positive.model_dump()})
    with pytest.raises(ValidationError, match="not the negative's"):
        ImagePair.model_validate({**pair.model_dump(), "answer": "neither"})
    mixed = {**pair.model_dump(), "positive": {"kind": "trajectory"}}
    with pytest.raises(ValidationError):
        PAIR.validate_python(mixed)
    with pytest.raises(ValidationError, match="at least one pixel"):
        Box(left=3, top=3, right=3, bottom=9)
    with pytest.raises(ValidationError):  # a path is no digest
        pair.positive.image.model_validate(
            {**pair.positive.image.model_dump(), "sha256": "../../etc/passwd"}
        )
