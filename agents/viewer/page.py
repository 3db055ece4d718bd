"""A run, or a set of pairs, as one HTML file: no server, no request, no script but our own.

Everything that a model or a file said travels as compressed JSON in base64, which holds no
character that HTML knows, and reaches the document as text nodes. Beyond that a content security
policy allows only the one script and the one style sheet of this file, by their digests.

The rows of the table come first; trajectories lie in chunks that are inflated when one is opened.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import importlib.resources
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from contextrl.agents.errors import RunStoreError
from contextrl.agents.types import Trajectory
from contextrl.agents.viewer.index import Row, TrajectoryIndex
from contextrl.agents.viewer.pairs import PairView
from contextrl.agents.viewer.steps import StepView, first_prompt, lacks, views
from contextrl.agents.viewer.visible import visible
from contextrl.envs.types import Record

CHUNK_CHARS = 400_000
"""Of JSON. Small enough to inflate in a few milliseconds."""

Decode = Callable[[Sequence[int]], list[str]]
"""Token ids -> the text of each."""


class Series(Record):
    """A curve of the overview."""

    name: str
    points: tuple[tuple[float, float], ...]


def write_page(
    file: Path,
    *,
    title: str,
    index: TrajectoryIndex | None = None,
    pairs: Sequence[PairView] = (),
    series: Sequence[Series] = (),
    decode: Decode | None = None,
    limit: int | None = None,
) -> int:
    """`file` holds the page, or is as it was; the number of bytes. `index` is read to its end.

    `decode` gives tokens their text; without it the page shows their log-probabilities alone.
    """
    handle, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            _write(stream, title, _bodies(index, pairs, decode, limit), series)
        os.chmod(draft, 0o644)
        size = os.path.getsize(draft)
        os.replace(draft, file)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    return size


Body = tuple[str, dict[str, Any], dict[str, Any]]
"""Kind, row of the table, and what is shown when it is opened."""


def _write(stream: IO[str], title: str, bodies: Iterable[Body], series: Sequence[Series]) -> None:
    style, script = _resource("page.css"), _resource("page.js")
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    before, after = _resource("page.html").split("<!--DATA-->")
    for name, value in (
        ("TITLE", html.escape(visible(title))),
        ("POLICY", policy),
        ("STYLE", style),
    ):
        before = before.replace(f"<!--{name}-->", value)
    stream.write(_ascii(before))

    tables: dict[str, list[dict[str, Any]]] = {"runs": [], "pairs": []}
    chunk: list[str] = []
    size = number = 0
    for kind, row, body in bodies:
        text = json.dumps(body, separators=(",", ":"))
        tables[kind].append({**row, "c": number, "i": len(chunk)})
        chunk.append(text)
        size += len(text)
        if size >= CHUNK_CHARS:
            stream.write(_block(f"chunk-{number}", f"[{','.join(chunk)}]"))
            chunk, size, number = [], 0, number + 1
    stream.write(_block(f"chunk-{number}", f"[{','.join(chunk)}]"))
    overview = {**tables, "series": [each.model_dump() for each in series], "title": title}
    stream.write(_block("index", json.dumps(overview, separators=(",", ":"))))
    stream.write(_ascii(after.replace("<!--SCRIPT-->", script)))


def _bodies(
    index: TrajectoryIndex | None,
    pairs: Sequence[PairView],
    decode: Decode | None,
    limit: int | None,
) -> Iterator[Body]:
    if index is not None:
        index.refresh()
        for row in index.rows[:limit]:
            try:
                body = _trajectory(index.load(row.number), decode)
            except RunStoreError as error:
                body = {"id": row.trajectory_id, "problem": str(error)}
            yield "runs", _row(row), body
    for pair in pairs[:limit]:
        yield "pairs", pair.row(), pair.model_dump(mode="json")


def _row(row: Row) -> dict[str, Any]:
    return {
        "id": row.trajectory_id,
        "task": row.task_id,
        "phase": row.phase,
        "step": row.train_step,
        "policy": row.policy,
        "outcome": str(row.failure),
        "score": row.score,
        "stop": row.stop_reason,
        "turns": row.turns,
        "tokens": row.sampled_tokens,
        "seconds": round(row.seconds, 2),
        "parent": row.parent_id,
    }


def _trajectory(trajectory: Trajectory, decode: Decode | None) -> dict[str, Any]:
    reward = trajectory.reward
    branch = trajectory.branch
    return {
        "id": trajectory.trajectory_id,
        "prompt": first_prompt(trajectory),
        "steps": [_step(view, decode) for view in views(trajectory)],
        "lacks": lacks(trajectory),
        "detail": trajectory.stop_detail,
        "submission": trajectory.submission,
        "verdict": str(reward.verdict) if reward else "",
        "reward_detail": reward.detail if reward else trajectory.grading_error,
        "tests": {name: str(outcome) for name, outcome in reward.tests.items()} if reward else {},
        "prompt_tokens": len(trajectory.tokens.prompt_ids) if trajectory.tokens else None,
        "branch": [branch.parent_id, branch.step] if branch else None,
        "config": json.dumps(trajectory.config, indent=1),
    }


def _step(view: StepView, decode: Decode | None) -> dict[str, Any]:
    step = view.step
    shown: dict[str, Any] = {
        "thought": view.thought,
        "command": step.command,
        "observation": step.observation,
        "exit": step.exit_code,
        "timed_out": step.timed_out,
        "kind": str(view.kind),
        "failing": view.failing_tests,
        "error": view.error,
        "policy_s": round(step.policy_s, 2),
        "sandbox_s": round(step.sandbox_s, 2),
        "context": view.context_used,
        "masked": view.masked_after,
    }
    if view.tokens is not None:
        shown["logprobs"] = [round(value, 2) for value in view.tokens.logprobs]
        shown["texts"] = decode(view.tokens.ids) if decode is not None else None
    return shown


def _block(name: str, text: str) -> str:
    # mtime 0: the same run gives the same page.
    packed = base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()
    return f'<script type="application/gzip" id="{name}">{packed}</script>\n'


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _resource(name: str) -> str:
    folder = importlib.resources.files("contextrl.agents.viewer")
    return folder.joinpath(name).read_text(encoding="ascii")


def _ascii(text: str) -> str:
    """Only the title can hold more; HTML has a way to write it."""
    return text.encode("ascii", "xmlcharrefreplace").decode("ascii")
