"""Features of an image are made once while there is room."""

import torch
from PIL import Image

from contextrl.verl_ext import feature_memory
from contextrl.verl_ext.feature_memory import FeatureMemory


def solid(colour, size=(8, 4), mode="RGB"):
    return Image.new(mode, size, colour)


def counting():
    made = []

    def make(image):
        made.append(image)
        return torch.full((4, 8), float(len(made))), torch.tensor([[1, 2, 2]])

    return FeatureMemory(make), made


def test_the_same_pixels_are_prepared_once_whichever_object_holds_them():
    memory, made = counting()
    first = memory.of(solid("red"))
    assert memory.of(solid("red")) is first
    assert len(made) == 1


def test_another_colour_shape_or_mode_is_another_image():
    memory, made = counting()
    for image in (
        solid("red"),
        solid("blue"),
        solid("red", size=(4, 8)),
        solid(0, size=(8, 12), mode="L"),
        solid(0, size=(8, 4)),
    ):
        memory.of(image)
    assert len(made) == 5


def test_what_was_not_asked_for_the_longest_goes(monkeypatch):
    monkeypatch.setattr(feature_memory, "MAX_BYTES", 2 * 4 * 8 * 4)
    memory, made = counting()
    red, blue, green = solid("red"), solid("blue"), solid("green")
    for image in (red, blue, red, green):  # blue goes
        memory.of(image)
    memory.of(red)
    memory.of(green)
    assert len(made) == 3
    memory.of(blue)
    assert len(made) == 4


def test_one_image_larger_than_all_the_room_is_still_prepared(monkeypatch):
    monkeypatch.setattr(feature_memory, "MAX_BYTES", 1)
    memory, made = counting()
    assert memory.of(solid("red"))[0].shape == (4, 8)
    memory.of(solid("red"))
    assert len(made) == 1
