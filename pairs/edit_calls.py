"""The three calls of an edit, each from the cache or paid for once: propose, edit, verify."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
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
from contextrl.pairs.encode import IMAGE_MARK
from contextrl.pairs.endpoints import ChatEndpoint
from contextrl.pairs.errors import ImageError
from contextrl.pairs.image_endpoint import ImageEndpoint
from contextrl.pairs.images import open_image, pixel_digest, png_file
from contextrl.pairs.judge import CHARS_PER_TOKEN, Judgement, JudgeVerdict, read_verdict
from contextrl.pairs.judge_images import PIXELS_PER_TOKEN
from contextrl.pairs.ledger import Ledger
from contextrl.pairs.record_cache import RecordCache, key_of
from contextrl.pairs.store import named, write_whole
from contextrl.pairs.vqa import VQARow

MAX_REPLY_TOKENS = 400


class EditedFile(Record):
    """An edit that was paid for; its bytes lie beside it."""

    sha256: str
    cost_usd: float


@dataclass(frozen=True, slots=True)
class EditBill:
    """What a run would ask, at most: a change may be turned down before it is made."""

    proposals: int
    edits: int
    verdicts: int
    prompt_tokens: int
    completion_tokens: int
    """If every reply is as long as it may be."""


class EditCalls:
    """Any number of threads may call. `work` keeps what was paid for."""

    def __init__(
        self, chat: ChatEndpoint, editor: ImageEndpoint, work: Path, ledger: Ledger
    ) -> None:
        self.ledger = ledger
        self._chat = chat
        self._editor = editor
        self._files = work / "files"
        self._proposals = RecordCache(work / "proposals", Proposal)
        self._edits = RecordCache(work / "edits", EditedFile)
        self._verdicts = RecordCache(work / "verdicts", Judgement)

    def propose(self, image: Image.Image, question: str, answer: str) -> Proposal:
        """An empty proposal when there is no such change."""
        prompt = propose_prompt(question, answer)
        key = self._proposal_key(image, prompt)
        known = self._proposals.get(key)
        if known is None:
            self.ledger.check()
            reply = self._chat.ask(prompt, max_tokens=MAX_REPLY_TOKENS, images=[png_file(image)])
            known = read_proposal(reply.text, reply.cost_usd)
            self._proposals.put(key, known)
            self.ledger.add(reply.cost_usd, self._chat.model)
        return known

    def edit(self, image: Image.Image, change: str) -> bytes:
        """The edited file as the server sent it: hostile."""
        key = self._edit_key(image, change)
        known = self._edits.get(key)
        file = self._read(known) if known else None
        if file is None:
            self.ledger.check()
            reply = self._editor.edit(png_file(image), change)
            file = reply.file
            digest = hashlib.sha256(file).hexdigest()
            with named(self._files):
                self._files.mkdir(parents=True, exist_ok=True)
                write_whole(self._files / digest, [file], to_disk=False)
            self._edits.put(key, EditedFile(sha256=digest, cost_usd=reply.cost_usd))
            self.ledger.add(reply.cost_usd, self._editor.model)
        return file

    def verify(
        self, original: Image.Image, edited: Image.Image, question: str, answer: str, new: str
    ) -> tuple[JudgeVerdict, str]:
        prompt = verify_prompt(question, answer, new)
        model = self._chat.model
        key = key_of(str(VERSION), model, prompt, pixel_digest(original), pixel_digest(edited))
        known = self._verdicts.get(key)
        if known is None:
            self.ledger.check()
            files = [png_file(original), png_file(edited)]
            reply = self._chat.ask(prompt, max_tokens=MAX_REPLY_TOKENS, images=files)
            verdict, reason = read_verdict(reply.text)
            known = Judgement(
                pair_id="",
                verdict=verdict,
                reason=reason,
                model=model,
                prompt_tokens=reply.prompt_tokens,
                completion_tokens=reply.completion_tokens,
                cost_usd=reply.cost_usd,
            )
            self._verdicts.put(key, known)
            self.ledger.add(reply.cost_usd, model)
        return known.verdict, known.reason

    def bill(self, rows: Iterable[VQARow]) -> EditBill:
        """What `rows` would cost now; nothing is sent."""
        proposals = edits = verdicts = tokens = 0
        for row in rows:
            try:
                image = open_image(b"".join(row.images[:1]), row_id=row.row_id)
            except ImageError:
                continue
            question = row.problem.replace(IMAGE_MARK, " ").strip()
            prompt = propose_prompt(question, row.answer.strip())
            seen = image.width * image.height // PIXELS_PER_TOKEN
            known = self._proposals.get(self._proposal_key(image, prompt))
            if known is None:
                proposals += 1
                tokens += int(len(prompt) / CHARS_PER_TOKEN) + seen
            elif not known.change:
                continue
            if known is not None and self._edits.get(self._edit_key(image, known.change)):
                continue  # measured and, if it was local, judged: what is left is little
            edits += 1
            verdicts += 1
            tokens += int(len(verify_prompt(question, "", "")) / CHARS_PER_TOKEN) + 2 * seen
        asked = proposals + verdicts
        return EditBill(proposals, edits, verdicts, tokens, asked * MAX_REPLY_TOKENS)

    def _proposal_key(self, image: Image.Image, prompt: str) -> str:
        return key_of(str(VERSION), self._chat.model, prompt, pixel_digest(image))

    def _edit_key(self, image: Image.Image, change: str) -> str:
        return key_of(str(VERSION), self._editor.model, change, pixel_digest(image))

    def _read(self, edit: EditedFile) -> bytes | None:
        """None for a file that is gone or damaged: it is asked for again."""
        path = self._files / edit.sha256
        if not path.exists():
            return None
        with named(path):
            file = path.read_bytes()
        return file if hashlib.sha256(file).hexdigest() == edit.sha256 else None
