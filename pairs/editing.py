"""Image questions -> pairs by editing: propose a change, make it, measure it, have it judged.

A chat model that sees proposes one decisive change and the new answer, an image model makes it, the
change must be local by measurement, and the chat model must find both answers true and the edit
genuine. Every answer is kept by the digest of what was asked: a run that was killed pays for
nothing twice. Each edit becomes two pairs, so that original and edit are right equally often.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum

from PIL import Image

from contextrl.envs.types import Record
from contextrl.pairs.edit_calls import EditCalls
from contextrl.pairs.encode import IMAGE_MARK
from contextrl.pairs.errors import EndpointBusyError, ImageError, PairFileError, SpentError
from contextrl.pairs.images import ImageStore, open_image
from contextrl.pairs.judge import JudgeVerdict
from contextrl.pairs.locality import Locality, LocalityLimits, fault, measure
from contextrl.pairs.record_cache import key_of
from contextrl.pairs.stages import StageCount
from contextrl.pairs.types import ImageContext, ImagePair, ImageProvenance
from contextrl.pairs.vqa import VQARow

logger = logging.getLogger(__name__)

MINER = "editing/1"
SameAnswer = Callable[[str, str], bool]


class EditStage(StrEnum):
    """What a row must come to, in this order."""

    USABLE = "it shows one image that opens, and has an answer"
    PROPOSED = "a change was proposed"
    NEW_ANSWER = "the new answer differs"
    EDITED = "the edit is an image"
    LOCAL = "the change is local, measured"
    VALID = "judged VALID"


@dataclass(frozen=True, slots=True, kw_only=True)
class EditSettings:
    source: str
    """Name of the data set, for the pairs' provenance."""
    limits: LocalityLimits = field(default_factory=LocalityLimits)
    concurrency: int = 4


class EditOutcome(Record):
    """What became of one row."""

    row_id: str
    lost_at: EditStage | None
    """None: two pairs were made of it."""
    reason: str = ""
    change: str = ""
    locality: Locality | None = None


class EditReport(Record):
    pairs: tuple[ImagePair, ...]
    stages: tuple[StageCount, ...]
    outcomes: tuple[EditOutcome, ...]
    """Of every row that was asked to its end, in the order of the rows."""
    unasked: dict[str, int]
    """Why rows have no outcome, and how many: run again, nothing is paid twice."""
    paid_usd: float


def edit_pairs(
    rows: Sequence[VQARow],
    calls: EditCalls,
    store: ImageStore,
    settings: EditSettings,
    same_answer: SameAnswer,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> EditReport:
    """Two pairs for each row whose edit holds; their images are in the store.

    Raises:
        JudgeError: an endpoint refuses, or has no price under a budget: nothing more is asked.
    """
    makers = _Maker(calls, store, settings, same_answer)
    outcomes: list[EditOutcome] = []
    pairs: list[ImagePair] = []
    unasked: Counter[str] = Counter()
    pool = ThreadPoolExecutor(settings.concurrency)
    try:
        numbers = range(len(rows))
        for done, made in enumerate(pool.map(lambda at: makers.make(rows, at), numbers), start=1):
            if isinstance(made, str):
                unasked[made] += 1
            else:
                outcomes.append(made.outcome)
                pairs += made.pairs
            on_progress(done, len(rows))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    lost = Counter(each.lost_at for each in outcomes)
    stages, count = [], len(outcomes)
    for stage in EditStage:
        kept = count - lost[stage]
        stages.append(StageCount(name=stage, unit="rows", seen=count, kept=kept))
        count = kept
        logger.info("%s: kept %d/%d rows", stage, kept, stages[-1].seen)
    return EditReport(
        pairs=tuple(sorted(pairs, key=lambda pair: pair.pair_id)),
        stages=tuple(stages),
        outcomes=tuple(outcomes),
        unasked=dict(unasked),
        paid_usd=calls.ledger.paid_usd,
    )


@dataclass(frozen=True, slots=True)
class _Made:
    outcome: EditOutcome
    pairs: tuple[ImagePair, ...] = ()


@dataclass(frozen=True, slots=True)
class _Maker:
    calls: EditCalls
    store: ImageStore
    settings: EditSettings
    same_answer: SameAnswer

    def make(self, rows: Sequence[VQARow], number: int) -> _Made | str:
        """Why there is no outcome, as a text, when an endpoint or the budget failed."""
        try:
            row = rows[number]
        except PairFileError as error:
            return _lost(f"row {number}", EditStage.USABLE, str(error))
        try:
            return self._asked(row)
        except (EndpointBusyError, SpentError) as error:
            return str(error)

    def _asked(self, row: VQARow) -> _Made:
        """The main flow: each step may end it."""
        question = row.problem.replace(IMAGE_MARK, " ").strip()
        answer = row.answer.strip()
        try:
            if len(row.images) != 1 or not answer or not question:
                return _lost(row.row_id, EditStage.USABLE, "not one image with an answer")
            original = open_image(row.images[0], row_id=row.row_id)
        except ImageError as error:
            return _lost(row.row_id, EditStage.USABLE, str(error))

        proposal = self.calls.propose(original, question, answer)
        if not proposal.change:
            return _lost(row.row_id, EditStage.PROPOSED, "no local change was proposed")
        if self.same_answer(proposal.answer, answer) or self.same_answer(answer, proposal.answer):
            return _lost(row.row_id, EditStage.NEW_ANSWER, proposal.answer, proposal.change)

        try:
            edited = open_image(self.calls.edit(original, proposal.change), row_id=row.row_id)
        except ImageError as error:
            return _lost(row.row_id, EditStage.EDITED, str(error), proposal.change)
        locality = measure(original, edited)
        why = fault(locality, self.settings.limits)
        if why is not None:
            return _lost(row.row_id, EditStage.LOCAL, why, proposal.change, locality)

        # Of one size, so that no reader can tell the edit by that.
        edited = edited.resize(original.size, Image.Resampling.LANCZOS)
        verdict, reason = self.calls.verify(original, edited, question, answer, proposal.answer)
        if verdict is not JudgeVerdict.VALID:
            said = f"{verdict}: {reason}"
            return _lost(row.row_id, EditStage.VALID, said, proposal.change, locality)
        outcome = EditOutcome(
            row_id=row.row_id, lost_at=None, change=proposal.change, locality=locality
        )
        # PNG for both: how a file was compressed must not tell the edit either.
        sides = (
            ImageContext(image=self.store.put_drawn(original), answer=answer, box=locality.box),
            ImageContext(
                image=self.store.put_drawn(edited), answer=proposal.answer, box=locality.box
            ),
        )
        return _Made(outcome, tuple(self._pairs(row.row_id, question, sides)))

    def _pairs(
        self, row_id: str, question: str, sides: tuple[ImageContext, ImageContext]
    ) -> Iterator[ImagePair]:
        ids = row_id, f"{row_id}#edited"
        for here, there in ((0, 1), (1, 0)):
            yield ImagePair(
                pair_id=f"edited-{key_of(self.settings.source, question, *ids, str(here))[:16]}",
                question=question,
                answer=sides[here].answer,
                positive=sides[here],
                negative=sides[there],
                provenance=ImageProvenance(
                    source=self.settings.source,
                    group=sides[0].image.sha256[:16],
                    positive_id=ids[here],
                    negative_id=ids[there],
                    miner=MINER,
                ),
            )


def _lost(
    row_id: str,
    stage: EditStage,
    reason: str,
    change: str = "",
    locality: Locality | None = None,
) -> _Made:
    return _Made(
        EditOutcome(row_id=row_id, lost_at=stage, reason=reason, change=change, locality=locality)
    )
