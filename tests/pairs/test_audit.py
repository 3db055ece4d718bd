from __future__ import annotations

from contextrl.agents.types import Message
from contextrl.pairs.audit import audit


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


def test_no_pairs_say_nothing():
    report = audit([])
    assert report.n_pairs == 0
    assert not any(rule.is_shortcut for rule in report.rules)
