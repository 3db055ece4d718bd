from __future__ import annotations

import pytest

from contextrl.agents.types import Message
from contextrl.pairs.audit import audit
from contextrl.pairs.diffs import patch_lines
from contextrl.pairs.errors import PairsError
from contextrl.pairs.masking import MASK
from contextrl.pairs.probe import PromptResult, summarise
from contextrl.pairs.shortcuts import (
    GroupBy,
    probe_by_surface,
    rebalanced,
    shortcut_audit,
    without_shortcuts,
)
from contextrl.pairs.types import Order


def longer(context):
    extra = Message(role="user", content="padding " * 50)
    return context.model_copy(update={"messages": (*context.messages, extra)})


def result(report, rule):
    return next(each for each in report.rules if each.rule == rule)


def test_mined_pairs_in_both_directions_are_at_chance_for_length(make):
    report = audit(make.mined())
    assert report.n_pairs == 2
    assert result(report, "longer context").accuracy.mean == 0.5
    assert result(report, "more steps").ties == 2
    assert not any(rule.is_shortcut for rule in report.rules)


def test_a_planted_shortcut_is_found_and_listed_first(make):
    pair = make.mined()[0]
    rigged = [pair.model_copy(update={"positive": longer(pair.positive)})] * 20
    report = audit(rigged)
    found = result(report, "longer context")
    assert found.accuracy.mean == 1.0
    assert found.is_shortcut
    assert report.rules[0].is_shortcut
    turned = [p.model_copy(update={"positive": p.negative, "negative": p.positive}) for p in rigged]
    assert result(audit(turned), "longer context").is_shortcut


def test_masks_that_betray_the_length_of_a_fix_are_found(make):
    pair = make.mined()[0]

    def masked(context, n):
        extra = Message(role="user", content=f"{MASK}\n" * n)
        messages = [
            m.model_copy(update={"content": m.content.replace(MASK, "")}) for m in context.messages
        ]
        return context.model_copy(update={"messages": (*messages, extra)})

    n_added = len(patch_lines(pair.answer).added)
    sides = {"positive": masked(pair.positive, n_added), "negative": masked(pair.negative, 9)}
    report = audit([pair.model_copy(update=sides)] * 20)
    assert result(report, "as many masks as the patch adds lines").accuracy.mean == 1.0
    assert result(report, "more masks").accuracy.mean == 0.0


def spread(pair, n):
    """Copies of a pair in three made-up repositories."""
    return [
        pair.model_copy(
            update={
                "pair_id": f"{number:04}",
                "provenance": pair.provenance.model_copy(update={"repo": f"a/{number % 3}"}),
            }
        )
        for number in range(n)
    ]


def test_classifiers_win_by_a_planted_shortcut_and_the_set_can_be_filtered(make):
    pytest.importorskip("sklearn")
    pair = make.mined()[0]
    rigged = spread(pair.model_copy(update={"positive": longer(pair.positive)}), 30)
    report = shortcut_audit(rigged)
    assert (report.grouped_by, report.groups) == (GroupBy.REPOSITORY, 3)
    assert report.classifiers[0].beats_chance
    assert len(report.solved) == 30
    assert without_shortcuts(rigged, report) == ()
    assert rebalanced(rigged, report) == ()


def test_a_rebalanced_set_is_won_and_lost_alike(make):
    pytest.importorskip("sklearn")
    pair = make.mined()[0]
    rigged = spread(pair.model_copy(update={"positive": longer(pair.positive)}), 30)
    # three in ten have it the other way round
    mixed = [
        p.model_copy(update={"positive": p.negative, "negative": p.positive}) if n % 10 < 3 else p
        for n, p in enumerate(rigged)
    ]
    report = shortcut_audit(mixed)
    won = set(report.won)
    assert len(won) > 15
    kept = rebalanced(mixed, report)
    lost = len(mixed) - len(won)
    assert len(kept) == 2 * lost
    assert sum(p.pair_id in won for p in kept) == lost


def test_classifiers_are_at_chance_on_pairs_in_both_directions(make):
    pytest.importorskip("sklearn")
    first, second = make.mined()
    pairs = [
        *spread(first, 15),
        *(p.model_copy(update={"pair_id": p.pair_id + "b"}) for p in spread(second, 15)),
    ]
    report = shortcut_audit(pairs)
    assert not report.classifiers[-1].accuracy.low > 0.6
    assert report.share_a.mean == 0.5


def test_a_handful_of_pairs_cannot_be_audited(make):
    with pytest.raises(PairsError, match="at least 8 pairs"):
        shortcut_audit(make.mined())


def test_no_pairs_say_nothing():
    report = audit([])
    assert report.n_pairs == 0
    assert not any(rule.is_shortcut for rule in report.rules)


def test_a_probe_is_told_apart_by_what_surface_features_win(make):
    pytest.importorskip("sklearn")
    pair = make.mined()[0]
    rigged = spread(pair.model_copy(update={"positive": longer(pair.positive)}), 30)
    report = shortcut_audit(rigged)
    lost = report.model_copy(update={"won": report.won[:20]})
    answers = [
        PromptResult(
            pair_id=pair_id,
            order=Order.POSITIVE_FIRST,
            correct="A",
            margin=1.0 if pair_id in lost.won else -1.0,
        )
        for pair_id in report.pair_ids
    ]
    found = probe_by_surface(lost, summarise(answers, style_name="compact"))
    assert (found.won.mean, found.won.n) == (1.0, 20)
    assert (found.lost.mean, found.lost.n) == (0.0, 10)
    stranger = answers[0].model_copy(update={"pair_id": "another"})
    with pytest.raises(PairsError, match="none of their ids"):
        probe_by_surface(lost, summarise([stranger], style_name="compact"))
