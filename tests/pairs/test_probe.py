from __future__ import annotations

import json
import math

import pytest

from contextrl.pairs.cascade import mine
from contextrl.pairs.errors import PairsError
from contextrl.pairs.intervals import paired_bootstrap, wilson
from contextrl.pairs.probe import ProbeReport, accuracy_change, probe, probe_rendered
from contextrl.pairs.render import COMPACT, option_token_ids, render
from contextrl.pairs.types import Order


class Oracle:
    def margins(self, pairs):
        return [2.0 for _ in pairs]


class AlwaysA:
    def __init__(self, tokenizer):
        self.a = option_token_ids(tokenizer).a

    def margins(self, pairs):
        return [1.0 if pair.correct_ids == self.a else -1.0 for pair in pairs]


class Broken:
    def __init__(self, margins):
        self.returned = margins

    def margins(self, pairs):
        return self.returned


@pytest.fixture(scope="module")
def pairs(make):
    bugs = ("low", "high", "middle")
    runs = [make.run(bug, sample=s) for bug in bugs for s in range(2)]
    return mine(runs, [make.task(bug) for bug in bugs]).pairs


def test_an_oracle_is_right_everywhere(pairs, tokenizer):
    report = probe(pairs, Oracle(), tokenizer, COMPACT)
    assert report.accuracy.mean == report.consistent.mean == 1.0
    assert report.accuracy.n == len(pairs)
    assert len(report.prompts) == 2 * len(pairs)
    assert report.share_a == 0.5
    assert report.mean_margin == 2.0


def test_a_model_that_always_says_a_is_at_chance_and_found_out(pairs, tokenizer):
    report = probe(pairs, AlwaysA(tokenizer), tokenizer, COMPACT)
    assert report.accuracy.mean == 0.5
    assert report.share_a == 1.0
    assert (report.accuracy_when_a, report.accuracy_when_b) == (1.0, 0.0)
    assert report.consistent.mean == 0.0


def test_intervals_count_pairs_not_prompts(pairs, tokenizer):
    report = probe(pairs, AlwaysA(tokenizer), tokenizer, COMPACT)
    assert report.accuracy == wilson([0.5] * len(pairs))
    assert report.accuracy.high - report.accuracy.low > 0.2


def test_equal_letters_are_half_a_point(pairs, tokenizer):
    report = probe(pairs[:1], Broken([0.0, 0.0]), tokenizer, COMPACT)
    assert report.accuracy.mean == report.share_a == 0.5


@pytest.mark.parametrize("margins", [[1.0], [math.nan, 1.0], []])
def test_a_scorer_that_fails_is_named(pairs, tokenizer, margins):
    with pytest.raises(PairsError, match="expected 2 margins"):
        probe(pairs[:1], Broken(margins), tokenizer, COMPACT)


def test_pairs_over_the_budget_are_left_out_and_counted(pairs, tokenizer):
    report = probe(pairs, Oracle(), tokenizer, COMPACT, max_tokens=40)
    assert report.over_budget == len(pairs)
    assert report.accuracy.n == 0
    rendered = [render(pair, Order.POSITIVE_FIRST, COMPACT) for pair in pairs]
    report = probe_rendered(rendered, Oracle(), tokenizer, style_name="x", max_tokens=40)
    assert report.over_budget == len(pairs)
    assert report.consistent.n == 0


def test_the_report_is_json_and_reads_back(pairs, tokenizer):
    report = probe(pairs, Oracle(), tokenizer, COMPACT)
    assert ProbeReport.model_validate_json(report.model_dump_json()) == report
    assert json.loads(report.model_dump_json())["prompts"][0]["correct"] in ("A", "B")


def test_before_and_after_are_compared_pair_by_pair(pairs, tokenizer):
    before = probe(pairs, AlwaysA(tokenizer), tokenizer, COMPACT)
    after = probe(pairs[1:], Oracle(), tokenizer, COMPACT)
    change = accuracy_change(before, after)
    assert (change.mean, change.low, change.high, change.n) == (0.5, 0.5, 0.5, len(pairs) - 1)


def test_progress_reaches_the_end(pairs, tokenizer):
    seen = []
    probe(pairs, Oracle(), tokenizer, COMPACT, on_progress=lambda *done: seen.append(done))
    assert seen[-1] == (2 * len(pairs), 2 * len(pairs))


def test_wilson_by_hand():
    share = wilson([1.0] * 8 + [0.0] * 2)
    assert share.mean == 0.8
    assert share.low == pytest.approx(0.4902, abs=1e-4)
    assert share.high == pytest.approx(0.9433, abs=1e-4)
    assert wilson([]).n == 0


def test_bootstrap_brackets_the_mean():
    change = paired_bootstrap([0.5, 0.0, 0.0, 1.0] * 25)
    assert change.low < change.mean == 0.375 < change.high
    assert paired_bootstrap([]).n == 0
