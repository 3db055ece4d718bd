import pytest

from contextrl.scripts.paired import paired_change


def test_a_clear_improvement_has_an_interval_above_zero():
    before = {str(i): [0.0, 0.0, 1.0, 0.0] for i in range(20)}
    after = {str(i): [1.0, 1.0, 1.0, 0.0] for i in range(20)}
    change = paired_change(before, after)
    assert (change.before, change.after, change.change) == (0.25, 0.75, 0.5)
    assert change.change_interval[0] > 0
    assert change.p_value < 0.01


def test_no_change_is_not_significant():
    scores = {str(i): [float(i % 2)] for i in range(10)}
    change = paired_change(scores, scores)
    assert change.change_interval == (0.0, 0.0)
    assert change.p_value == 1.0


def test_a_swap_of_luck_between_items_is_not_significant():
    before = {str(i): [float(i % 2)] for i in range(20)}
    after = {str(i): [float(1 - i % 2)] for i in range(20)}
    change = paired_change(before, after)
    assert change.change == 0
    assert change.change_interval[0] < 0 < change.change_interval[1]


def test_items_without_a_partner_are_left_out():
    change = paired_change({"a": [1.0], "b": [0.0]}, {"a": [1.0], "c": [1.0], "b": []})
    assert (change.items, change.samples_before) == (1, 1)


def test_nothing_to_pair_is_an_error():
    with pytest.raises(ValueError, match="measured both before and after"):
        paired_change({"a": [1.0]}, {"b": [1.0]})
