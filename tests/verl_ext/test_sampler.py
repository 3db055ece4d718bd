from collections import Counter

import pytest

from contextrl.verl_ext.sampler import pairs_at, pairs_for_rank, sampler_step
from contextrl.verl_ext.settings import Reuse


def draws(steps, *, n_pairs=10, per_step=4, seed=0):
    return [
        draw
        for step in steps
        for draw in pairs_at(n_pairs, per_step=per_step, seed=seed, step=step)
    ]


def test_a_resumed_run_sees_the_pairs_it_would_have_seen():
    straight = draws(range(20))
    assert draws(range(7)) + draws(range(7, 20)) == straight


def test_every_pair_is_seen_once_per_pass_and_in_both_orders_over_two():
    two_passes = draws(range(5))  # 20 draws of 10 pairs
    assert Counter(draw.index for draw in two_passes) == dict.fromkeys(range(10), 2)
    for index in range(10):
        assert {draw.flipped for draw in two_passes if draw.index == index} == {False, True}


def test_passes_and_seeds_are_permuted_differently():
    first, second = draws(range(5))[:10], draws(range(5))[10:]
    assert [d.index for d in first] != [d.index for d in second]
    assert draws([0], seed=0) != draws([0], seed=1)


def test_ranks_partition_the_step():
    step = pairs_at(10, per_step=6, seed=3, step=2)
    shares = [pairs_for_rank(step, rank=rank, n_ranks=3) for rank in range(3)]
    assert [len(share) for share in shares] == [2, 2, 2]
    assert Counter(d for share in shares for d in share) == Counter(step)


def test_a_step_that_does_not_split_evenly_is_refused():
    with pytest.raises(ValueError, match="do not split over 4 ranks"):
        pairs_for_rank(pairs_at(10, per_step=6, seed=0, step=0), rank=0, n_ranks=4)


def test_fewer_pairs_than_a_step_needs_are_repeated():
    assert Counter(d.index for d in pairs_at(3, per_step=6, seed=0, step=0)) == {0: 2, 1: 2, 2: 2}


def test_no_pairs_are_refused():
    with pytest.raises(ValueError, match="at least one pair"):
        pairs_at(0, per_step=1, seed=0, step=0)


def test_fresh_pairs_follow_optimizer_steps_and_reused_ones_rollout_steps():
    def fresh(step, update):
        return sampler_step(Reuse.FRESH, train_step=step, update=update, updates_per_step=4)

    def reused(step, update):
        return sampler_step(Reuse.PER_ROLLOUT, train_step=step, update=update, updates_per_step=4)

    assert [fresh(0, 3), fresh(1, 0), fresh(1, 1)] == [3, 4, 5]
    assert [reused(1, update) for update in range(4)] == [1, 1, 1, 1]
