"""Image questions -> pairs by editing: propose a change, make it, measure it, have it judged.

A chat model that sees proposes one decisive change and the new answer, an image model makes it, the
change must be local by measurement, and the chat model must find both answers true and the edit
genuine. Every whole answer is kept by the digest of what was asked: a run that was killed pays for
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
from contextrl.pairs.canvas import Canvas, Size
from contextrl.pairs.edit_calls import EditCalls, RowCalls
from contextrl.pairs.edit_rows import EditRow, UnusableRow, edit_row
from contextrl.pairs.errors import EndpointBusyError, RefusedError, SpentError
from contextrl.pairs.images import ImageStore
from contextrl.pairs.locality import Locality, LocalityLimits, fault, measure, stretch
from contextrl.pairs.record_cache import key_of
from contextrl.pairs.stages import StageCount
from contextrl.pairs.store import Spent
from contextrl.pairs.types import ImageContext, ImagePair, ImageProvenance
from contextrl.pairs.verdicts import JudgeVerdict
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
    image_sizes: tuple[Size, ...] = ()
    """That the image model draws in; none for a model that keeps the size it is shown."""
    concurrency: int = 4


class EditOutcome(Record):
    """What became of one row."""

    row_id: str
    lost_at: EditStage | None
    """None: two pairs were made of it."""
    reason: str = ""
    change: str = ""
    locality: Locality | None = None
    canvas: Canvas | None = None
    """What the image was padded to before it was edited, and where its edit was cut out again."""
    cost_usd: float = 0.0
    """Of its replies, whenever they were paid; rows that ask the same share them."""


class EditReport(Record):
    pairs: tuple[ImagePair, ...]
    stages: tuple[StageCount, ...]
    outcomes: tuple[EditOutcome, ...]
    """Of every row that was asked to its end, in the order of the rows."""
    unasked: dict[str, int]
    """Why rows have no outcome, and how many: run again, nothing is paid twice."""
    spent: Spent


@dataclass(frozen=True, slots=True)
class Edit:
    """Two images of the original's size, scaled alike, so that no reader can tell them by that."""

    before: Image.Image
    after: Image.Image
    stretch: float
    """How far the model's reply was from the shape that was asked for."""


@dataclass(frozen=True, slots=True)
class Followed:
    """How far a row came, and the edit of one that came to its end."""

    outcome: EditOutcome
    edit: Edit | None = None
    answer: str = ""


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
        JudgeError: an endpoint refuses every question: nothing more is asked.
    """

    def make(number: int) -> tuple[EditOutcome, tuple[ImagePair, ...]] | str:
        """Why there is no outcome, as a text, when an endpoint or the budget failed."""
        row = edit_row(rows, number, settings.image_sizes)
        if isinstance(row, UnusableRow):
            lost = EditOutcome(row_id=row.row_id, lost_at=EditStage.USABLE, reason=row.reason)
            return lost, ()
        try:
            found = follow(row, calls.about(row), settings, same_answer)
        except (EndpointBusyError, SpentError) as error:
            return str(error)
        return found.outcome, tuple(_pairs(row, found, store, settings.source))

    outcomes: list[EditOutcome] = []
    pairs: list[ImagePair] = []
    unasked: Counter[str] = Counter()
    pool = ThreadPoolExecutor(settings.concurrency)
    try:
        for done, made in enumerate(pool.map(make, range(len(rows))), start=1):
            if isinstance(made, str):
                unasked[made] += 1
            else:
                outcomes.append(made[0])
                pairs += made[1]
            on_progress(done, len(rows))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return EditReport(
        pairs=tuple(sorted(pairs, key=lambda pair: pair.pair_id)),
        stages=tuple(_stages(outcomes)),
        outcomes=tuple(outcomes),
        unasked=dict(unasked),
        spent=calls.ledger.spent(),
    )


def follow(
    row: EditRow, calls: RowCalls, settings: EditSettings, same_answer: SameAnswer
) -> Followed:
    """The main flow: each step may end it. Writes nothing but what is paid for.

    Raises:
        EndpointBusyError, SpentError, NotAskedError: another run may come further.
        JudgeError: the endpoint refuses every question.
    """
    change, locality = "", None

    def lost(stage: EditStage, reason: str) -> Followed:
        return Followed(outcome(stage, reason))

    def outcome(stage: EditStage | None, reason: str = "") -> EditOutcome:
        return EditOutcome(
            row_id=row.row_id,
            lost_at=stage,
            reason=reason,
            change=change,
            locality=locality,
            canvas=row.canvas,
            cost_usd=calls.cost_usd,
        )

    stage = EditStage.PROPOSED
    try:
        proposal = calls.propose()
        if not proposal.change:
            return lost(stage, "no local change was proposed")
        change, new = proposal.change, proposal.answer
        if same_answer(new, row.answer) or same_answer(row.answer, new):
            return lost(EditStage.NEW_ANSWER, new)

        stage = EditStage.EDITED
        edit = _in_place(row, calls.edit(change))
        locality = measure(edit.before, edit.after, stretched=edit.stretch)
        why = fault(locality, settings.limits)
        if why is not None:
            return lost(EditStage.LOCAL, why)

        stage = EditStage.VALID
        said = calls.verify(edit.before, edit.after, new)
        if said.verdict is not JudgeVerdict.VALID:
            return lost(stage, f"{said.verdict}: {said.reason}")
    except RefusedError as error:
        return lost(stage, str(error))
    return Followed(outcome(None), edit, new)


def _in_place(row: EditRow, drawn: Image.Image) -> Edit:
    size, canvas = row.image.size, row.canvas
    if canvas is None:
        after = drawn.resize(size, Image.Resampling.LANCZOS)
        return Edit(row.image, after, stretch(size, drawn.size))
    # The original goes the same way: what scaling alone does to it is no edit.
    before = canvas.cut_back(canvas.padded(row.image), size)
    after = canvas.cut_back(drawn, size)
    return Edit(before, after, stretch((canvas.width, canvas.height), drawn.size))


def _pairs(row: EditRow, found: Followed, store: ImageStore, source: str) -> Iterator[ImagePair]:
    if found.edit is None or found.outcome.locality is None:
        return
    box = found.outcome.locality.box
    # PNG for both: how a file was compressed must not tell the edit either.
    sides = (
        ImageContext(image=store.put_drawn(found.edit.before), answer=row.answer, box=box),
        ImageContext(image=store.put_drawn(found.edit.after), answer=found.answer, box=box),
    )
    ids = row.row_id, f"{row.row_id}#edited"
    for here, there in ((0, 1), (1, 0)):
        yield ImagePair(
            pair_id=f"edited-{key_of(source, row.question, *ids, str(here))[:16]}",
            question=row.question,
            answer=sides[here].answer,
            positive=sides[here],
            negative=sides[there],
            provenance=ImageProvenance(
                source=source,
                group=sides[0].image.sha256[:16],
                positive_id=ids[here],
                negative_id=ids[there],
                miner=MINER,
            ),
        )


def _stages(outcomes: Sequence[EditOutcome]) -> Iterator[StageCount]:
    lost = Counter(each.lost_at for each in outcomes)
    count = len(outcomes)
    for stage in EditStage:
        kept = count - lost[stage]
        logger.info("%s: kept %d/%d rows", stage, kept, count)
        yield StageCount(name=stage, unit="rows", seen=count, kept=kept)
        count = kept
