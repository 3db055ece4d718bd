"""The pair probe on the policy under training: same prompts, same report as `contextrl probe`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contextrl.pairs.probe import PairScorer, ProbeReport, probe, probe_rendered
from contextrl.pairs.released import ReleasedPair
from contextrl.pairs.render import EncodedPair
from contextrl.pairs.store import read_any
from contextrl.pairs.types import Pair
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.pair_set import pair_style
from contextrl.verl_ext.settings import CAConfig


class WorkerGroupScorer:
    """`PairScorer` on the trainer's ranks: the weights that were just trained, no second copy."""

    def __init__(self, worker_group: Any, micro_batch_size: int) -> None:
        self._worker_group = worker_group
        self._micro_batch_size = micro_batch_size

    def margins(self, pairs: Sequence[EncodedPair]) -> list[float]:
        of_ranks = self._worker_group.ca_margins(list(pairs), self._micro_batch_size)
        return list(of_ranks[0])


def probe_held_out(config: CAConfig, tokenizer: Any, scorer: PairScorer) -> ProbeReport:
    """Both orders of every pair of `config.held_out`; released pairs in their one order."""
    if config.held_out is None:
        raise ConfigError("expected ca.held_out to name a pair file, found null")
    pairs = read_any(Path(config.held_out))
    style = pair_style(config)
    released = [pair for pair in pairs if isinstance(pair, ReleasedPair)]
    if released:
        rendered = [pair.rendered(style.prefill) for pair in released]
        return probe_rendered(rendered, scorer, tokenizer, style_name="released-file")
    ours = [pair for pair in pairs if isinstance(pair, Pair)]
    return probe(ours, scorer, tokenizer, style, max_tokens=config.max_prompt_tokens)
