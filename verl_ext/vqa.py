"""What one process needs to ask and grade image questions: rows, prompts, a grader, a record.

Built once per process from the resolved configuration, as `episodes` is for the other recipe.
"""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from contextrl.envs.types import Record
from contextrl.pairs.encode import encode_prompt
from contextrl.pairs.vqa import VQARow
from contextrl.verl_ext.line_file import open_to_append
from contextrl.verl_ext.rewards import Score, score
from contextrl.verl_ext.scorer_hf import load_tokenizer
from contextrl.verl_ext.settings import CAConfig, JobConfig
from contextrl.verl_ext.settings_vl import VLConfig
from contextrl.verl_ext.vision import VisionInputs
from contextrl.verl_ext.vqa_rows import VQARows

ANSWERS = "answers.jsonl"
"""In the run folder: one `Answer` a line."""
KEPT_PROMPTS = 32
"""A question is asked several times in a row; its images, megabytes each, are prepared once."""


class Answer(Record):
    """One reply of the policy, graded."""

    phase: str
    """`train` or `validate`."""
    split: str
    train_step: int
    row_id: str
    sample: int
    reply: str
    accuracy: float
    format: float


@dataclass(frozen=True, slots=True)
class Prompt:
    token_ids: list[int]
    vision: VisionInputs
    images: Sequence[Image.Image]
    """As the model sees them."""


class Questions:
    """Rows by their source and number, as prompts and as grades."""

    def __init__(self, config: Any) -> None:
        """Raises `ModelError`, `PairFileError` or `ConfigError`."""
        self.job = JobConfig.from_mapping(config.job)
        ca = CAConfig.from_mapping(config.ca)
        self.tokenizer = load_tokenizer(
            config.actor_rollout_ref.model.path, min_pixels=ca.min_pixels, max_pixels=ca.max_pixels
        )
        self._rows: dict[str, VQARows] = {}
        self._lock = threading.Lock()
        self._fd = open_to_append(Path(self.job.run_dir) / ANSWERS)
        self._prompts: OrderedDict[tuple[str, int], Future[Prompt]] = OrderedDict()

    @classmethod
    def of_this_process(cls, config: Any) -> Questions:
        """Opened at the first call."""
        with _lock:
            if not _of_this_process:
                _of_this_process.append(cls(config))
            return _of_this_process[0]

    def row(self, source: str, index: int) -> VQARow:
        with self._lock:
            if source not in self._rows:
                self._rows[source] = VQARows.open(source)
            return self._rows[source].row(index)

    def prompt(self, source: str, index: int) -> Prompt:
        """Prepared by the first who asks; the others, from other threads, wait for it.

        Raises an error naming the row whose images or marks do not fit.
        """
        key = (source, index)
        with self._lock:
            first = key not in self._prompts
            if first:
                self._prompts[key] = Future()
                while len(self._prompts) > KEPT_PROMPTS:
                    self._prompts.popitem(last=False)
            prompt = self._prompts[key]
        if first:
            try:
                row = self.row(source, index)
                prompt.set_result(question_prompt(row, self.tokenizer, self.job.vl))
            except BaseException as error:
                prompt.set_exception(error)
        return prompt.result()

    def grade(
        self, row: VQARow, reply: str, *, phase: str, split: str, train_step: int, sample: int
    ) -> Score:
        """Graded and recorded."""
        found = score(reply, row.answer)
        answer = Answer(
            phase=phase,
            split=split,
            train_step=train_step,
            row_id=row.row_id,
            sample=sample,
            reply=reply,
            accuracy=found.accuracy,
            format=found.format,
        )
        os.write(self._fd, (answer.model_dump_json() + "\n").encode())
        return found


def question_prompt(row: VQARow, tokenizer: Any, vl: VLConfig) -> Prompt:
    """One question, the format asked for after it, as the policy meets it.

    Raises `PairsError` or `ImageTokensError` naming the row.
    """
    images = [tokenizer.prepared(file, row_id=row.row_id) for file in row.images]
    token_ids, vision = encode_prompt(
        row.problem.strip(),
        tokenizer,
        closing=vl.format_prompt,
        images=row.images,
        row_id=row.row_id,
        prefill=vl.reply_prefix,
    )
    return Prompt(token_ids, vision, images)


def read_answers(run_dir: Path) -> Iterator[Answer]:
    """Of a step that a resumed run did twice, the later ones."""
    latest: dict[tuple[str, str, int, str, int], Answer] = {}
    path = run_dir / ANSWERS
    if path.exists():
        for line in path.read_text(encoding="utf-8").split("\n"):
            try:
                answer = Answer.model_validate(json.loads(line))
            except ValueError:
                continue  # torn by a kill
            key = (answer.phase, answer.split, answer.train_step, answer.row_id, answer.sample)
            latest[key] = answer
    yield from latest.values()


_lock = threading.Lock()
_of_this_process: list[Questions] = []
