"""A row of any supported trajectory set -> `ForeignRun`. One function per shape, chosen by keys.

Nothing is guessed: a row without an outcome has no reward, one without a commit has none.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from contextrl.agents.errors import ForeignRowError
from contextrl.agents.formats.conversation import issue_in, messages_of, steps_of
from contextrl.agents.formats.types import ForeignRun, Format, Row
from contextrl.agents.types import SCHEMA_VERSION, Message, StopReason, Trajectory
from contextrl.envs.types import Outcome, Reward, Verdict

_SMITH_ID = re.compile(r"(?P<owner>.+?)__(?P<name>.+)\.(?P<sha>[0-9a-f]{8})(?:\..+)?")
_BENCH_ID = re.compile(r"(?P<owner>.+?)__(?P<name>.+)-\d+")
_SAMPLE_SUFFIX = re.compile(r"_\d+$")

# SWE-agent's and mini-swe-agent's words. Whatever else a row says is kept in `stop_detail`.
_STOPS = (
    ("context", StopReason.CONTEXT),
    ("cost", StopReason.MAX_TOKENS),
    ("limit", StopReason.MAX_TURNS),
    ("format", StopReason.MAX_FORMAT_ERRORS),
    ("timeout", StopReason.WALL_CLOCK),
    ("environment", StopReason.SANDBOX_ERROR),
    ("api", StopReason.POLICY_ERROR),
    ("submit", StopReason.SUBMITTED),
)


def detect(row: Row) -> Format:
    """Raises `ForeignRowError` with the keys it found."""
    keys = row.keys()
    if "trajectory_id" in keys and "schema_version" in keys:
        return Format.OWN
    if "history" in keys and "trajectory" in keys:
        return Format.SWE_AGENT
    if "trajectory" in keys and ("target" in keys or "generated_patch" in keys):
        return Format.NEBIUS
    if "messages" in keys:
        if str(row.get("trajectory_format", "")).startswith("mini-swe-agent") or "info" in keys:
            return Format.MINI_SWE_AGENT
        if "test_result" in keys or "run_id" in keys:
            return Format.OPENHANDS
        if "traj_id" in keys or "resolved" in keys:
            return Format.SWE_SMITH
        if "instance_id" in keys:
            return Format.MINI_PLUS
    raise ForeignRowError(
        f"expected a row of one of {', '.join(Format)}; found keys {', '.join(sorted(keys)[:12])}"
    )


def read_row(row: object, *, name: str = "") -> ForeignRun:
    """`name` identifies a row that carries no id of its own, e.g. by its file.

    Raises:
        ForeignRowError: says what of the row could not be read.
    """
    if not isinstance(row, dict):
        raise ForeignRowError(f"expected an object, found {type(row).__name__}")
    read = _READERS[detect(row)]
    try:
        return read(row, name)
    except ForeignRowError:
        raise
    except (ValidationError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ForeignRowError(
            f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        ) from (error)


def row_id(row: object) -> str:
    """The best name a row has, readable or not; empty when it has none."""
    if isinstance(row, Mapping):
        for key in ("traj_id", "trajectory_id", "instance_id", "environment", "id"):
            if isinstance(row.get(key), str | int) and row[key] != "":
                return str(row[key])
    return ""


def repository_of(instance_id: str) -> tuple[str, str]:
    """(owner/name, commit) as far as an instance id says: SWE-smith ids name both."""
    if smith := _SMITH_ID.fullmatch(instance_id):
        return f"{smith['owner']}/{smith['name']}", smith["sha"]
    if bench := _BENCH_ID.fullmatch(instance_id):
        return f"{bench['owner']}/{bench['name']}", ""
    return "", ""


def _own(row: Row, name: str) -> ForeignRun:
    if row["schema_version"] != SCHEMA_VERSION:
        raise ForeignRowError(f"expected schema {SCHEMA_VERSION}, found {row['schema_version']}")
    trajectory = Trajectory.model_validate(row)
    repo, commit = repository_of(trajectory.task_id)
    problem = issue_in(trajectory.messages)
    return ForeignRun(
        format=Format.OWN,
        trajectory=trajectory,
        repo=repo,
        base_commit=commit,
        problem=problem,
    )


def _mini(row: Row, name: str) -> ForeignRun:
    info = row.get("info") or {}
    report = row.get("report") or {}
    config = info.get("config") or {}
    model = config.get("model") or {}
    return _run(
        row,
        Format.MINI_SWE_AGENT,
        task_id=str(row.get("instance_id") or name.partition(".traj")[0]),
        raw_messages=row["messages"],
        submission=info.get("submission") or "",
        exit_status=str(info.get("exit_status") or ""),
        resolved=report.get("resolved"),
        tests=_tests(report.get("tests_status") or {}),
        policy=str(model.get("model_name") or "unknown"),
    )


def _mini_plus(row: Row, name: str) -> ForeignRun:
    return _run(
        row,
        Format.MINI_PLUS,
        task_id=str(row["instance_id"]),
        raw_messages=_loaded(row["messages"]),
        sample_id=str(row.get("id") or ""),
        submission=str(row.get("patch") or ""),
        exit_status="submitted",
    )


def _smith(row: Row, name: str) -> ForeignRun:
    return _run(
        row,
        Format.SWE_SMITH,
        task_id=str(row["instance_id"]),
        raw_messages=_loaded(row["messages"]),
        sample_id=str(row.get("traj_id") or ""),
        submission=str(row.get("patch") or ""),
        exit_status="submitted" if row.get("patch") else "",
        resolved=row.get("resolved"),
        policy=str(row.get("model") or "unknown"),
    )


def _openhands(row: Row, name: str) -> ForeignRun:
    result = row.get("test_result") or {}
    return _run(
        row,
        Format.OPENHANDS,
        task_id=_SAMPLE_SUFFIX.sub("", str(row["instance_id"])),
        raw_messages=_loaded(row["messages"]),
        sample_id=f"{row['instance_id']}/{row.get('run_id', '')}",
        submission=str(result.get("git_patch") or ""),
        exit_status="submitted",
        resolved=row.get("resolved"),
        policy=str(row.get("run_id") or "unknown").partition("_maxiter")[0],
    )


def _nebius(row: Row, name: str) -> ForeignRun:
    turns = _loaded(row["trajectory"])
    raw = [
        {"role": turn["role"], "content": turn.get("text") or turn.get("system_prompt") or ""}
        for turn in turns
    ]
    return _run(
        row,
        Format.NEBIUS,
        task_id=_SAMPLE_SUFFIX.sub("", str(row["instance_id"])),
        raw_messages=raw,
        sample_id=str(row["instance_id"]),
        submission=str(row.get("generated_patch") or "").lstrip("\n"),
        exit_status=str(row.get("exit_status") or ""),
        resolved=row.get("target"),
        policy=str(row.get("model_name") or "unknown"),
    )


def _swe_agent(row: Row, name: str) -> ForeignRun:
    info = row.get("info") or {}
    raw = []
    for turn in row["history"]:
        if turn.get("message_type") == "demonstration" or turn.get("is_demo"):
            continue
        calls = turn.get("tool_calls")
        if turn.get("role") == "assistant" and not calls and turn.get("action"):
            action = turn["action"]
            calls = [{"function": {"name": "bash", "arguments": {"command": action}}}]
        raw.append({**turn, "tool_calls": calls})
    return _run(
        row,
        Format.SWE_AGENT,
        task_id=str(row.get("environment") or row.get("instance_id") or name.partition(".traj")[0]),
        raw_messages=raw,
        submission=str(info.get("submission") or ""),
        exit_status=str(info.get("exit_status") or ""),
    )


_READERS: dict[Format, Callable[[Row, str], ForeignRun]] = {
    Format.OWN: _own,
    Format.MINI_SWE_AGENT: _mini,
    Format.MINI_PLUS: _mini_plus,
    Format.SWE_SMITH: _smith,
    Format.OPENHANDS: _openhands,
    Format.NEBIUS: _nebius,
    Format.SWE_AGENT: _swe_agent,
}


def _run(
    row: Row,
    format_: Format,
    *,
    task_id: str,
    raw_messages: object,
    submission: str,
    exit_status: str,
    sample_id: str = "",
    resolved: object = None,
    tests: dict[str, Outcome] | None = None,
    policy: str = "unknown",
) -> ForeignRun:
    if not task_id:
        raise ForeignRowError("expected an instance id in the row or in its file's name")
    messages = messages_of(raw_messages)
    repo, commit = repository_of(task_id)
    reward = None
    if isinstance(resolved, bool):
        verdict = Verdict.RESOLVED if resolved else Verdict.UNRESOLVED
        reward = Reward(verdict=verdict, tests=tests or {})
    trajectory = Trajectory(
        trajectory_id=f"{task_id}/{format_}/{sample_id or _digest(messages)}",
        task_id=task_id,
        phase="public",
        policy=policy,
        messages=messages,
        steps=steps_of(messages),
        stop_reason=_stop(exit_status),
        stop_detail=exit_status,
        submission=_unix(submission),
        reward=reward,
    )
    return ForeignRun(
        format=format_,
        trajectory=trajectory,
        repo=str(row.get("repo") or repo),
        base_commit=str(row.get("base_commit") or commit),
        problem=issue_in(messages),
    )


def _unix(patch: str) -> str:
    """OpenHands reads patches from a terminal, which ends every line, headers too, with CR LF."""
    head = patch.partition("\n")[0]
    return patch.replace("\r\n", "\n") if head.endswith("\r") else patch


def _stop(exit_status: str) -> StopReason:
    status = exit_status.lower()
    return next((reason for word, reason in _STOPS if word in status), StopReason.MAX_TURNS)


def _tests(status: Mapping[str, Any]) -> dict[str, Outcome]:
    outcomes = {}
    for group in status.values():
        outcomes.update(dict.fromkeys(group.get("success") or (), Outcome.PASSED))
        outcomes.update(dict.fromkeys(group.get("failure") or (), Outcome.FAILED))
    return outcomes


def _loaded(value: object) -> Any:
    """The hub keeps some lists as one JSON string."""
    return json.loads(value) if isinstance(value, str) else value


def _digest(messages: Sequence[Message]) -> str:
    """A name for a row that has none, the same wherever its file lies."""
    text = "\0".join(message.content for message in messages)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]
