"""Drawn pairs: local, balanced, and the same in every process."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest

from contextrl.pairs.errors import PairFileError, PairsError
from contextrl.pairs.images import ImageStore
from contextrl.pairs.scene_pairs import SceneSettings, write_scenes
from contextrl.pairs.scenes import FAMILIES, draw_pair
from contextrl.pairs.store import PAIRS, read_image_pairs

MANY = 120
# Cells that a change may never fill: a curve, a hand and an arrow sweep over more than a label.
LARGEST_SHARE = {"pie": 0.5, "plot": 0.7, "clock": 0.5, "network": 0.75, "circuit": 0.25}


def pixels(image) -> np.ndarray:
    return np.asarray(image, dtype=np.int16)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])
def test_the_box_holds_every_changed_pixel_and_not_much_more(family, difficulty):
    for seed in range(5):
        pair = draw_pair(family, seed, difficulty)
        changed = (pixels(pair.image_positive) != pixels(pair.image_negative)).any(axis=2)
        box = pair.box
        inside = changed[box.top : box.bottom, box.left : box.right]
        assert inside.sum() == changed.sum() > 0
        # Tight: each side of the box touches a changed pixel.
        for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
            assert edge.any()
        assert pair.answer_positive != pair.answer_negative
        assert pair.image_positive.mode == pair.image_negative.mode == "RGB"
        side = pair.image_positive.size[0]
        assert pair.image_negative.size == (side, side)
        assert side % 28 == 0
        assert FAMILIES[family].least_side <= side <= 448


@pytest.mark.parametrize("family", FAMILIES)
def test_hard_pairs_differ_in_a_small_part_of_the_image(family):
    shares = []
    for seed in range(6):
        pair = draw_pair(family, seed, 1.0)
        box = pair.box
        area = (box.right - box.left) * (box.bottom - box.top)
        shares.append(area / pair.image_positive.size[0] ** 2)
    assert sum(shares) / len(shares) < 0.6 * LARGEST_SHARE.get(family, 0.2)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_question_alone_does_not_tell_the_answer(family):
    """Over many seeds: which of a pair's two answers is right is a coin, whatever is asked."""
    larger = 0
    by_question: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for seed in range(MANY):
        pair = draw_pair(family, seed, 0.5, side=FAMILIES[family].least_side)
        larger += pair.answer_positive > pair.answer_negative
        # Both answers in sorted order are what a blind reader may know at most.
        known = f"{pair.question} {sorted((pair.answer_positive, pair.answer_negative))}"
        by_question[known][pair.answer_positive] += 1
    # 120 fair coins leave [38, 82] once in 16,000 times.
    assert 38 <= larger <= 82
    repeated = [counts for counts in by_question.values() if sum(counts.values()) >= 12]
    for counts in repeated:
        assert max(counts.values()) <= 0.85 * sum(counts.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_no_answer_is_right_nearly_always(family):
    side = FAMILIES[family].least_side
    answers = Counter(draw_pair(family, seed, 0.5, side=side).answer_positive for seed in range(60))
    assert len(answers) >= 2
    assert max(answers.values()) <= 0.75 * 60


def test_another_process_draws_the_same_pixels():
    names = ("plot", "maze", "table", "clock")
    program = f"""
import hashlib
from contextrl.pairs.scenes import draw_pair
for name in {names!r}:
    pair = draw_pair(name, 7, 0.6)
    print(pair.question, pair.answer_positive, pair.answer_negative,
          hashlib.sha256(pair.image_positive.tobytes() + pair.image_negative.tobytes()).hexdigest())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    here = []
    for name in names:
        pair = draw_pair(name, 7, 0.6)
        both = pair.image_positive.tobytes() + pair.image_negative.tobytes()
        answers = f"{pair.answer_positive} {pair.answer_negative}"
        here.append(f"{pair.question} {answers} {hashlib.sha256(both).hexdigest()}")
    assert done.stdout.splitlines() == here


def test_the_side_changes_the_size_and_nothing_else():
    small, large = draw_pair("clock", 3, 0.5, side=84), draw_pair("clock", 3, 0.5, side=336)
    assert (small.question, small.answer_positive, small.answer_negative) == (
        large.question,
        large.answer_positive,
        large.answer_negative,
    )
    assert large.image_positive.size == (336, 336)
    shrunk = pixels(large.image_positive.resize((84, 84)))
    assert np.abs(shrunk - pixels(small.image_positive)).mean() < 12


def test_what_is_asked_for_wrongly_is_said():
    with pytest.raises(PairsError, match=r"'barz'; there are bars, lines"):
        draw_pair("barz", 0)
    with pytest.raises(PairsError, match="at least 84 pixels, found 56"):
        draw_pair("bars", 0, side=56)


def test_the_value_of_a_drawn_bar_can_be_read_back():
    """The answer against the pixels: the bar's height in units of the axis."""
    for seed in range(20):
        pair = draw_pair("bars", seed, 0.0, side=448)
        for image, answer in (
            (pair.image_positive, pair.answer_positive),
            (pair.image_negative, pair.answer_negative),
        ):
            taller = max(int(pair.answer_positive), int(pair.answer_negative))
            middle = (pair.box.left + pair.box.right) // 2
            column = pixels(image)[:, middle]
            color = column[round((0.87 - 0.04) * 448)]
            same = np.flatnonzero((np.abs(column - color) < 8).all(axis=1))
            inside = same[(same > 0.04 * 448) & (same < 0.865 * 448)]
            height = (0.87 * 448 - inside.min()) / (0.082 * 448)
            assert abs(height - int(answer)) < 0.15, (seed, height, answer, taller)


def test_a_folder_of_scenes_is_whole_and_holds_none_twice(tmp_path):
    settings = SceneSettings(families=("dice", "shapes"), n=60, hardest=0.2, seed=4)
    manifest = write_scenes(tmp_path / "a", settings)
    pairs = read_image_pairs(tmp_path / "a")
    assert manifest.n_pairs == len(pairs) == 60
    assert Counter(pair.provenance.source for pair in pairs) == {"dice": 30, "shapes": 30}
    store = ImageStore(tmp_path / "a")
    seen = set()
    for pair in pairs:
        drawn = draw_pair(pair.provenance.source, pair.provenance.seed, pair.provenance.difficulty)
        assert drawn.question == pair.question
        assert store.open(pair.positive.image).tobytes() == drawn.image_positive.tobytes()
        seen.add((pair.question, pair.positive.image.sha256, pair.negative.image.sha256))
    assert len(seen) == 60
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        for side in (pair.positive, pair.negative):
            groups[side.image.sha256].add(pair.provenance.group)
    assert {len(found) for found in groups.values()} == {1}  # no image in two groups

    write_scenes(tmp_path / "b", settings)
    assert (tmp_path / "a" / PAIRS).read_bytes() == (tmp_path / "b" / PAIRS).read_bytes()
    with pytest.raises(PairFileError, match="--overwrite"):
        write_scenes(tmp_path / "a", settings)


def test_a_mirrored_scene_is_the_same_scene(tmp_path):
    settings = SceneSettings(families=("display",), n=120, hardest=0.0)
    write_scenes(tmp_path, settings)
    pairs = read_image_pairs(tmp_path)
    couples = {frozenset((p.positive.image.sha256, p.negative.image.sha256)) for p in pairs}
    assert len(couples) == len(pairs) == 120
    with pytest.raises(PairFileError, match="another --out"):
        write_scenes(tmp_path, replace(settings, unlike=(tmp_path,)), overwrite=True)


def test_held_out_scenes_share_no_image_with_those_they_must_be_unlike(tmp_path):
    write_scenes(tmp_path / "a", SceneSettings(families=("dice",), n=10, hardest=0.0))
    write_scenes(
        tmp_path / "b",
        SceneSettings(families=("dice",), n=10, hardest=0.0, seed=1, unlike=(tmp_path / "a",)),
    )
    images = [
        {
            side.image.sha256
            for pair in read_image_pairs(folder)
            for side in (pair.positive, pair.negative)
        }
        for folder in (tmp_path / "a", tmp_path / "b")
    ]
    assert images[0].isdisjoint(images[1])
    write_scenes(
        tmp_path / "b",
        SceneSettings(families=("dice",), n=4, hardest=0.0, seed=2),
        overwrite=True,
    )
    files = list((tmp_path / "b" / "images").glob("*/*"))
    assert len(files) <= 8  # the images of the set that was written over are gone


def test_a_family_that_runs_out_says_so(tmp_path):
    with pytest.raises(PairsError, match="ask for fewer pairs"):
        write_scenes(tmp_path, SceneSettings(families=("display",), n=5000, hardest=0.0))
