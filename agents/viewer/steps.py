"""What a reader looks for in a step: what it did, whether it failed, what it cost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from contextrl.agents.formats.calls import tool_calls
from contextrl.agents.types import Step, StopReason, Trajectory


class Kind(StrEnum):
    """Of a command, the first that holds."""

    NONE = "no command"
    SUBMIT = "submit"
    EDIT = "edit"
    TEST = "test"
    SEARCH = "search"
    READ = "read"
    RUN = "run"


_KINDS = (
    (
        Kind.EDIT,
        re.compile(
            r"\bsed\s+(?:-\S+\s+)*-\w*i|\bgit\s+apply\b|\bpatch\s+-|\bperl\s+-\w*i|\btee\s|"
            r"(?<![\d&>])>>?\s*[\w./~\"'$-]+\.\w+|\bstr_replace_editor\s+(?:str_replace|create|ins|undo)|"
            r"\b(?:edit_via_)?str_replace\b|^\s*(?:edit|create|insert)\s|\.write_text\(|open\([^)\n]*[\"'][wa][\"']",
            re.MULTILINE,
        ),
    ),
    (
        Kind.TEST,
        re.compile(
            r"\b(?:pytest|unittest|tox|nox|nosetests)\b|\bmake\s+test|runtests|test_\w+\.py"
        ),
    ),
    (Kind.SEARCH, re.compile(r"\b(?:grep|rg|ag|find|fd|search_file|search_dir|find_file)\b")),
    (Kind.READ, re.compile(r"\b(?:cat|head|tail|less|sed\s+-n|nl|ls|view|open|goto|scroll_\w+)\b")),
)
_SUBMIT = re.compile(
    r"\A\s*(?:submit\b|finish\b|echo\s+\S*(?:FINAL_OUTPUT|COMPLETE_TASK_AND_SUBMIT))"
)
_FAILING = re.compile(
    r"\b[1-9]\d* (?:failed|errors?)\b|^(?:FAILED|ERROR)\b|FAILED \(", re.MULTILINE
)
_ERROR = re.compile(r"Traceback \(most recent call last\)|<returncode>[1-9]|command not found")


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """The reply as it was sampled."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class StepView:
    """A step, and what follows from it and from its place."""

    index: int
    step: Step
    kind: Kind
    failing_tests: bool
    error: bool
    """A command that failed, a traceback, or a reply without a command."""
    tokens: TokenSpan | None
    """None when the record keeps no tokens of this reply."""
    masked_after: int
    """Tokens between this reply and the next one: the observation and the template, mask 0."""
    context_used: int | None
    """Tokens that the policy had before it wrote this reply."""

    @property
    def thought(self) -> str:
        """The reply without its command's block, if it can be told apart."""
        if self.step.command is None:
            return self.step.text
        calls = tool_calls(self.step.text)
        if calls and calls[0].command == self.step.command:
            return self.step.text[: calls[0].span[0]].strip()
        before, block, _ = self.step.text.partition("```")
        return (
            before.strip()
            if block and self.step.command.strip() in self.step.text
            else (self.step.text)
        )

    @property
    def mark(self) -> str:
        """One character for a list of steps."""
        if self.failing_tests:
            return "x"
        if self.error:
            return "!"
        return {Kind.EDIT: "*", Kind.SUBMIT: "="}.get(self.kind, " ")


def views(trajectory: Trajectory) -> tuple[StepView, ...]:
    return tuple(_views(trajectory))


def _views(trajectory: Trajectory) -> Iterator[StepView]:
    tokens = trajectory.tokens
    spans = [step.token_span for step in trajectory.steps]
    for index, step in enumerate(trajectory.steps):
        span = step.token_span
        following = next((each for each in spans[index + 1 :] if each is not None), None)
        sampled, context, masked = None, None, 0
        if tokens is not None and span is not None:
            start, stop = span
            sampled = TokenSpan(
                tokens.response_ids[start:stop], tokens.response_logprobs[start:stop]
            )
            context = len(tokens.prompt_ids) + start
            masked = (following[0] if following else len(tokens.response_ids)) - stop
        kind = kind_of(step.command)
        observation = step.observation
        yield StepView(
            index=index,
            step=step,
            kind=kind,
            failing_tests=kind is Kind.TEST and bool(_FAILING.search(observation)),
            error=step.command is None
            or bool(step.exit_code)
            or step.timed_out
            or bool(_ERROR.search(observation)),
            tokens=sampled,
            masked_after=masked,
            context_used=context,
        )


def kind_of(command: str | None) -> Kind:
    if command is None:
        return Kind.NONE
    if _SUBMIT.match(command):
        return Kind.SUBMIT
    return next((kind for kind, pattern in _KINDS if pattern.search(command)), Kind.RUN)


def lacks(trajectory: Trajectory) -> tuple[str, ...]:
    """Why a feature is off for this record, in words."""
    missing = []
    if trajectory.stop_reason is StopReason.UNFINISHED:
        return ("not ended: tokens, diff, reward and times come when it is stored",)
    if trajectory.tokens is None:
        missing.append("no tokens: the record keeps text alone, so masks and heat are off")
    if "prompts" not in trajectory.config:
        missing.append("no prompt set: it cannot be re-executed or branched")
    if trajectory.reward is None:
        missing.append("no reward: it was not graded, or the file does not say")
    elif not trajectory.reward.tests:
        missing.append("no outcome of each test")
    if trajectory.timings.total_s == 0:
        missing.append("no times")
    return tuple(missing)


def first_prompt(trajectory: Trajectory) -> tuple[tuple[str, str], ...]:
    """Role and text of what stood before the first reply."""
    found = []
    for message in trajectory.messages:
        if message.role == "assistant":
            break
        found.append((str(message.role), message.content))
    return tuple(found)
