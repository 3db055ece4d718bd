"""Which pairs an optimizer step sees: a pure function of (seed, step, rank).

Nothing is kept between steps, so a run that was killed and resumed sees the pairs it would
have seen, and every rank agrees without talking. Each pass over the set is a fresh
permutation, and a pair's option order flips from one pass to the next, so both orders are seen
equally often.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from contextrl.verl_ext.settings import Reuse


@dataclass(frozen=True, slots=True)
class Draw:
    index: int
    """Into the pair set."""
    flipped: bool
    """Show the pair in the order opposite to its own."""


def pairs_at(n_pairs: int, *, per_step: int, seed: int, step: int) -> list[Draw]:
    """The draws of optimizer step `step` (from 0) over all ranks."""
    if n_pairs < 1:
        raise ValueError(f"need at least one pair, got {n_pairs}")
    draws = []
    for position in range(step * per_step, (step + 1) * per_step):
        epoch, offset = divmod(position, n_pairs)
        draws.append(Draw(_permutation(n_pairs, seed, epoch)[offset], flipped=epoch % 2 == 1))
    return draws


def pairs_for_rank(draws: list[Draw], *, rank: int, n_ranks: int) -> list[Draw]:
    """This rank's strided share; the shares partition `draws` and have one size."""
    if len(draws) % n_ranks:
        raise ValueError(f"{len(draws)} draws do not split over {n_ranks} ranks")
    return draws[rank::n_ranks]


def sampler_step(reuse: Reuse, *, train_step: int, update: int, updates_per_step: int) -> int:
    """The step number to draw at: optimizer steps for fresh pairs, rollout steps for reused ones.

    `train_step` counts rollout batches from 0, `update` the optimizer steps within one.
    """
    if reuse is Reuse.PER_ROLLOUT:
        return train_step
    return train_step * updates_per_step + update


_permutations: dict[tuple[int, int, int], list[int]] = {}


def _permutation(n: int, seed: int, epoch: int) -> list[int]:
    """Memoised for the epochs at hand: recomputing 10k-element shuffles per draw would add up."""
    key = (n, seed, epoch)
    if key not in _permutations:
        if len(_permutations) > 8:
            _permutations.clear()
        _permutations[key] = random.Random(f"{seed}/{epoch}").sample(range(n), n)
    return _permutations[key]
