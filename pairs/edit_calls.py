"""The three calls of an edit, each from the cache or paid for once: propose, edit, verify."""

from __future__ import annotations

import hashlib
from enum import IntEnum
from functools import cached_property
from pathlib import Path

from PIL import Image

from contextrl.envs.types import Record
from contextrl.pairs.edit_prompts import (
    VERSION,
    Proposal,
    propose_prompt,
    read_proposal,
    verify_prompt,
)
from contextrl.pairs.edit_rows import EditRow
from contextrl.pairs.endpoints import ChatEndpoint, ChatReply
from contextrl.pairs.errors import ImageError, PairsError, RefusedError
from contextrl.pairs.image_endpoint import ImageEndpoint
from contextrl.pairs.images import open_image, pixel_digest, png_file
from contextrl.pairs.judge import Judgement
from contextrl.pairs.ledger import Ledger, Payment, no_price
from contextrl.pairs.record_cache import RecordCache, key_of
from contextrl.pairs.refusals import MOST_REFUSALS, Refusals
from contextrl.pairs.store import named, write_whole
from contextrl.pairs.verdicts import read_verdict

MAX_REPLY_TOKENS = 2_000
"""Reasoning included: a reply that is cut off is lost, and a short one costs no more for it."""


class EditedFile(Record):
    """An edit that was paid for; its bytes lie beside it."""

    sha256: str
    cost_usd: float | None


class Step(IntEnum):
    """In the order they are asked."""

    PROPOSE = 1
    EDIT = 2
    VERIFY = 3


class NotAskedError(PairsError):
    """A dry run came to a call that is not in the cache; it and what follows would be paid for."""

    def __init__(self, step: Step, key: str) -> None:
        super().__init__(f"not asked: {step.name}")
        self.step = step
        self.key = key


class EditCalls:
    """Any number of threads may call. `work` keeps what was paid for."""

    def __init__(
        self,
        chat: ChatEndpoint,
        editor: ImageEndpoint,
        work: Path,
        ledger: Ledger,
        *,
        max_reply_tokens: int = MAX_REPLY_TOKENS,
        most_refusals: int = MOST_REFUSALS,
        dry: bool = False,
    ) -> None:
        """Raises `JudgeError` under a budget when a price is not known: before a call is paid."""
        self.chat, self.editor, self.ledger, self.dry = chat, editor, ledger, dry
        self.max_reply_tokens = max_reply_tokens
        self.chat_refusals, self.edit_refusals = Refusals(most_refusals), Refusals(most_refusals)
        self.proposals = RecordCache(work / "proposals", Proposal)
        self.edits = RecordCache(work / "edits", EditedFile)
        self.verdicts = RecordCache(work / "verdicts", Judgement)
        self._files = work / "files"
        if ledger.most_usd is not None:
            if chat.cost(1000, 1000) is None:
                raise no_price(chat.model)
            if editor.estimate(1000, 1000) is None:
                raise no_price(editor.model)

    def about(self, row: EditRow) -> RowCalls:
        return RowCalls(self, row)

    def before(self, step: Step, key: str) -> None:
        """Raises `NotAskedError` in a dry run, `SpentError` when the money is spent."""
        if self.dry:
            raise NotAskedError(step, key)
        self.ledger.check()

    def ask_chat(self, step: Step, key: str, prompt: str, images: list[Image.Image]) -> ChatReply:
        """A whole reply, paid for. Raises `RefusedError`; `JudgeError` when all are refused."""
        self.before(step, key)
        files = [png_file(image) for image in images]
        try:
            reply = self.chat.ask(prompt, max_tokens=self.max_reply_tokens, images=files)
            self.ledger.add(Payment(key=key, model=self.chat.model, usd=reply.cost_usd))
            reply.whole_text()
        except RefusedError as error:
            self.chat_refusals.add(error)
            raise
        self.chat_refusals.worked()
        return reply

    def ask_editor(self, key: str, row: EditRow, change: str) -> Image.Image:
        """An image, paid for. Raises as `ask_chat` does."""
        self.before(Step.EDIT, key)
        shown = row.canvas.padded(row.image) if row.canvas else row.image
        size = (row.canvas.width, row.canvas.height) if row.canvas else None
        try:
            reply = self.editor.edit(png_file(shown), change, size)
            self.ledger.add(Payment(key=key, model=self.editor.model, usd=reply.cost_usd))
            if not reply.file:
                raise RefusedError(f"{self.editor.model}: the reply held no image")
            try:
                image = open_image(reply.file, row_id=row.row_id)
            except ImageError as error:
                raise RefusedError(str(error)) from error
        except RefusedError as error:
            self.edit_refusals.add(error)
            raise
        self.edit_refusals.worked()
        # Only what opens is kept: anything else is asked for again.
        digest = self._write(reply.file)
        self.edits.put(key, EditedFile(sha256=digest, cost_usd=reply.cost_usd))
        return image

    def read(self, edit: EditedFile) -> bytes | None:
        """None for a file that is gone or damaged: it is asked for again."""
        path = self._files / edit.sha256
        if not path.exists():
            return None
        with named(path):
            file = path.read_bytes()
        return file if hashlib.sha256(file).hexdigest() == edit.sha256 else None

    def _write(self, file: bytes) -> str:
        digest = hashlib.sha256(file).hexdigest()
        with named(self._files):
            self._files.mkdir(parents=True, exist_ok=True)
            write_whole(self._files / digest, [file], to_disk=False)
        return digest


