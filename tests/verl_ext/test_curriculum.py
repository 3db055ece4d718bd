"""A stage is passed by being right, and left only once what all else rests on is learned."""

import pytest

from contextrl.pairs.render import COMPACT
from contextrl.verl_ext.curriculum import LEAST_BATCHES, WINDOW, Curriculum
from contextrl.verl_ext.drills import DrillMaker
from contextrl.verl_ext.tiny import train_tokenizer

VIEW = ["10:def add(x, y):", "11:    total = x + y", "12:    return total"]


@pytest.fixture(scope="module")
def maker():
    tokenizer = train_tokenizer(["\n".join(VIEW), "A:\nB:\npatch:\nA or B? 0123456789"] * 20, 600)
    return DrillMaker(tokenizer, COMPACT, [VIEW], seed=0)


def test_being_right_leads_through_all_stages_and_stays_at_the_last(maker):
    curriculum = Curriculum(maker, patience=1000, seed=0)
    for _ in range(len(maker.stages) * LEAST_BATCHES + 50):
        curriculum.note(curriculum.at, 1.0)
    assert curriculum.at == curriculum.passed == len(maker.stages) - 1


def test_a_basic_stage_is_never_left_and_a_later_one_is(maker):
    curriculum = Curriculum(maker, patience=20, seed=0)
    for _ in range(200):
        curriculum.note(0, 0.5)
    assert curriculum.at == 0
    while not curriculum.basics_passed:
        curriculum.note(curriculum.at, 1.0)
    for _ in range(20):
        curriculum.note(curriculum.at, 0.5)
    assert curriculum.at == maker.n_basic + 1
    assert curriculum.passed == maker.n_basic


def test_accuracy_on_earlier_stages_does_not_promote(maker):
    curriculum = Curriculum(maker, patience=1000, seed=0)
    while curriculum.at < 3:
        curriculum.note(curriculum.at, 1.0)
    for _ in range(LEAST_BATCHES + WINDOW):
        curriculum.note(1, 1.0)
    assert curriculum.at == 3
    assert {curriculum.draw() for _ in range(200)} == {0, 1, 2, 3}
