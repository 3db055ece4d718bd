"""How local a change is, measured: a good edit moves few pixels in one place and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from contextrl.envs.types import Record
from contextrl.pairs.types import Box

CHANGED = 24
"""Of 255, after smoothing: what the eye takes for a change rather than for noise."""


class Locality(Record):
    """Of an edited image against its original, at the original's size."""

    changed_share: float
    """Pixels that changed visibly."""
    box: Box | None
    """Around them, single specks left out; None when nothing changed."""
    box_share: float
    shift: float
    """Of 255: the largest mean change of a colour outside of the box, e.g. by other light."""
    noise: float
    """Of 255: the mean absolute change outside of the box, e.g. by blur or another style."""
    stretch: float
    """The edit's aspect ratio over that of what it was made of; 1 when it kept the shape."""


class LocalityFault(StrEnum):
    SHAPE = "another shape"
    NOTHING = "nothing changed"
    LIGHT = "light or colour changed everywhere"
    STYLE = "redrawn everywhere"
    SPREAD = "changed in too many places"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalityLimits:
    least_changed: float = 0.0005
    most_changed: float = 0.2
    most_box: float = 0.4
    most_shift: float = 6.0
    most_noise: float = 10.0
    most_stretch: float = 1.05


def stretch(asked: tuple[int, int], found: tuple[int, int]) -> float:
    """How far the shape that came is from the one that was asked for; 1 when it is the same."""
    ratio = (found[0] / found[1]) / (asked[0] / asked[1])
    return max(ratio, 1 / ratio)


def measure(
    original: Image.Image, edited: Image.Image, *, stretched: float | None = None
) -> Locality:
    """Both RGB. An edit of another size is scaled to the original's.

    `stretched` is by how much it was brought into shape before.
    """
    if stretched is None:
        stretched = stretch(original.size, edited.size)
    if edited.size != original.size:
        edited = edited.resize(original.size, Image.Resampling.LANCZOS)
    # Thin outlines and codec noise vanish under the blur; a changed object does not.
    radius = max(1, min(original.size) // 200)
    difference = ImageChops.difference(original, edited)
    strongest = ImageChops.lighter(
        ImageChops.lighter(difference.getchannel(0), difference.getchannel(1)),
        difference.getchannel(2),
    )
    mask = strongest.filter(ImageFilter.BoxBlur(radius)).point(lambda v: 255 * (v > CHANGED))
    corners = mask.filter(ImageFilter.MedianFilter(3)).getbbox()
    box = None
    box_share = 0.0
    outside = np.ones((original.height, original.width), bool)
    if corners is not None:
        left, top, right, bottom = corners
        box = Box(left=left, top=top, right=right, bottom=bottom)
        box_share = (right - left) * (bottom - top) / (original.width * original.height)
        if box_share < 0.9:  # of a change everywhere all pixels tell, not the rim that is left
            outside[top:bottom, left:right] = False
    moved = np.asarray(edited, np.float32)[outside] - np.asarray(original, np.float32)[outside]
    return Locality(
        changed_share=float(np.count_nonzero(np.asarray(mask))) / mask.width / mask.height,
        box=box,
        box_share=box_share,
        shift=float(np.abs(moved.mean(axis=0)).max()),
        noise=float(np.abs(moved).mean()),
        stretch=stretched,
    )


def fault(found: Locality, limits: LocalityLimits) -> LocalityFault | None:
    """The first reason to reject the edit; None for a local one."""
    if found.stretch > limits.most_stretch:
        return LocalityFault.SHAPE
    if found.shift > limits.most_shift:
        return LocalityFault.LIGHT
    if found.noise > limits.most_noise:
        return LocalityFault.STYLE
    if found.box is None or found.changed_share < limits.least_changed:
        return LocalityFault.NOTHING
    if found.changed_share > limits.most_changed or found.box_share > limits.most_box:
        return LocalityFault.SPREAD
    return None