class RowCalls:
    """The calls about one row, and what they cost together."""

    def __init__(self, calls: EditCalls, row: EditRow) -> None:
        self._calls = calls
        self._row = row
        self._keys: list[str] = []

    @property
    def cost_usd(self) -> float:
        """By all runs; rows that show the same image and ask the same share their replies."""
        return self._calls.ledger.cost_of(self._keys)

    def propose(self) -> Proposal:
        """An empty proposal when there is no such change. Raises `RefusedError`."""
        calls, row = self._calls, self._row
        prompt = propose_prompt(row.question, row.answer)
        key = self._key(calls.chat.identity, prompt)
        with calls.proposals.asking(key):
            known = calls.proposals.get(key)
            if known is None:
                reply = calls.ask_chat(Step.PROPOSE, key, prompt, [row.image])
                known = read_proposal(reply.text, reply.cost_usd or 0.0)
                calls.proposals.put(key, known)
        calls.chat_refusals.worked()
        return known

    def edit(self, change: str) -> Image.Image:
        """The image as the model drew it. Raises `RefusedError`."""
        calls, row = self._calls, self._row
        key = self._key(calls.editor.identity, change, self._canvas)
        with calls.edits.asking(key):
            known = calls.edits.get(key)
            file = calls.read(known) if known is not None else None
            if file is None:
                return calls.ask_editor(key, row, change)
        calls.edit_refusals.worked()
        return open_image(file, row_id=row.row_id)

    def verify(self, before: Image.Image, after: Image.Image, new_answer: str) -> Judgement:
        """Raises `RefusedError`."""
        calls, row = self._calls, self._row
        prompt = verify_prompt(row.question, row.answer, new_answer)
        key = self._key(calls.chat.identity, prompt, self._canvas, pixel_digest(after))
        with calls.verdicts.asking(key):
            known = calls.verdicts.get(key)
            if known is None:
                reply = calls.ask_chat(Step.VERIFY, key, prompt, [before, after])
                verdict, reason = read_verdict(reply.text)
                known = Judgement(
                    pair_id="",
                    verdict=verdict,
                    reason=reason,
                    model=calls.chat.model,
                    prompt_tokens=reply.prompt_tokens,
                    completion_tokens=reply.completion_tokens,
                    cost_usd=reply.cost_usd or 0.0,
                )
                calls.verdicts.put(key, known)
        calls.chat_refusals.worked()
        return known

    @property
    def _canvas(self) -> str:
        return self._row.canvas.model_dump_json() if self._row.canvas else ""

    @cached_property
    def _pixels(self) -> str:
        return pixel_digest(self._row.image)

    def _key(self, *asked: str) -> str:
        key = key_of(str(VERSION), *asked, self._pixels)
        self._keys.append(key)
        return key
