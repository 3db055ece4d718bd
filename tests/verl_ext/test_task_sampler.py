"""What is played next: everything once, then mostly what can still go either way."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
import torch
from torchdata.stateful_dataloader import StatefulDataLoader

from contextrl.verl_ext.task_sampler import TaskSampler

LOST, OPEN, WON = [0.0] * 8, [0.0] * 4 + [1.0] * 4, [1.0] * 8


def steps(sampler: TaskSampler, n: int, per_step: int) -> list[list[int]]:
    rows = iter(sampler)
    return [list(islice(rows, per_step)) for _ in range(n)]


def test_each_task_comes_once_before_any_comes_again() -> None:
    drawn = [row for step in steps(TaskSampler(24, per_step=8, seed=0), 3, 8) for row in step]
    assert sorted(drawn) == list(range(24))
    other = [row for step in steps(TaskSampler(24, per_step=8, seed=1), 3, 8) for row in step]
    assert drawn != other


def test_a_pass_that_ends_within_a_step_is_finished_first() -> None:
    first, second = steps(TaskSampler(5, per_step=4, seed=0), 2, 4)
    assert set(first) | {second[0]} == set(range(5))
    assert len(set(second)) == 4


def test_open_outcomes_come_most_and_no_task_is_given_up() -> None:
    sampler = TaskSampler(24, per_step=8, seed=0)
    steps(sampler, 3, 8)
    sampler.note({row: OPEN if row < 8 else LOST if row < 16 else WON for row in range(24)})
    later = steps(sampler, 100, 8)
    assert all(len(set(step)) == 8 for step in later)
    counts = Counter(row for step in later for row in step)
    assert sum(counts[row] for row in range(8)) / 800 > 0.7
    assert min(counts.values()) >= 5


def test_a_later_outcome_replaces_the_one_before() -> None:
    sampler = TaskSampler(4, per_step=1, seed=0)
    steps(sampler, 4, 1)
    sampler.note(dict.fromkeys(range(4), OPEN))
    sampler.note({row: LOST for row in range(1, 4)})
    counts = Counter(row for step in steps(sampler, 200, 1) for row in step)
    assert counts[0] > 100


def test_a_resumed_loader_draws_what_it_would_have_drawn() -> None:
    def loader() -> tuple[TaskSampler, StatefulDataLoader[int]]:
        sampler = TaskSampler(12, per_step=4, seed=3)
        return sampler, StatefulDataLoader(
            range(12), batch_size=4, num_workers=0, drop_last=True, sampler=sampler
        )

    def play(sampler: TaskSampler, batch: torch.Tensor) -> list[int]:
        rows = batch.tolist()
        sampler.note({row: OPEN if row % 3 else LOST for row in rows})
        return rows

    sampler, whole = loader()
    batches = iter(whole)
    for _ in range(5):
        play(sampler, next(batches))
    state = whole.state_dict()
    expected = [play(sampler, next(batches)) for _ in range(6)]

    resumed_sampler, resumed = loader()
    resumed.load_state_dict(state)
    again = iter(resumed)
    assert [play(resumed_sampler, next(again)) for _ in range(6)] == expected


def test_fewer_tasks_than_a_step_plays_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(8\), found 5"):
        TaskSampler(5, per_step=8, seed=0)
