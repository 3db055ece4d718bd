"""Pairs that are made when they are read: each reading gives the same ones, in one order."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from contextrl.pairs.couple_choice import Asked, Chosen
from contextrl.pairs.images import ImageStore, png_file
from contextrl.pairs.retrieved_pairs import RetrievedPairs
from contextrl.pairs.row_scan import ScannedRow
from contextrl.pairs.vqa import VQARow


def row_of(number: int) -> VQARow:
    return VQARow(
        row_id=f"row-{number}",
        problem=f"<image>How many, of {number % 3}?",
        images=(png_file(Image.new("RGB", (8, 8), (number, 0, 0))),),
        answer=str(number),
    )


def asked(number: int) -> Asked:
    row = ScannedRow(
        source=0,
        number=number,
        row_id=f"row-{number}",
        set_name="s",
        image=number,
        question=bytes([number % 3]),
        answer=str(number),
    )
    return Asked(row, (row.answer,), 1)


@pytest.fixture
def pairs(tmp_path) -> RetrievedPairs:
    dice = np.random.default_rng(0)
    couples = [
        Chosen(asked(int(a)), asked(int(b)), 0.9)
        for a, b in (dice.choice(40, 2, replace=False) for _ in range(30))
    ]
    rows = [row_of(number) for number in range(40)]
    return RetrievedPairs(couples, [("s", rows)], ImageStore(tmp_path), lambda row: row.row_id)


def test_every_reading_gives_equal_pairs_sorted_by_id(pairs):
    read = list(pairs)
    assert len(read) == len(pairs) == 60
    assert [pair.pair_id for pair in read] == sorted(pair.pair_id for pair in read)
    assert [pairs[at] for at in range(60)] == list(pairs) == read
    assert pairs[-1] == read[-1]
    assert pairs[10:50:7] == read[10:50:7]
    with pytest.raises(IndexError):
        pairs[60]


def test_each_couple_is_two_pairs_that_mirror_each_other(pairs):
    read = list(pairs)
    sides = {(pair.positive.image.sha256, pair.negative.image.sha256) for pair in read}
    assert {(negative, positive) for positive, negative in sides} == sides
    for pair in read:
        number = int(pair.answer)
        assert pair.provenance.positive_id == f"row-{number}"
        assert pair.question == f"How many, of {number % 3}?"
        other = int(pair.negative.answer)
        same_question = number % 3 == other % 3
        assert pair.provenance.negative_question == (
            "" if same_question else f"How many, of {other % 3}?"
        )


def test_pairs_of_two_groups_share_no_picture(pairs):
    groups: dict[str, set[str]] = {}
    for pair in pairs:
        where = pair.provenance
        groups.setdefault(where.group, set()).update([where.positive_id, where.negative_id])
    assert len(groups) > 1
    assert sum(map(len, groups.values())) == len(set().union(*groups.values()))
