"""What can be won without reading: one rule per surface feature, no training.

Each rule picks the option with the larger value. A share far from 0.5, on either side, is a
shortcut that a model may take in place of the evidence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from contextrl.envs.types import Record
from contextrl.pairs.diffs import patch_lines
from contextrl.pairs.intervals import Share, wilson
from contextrl.pairs.masking import MASK
from contextrl.pairs.types import TrajectoryContext, TrajectoryPair

_IDENTIFIER = re.compile(r"[A-Za-z_]\w{2,}")
_FAILURE = re.compile(r"\b(?:fail\w*|error|traceback)\b", re.IGNORECASE)
_SUCCESS = re.compile(r"\b(?:pass|passed|passes|ok|success\w*)\b", re.IGNORECASE)


class RuleResult(Record):
    rule: str
    accuracy: Share
    """Of picking the option with the larger value; a tie counts 0.5."""
    ties: int

    @property
    def is_shortcut(self) -> bool:
        """The interval leaves chance out, in either direction."""
        return not self.accuracy.low <= 0.5 <= self.accuracy.high


class AuditReport(Record):
    n_pairs: int
    rules: tuple[RuleResult, ...]
    """The farthest from chance first."""


Feature = Callable[[TrajectoryPair, TrajectoryContext], float]


def audit(pairs: Sequence[TrajectoryPair]) -> AuditReport:
    """How often each single-feature rule finds the supporting context."""
    rules = []
    for name, feature in FEATURES.items():
        differences = [feature(p, p.positive) - feature(p, p.negative) for p in pairs]
        credits = [0.5 if each == 0 else float(each > 0) for each in differences]
        rules.append(RuleResult(rule=name, accuracy=wilson(credits), ties=differences.count(0.0)))
    rules.sort(key=lambda rule: -abs(rule.accuracy.mean - 0.5))
    return AuditReport(n_pairs=len(pairs), rules=tuple(rules))


def _text(context: TrajectoryContext, role: str | None = None) -> str:
    return "\n".join(m.content for m in context.messages if role is None or m.role == role)


def _chars(pair: TrajectoryPair, context: TrajectoryContext) -> float:
    return float(len(_text(context)))


def _observed_chars(pair: TrajectoryPair, context: TrajectoryContext) -> float:
    return float(len(_text(context, "user")))


def _said_chars(pair: TrajectoryPair, context: TrajectoryContext) -> float:
    return float(len(_text(context, "assistant")))


def _steps(pair: TrajectoryPair, context: TrajectoryContext) -> float:
    return float(sum(message.role == "assistant" for message in context.messages))


def _masks(pair: TrajectoryPair, context: TrajectoryContext) -> float:
    return float(_text(context).count(MASK))


def _masks_fit(pair: TrajectoryPair, context: TrajectoryContext) -> float:
    """Masks are counted by whoever counts the patch's lines: a long fix leaves many."""
    return -abs(_masks(pair, context) - len(patch_lines(pair.answer).added))


def _failure_words(pair: TrajectoryPair, context: TrajectoryContext) -> float:
    return float(len(_FAILURE.findall(_text(context))))


def _success_words(pair: TrajectoryPair, context: TrajectoryContext) -> float:
    return float(len(_SUCCESS.findall(_text(context))))


def _overlap(words: set[str], text: str) -> float:
    return len(words & set(_IDENTIFIER.findall(text))) / len(words) if words else 0.0


def _added_in_context(pair: TrajectoryPair, context: TrajectoryContext) -> float:
    added = set(_IDENTIFIER.findall("\n".join(patch_lines(pair.answer).added)))
    return _overlap(added, _text(context))


def _patch_in_context(pair: TrajectoryPair, context: TrajectoryContext) -> float:
    return _overlap(set(_IDENTIFIER.findall(pair.answer)), _text(context))


def _patch_in_issue(pair: TrajectoryPair, context: TrajectoryContext) -> float:
    return _overlap(set(_IDENTIFIER.findall(pair.answer)), context.question)


def _file_mentions(pair: TrajectoryPair, context: TrajectoryContext) -> float:
    return float(_text(context).count(pair.provenance.file.rpartition("/")[2]))


def _issue_chars(pair: TrajectoryPair, context: TrajectoryContext) -> float:
    return float(len(context.question))


FEATURES: dict[str, Feature] = {
    "longer context": _chars,
    "longer observations": _observed_chars,
    "longer replies": _said_chars,
    "longer issue": _issue_chars,
    "more steps": _steps,
    "more masks": _masks,
    "as many masks as the patch adds lines": _masks_fit,
    "more mentions of the patched file": _file_mentions,
    "more words of failure": _failure_words,
    "more words of success": _success_words,
    "more of the patch's identifiers": _patch_in_context,
    "more of the added lines' identifiers": _added_in_context,
    "more of the patch's identifiers in the issue": _patch_in_issue,
}
