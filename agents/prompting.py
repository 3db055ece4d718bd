"""Prompt sets: how a task and a command's outcome read to a policy.

Templates are package data and are the only text ever compiled; issues and outputs are values in
them, so `{{ ... }}` in an issue stays what it is.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import re
from dataclasses import dataclass

import jinja2

from contextrl.agents.actions.calling import JsonCalls, TagCalls
from contextrl.agents.actions.fenced import FencedBash
from contextrl.agents.actions.types import ActionFormat
from contextrl.agents.errors import AgentsError
from contextrl.agents.types import Message
from contextrl.envs.types import ExecResult, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSet:
    name: str
    actions: ActionFormat
    """How a reply says what to do."""
    submit_command: str
    """What the task prompt tells the agent to finish with."""
    submit_pattern: re.Pattern[str]
    """What counts as that, matched at the start of the command."""
    has_system: bool
    max_chars: int
    """Of an output, before it is cut."""
    max_lines: int | None = None
    tail_frac: float = 0.5
    """Share of `max_chars` that a cut output keeps of its end."""
    family: str = ""
    """Templates: `<family>_task`, `_observation` and, if `has_system`, `_system`; else by name."""

    def render_task(self, task: Task) -> tuple[Message, ...]:
        """What the policy reads first."""
        content = _render(
            f"{self._family}_task",
            problem=task.problem.strip(),
            workdir=task.workdir,
            submit_command=self.submit_command,
            actions=self.actions.name,
        )
        user = Message(role="user", content=content)
        if not self.has_system:
            return (user,)
        system = [_render(f"{self._family}_system"), self.actions.declaration]
        return (Message(role="system", content="\n\n".join(filter(None, system))), user)

    def render_observation(self, result: ExecResult, *, max_chars: int | None = None) -> str:
        """What the policy reads after a command; `max_chars` may only lower the set's own."""
        limit = self.max_chars if max_chars is None else min(max_chars, self.max_chars)
        head, elided_chars, tail = self._excerpt(result.output.rstrip(), limit)
        return self.actions.answer(
            _render(
                f"{self._family}_observation",
                exit_code=result.exit_code,
                timed_out=result.timed_out,
                seconds=result.seconds,
                head=head,
                elided_chars=elided_chars,
                tail=tail,
            )
        )

    def render_reply(self, command: str, *, thought: str) -> str:
        """How an agent that follows this prompt writes `command`."""
        return self.actions.write(command, thought=thought)

    def is_submission(self, command: str) -> bool:
        return self.submit_pattern.match(command.strip()) is not None

    @property
    def _family(self) -> str:
        return self.family or self.name

    def _excerpt(self, output: str, max_chars: int) -> tuple[str, int, str]:
        """Head, number of characters left out, tail."""
        kept = output
        if self.max_lines is not None:
            kept = "\n".join(output.split("\n")[: self.max_lines])
        if len(kept) > max_chars:
            kept = kept[: max_chars - int(max_chars * self.tail_frac)]
        elided_chars = len(output) - len(kept)
        if not elided_chars:
            return kept, 0, ""
        tail_chars = min(elided_chars, int(max_chars * self.tail_frac))
        return kept, elided_chars - tail_chars, output[len(output) - tail_chars :]


SWE = PromptSet(
    name="swe",
    actions=FencedBash(has_thought=True),
    submit_command="echo MINI_SWE_AGENT_FINAL_OUTPUT && git add -A && git diff --cached",
    # Models trained on mini-swe-agent runs vary what follows; we take the diff from outside anyway.
    submit_pattern=re.compile(r"echo\s+['\"]?MINI_SWE_AGENT_FINAL_OUTPUT['\"]?\s*(?:$|&&|;|\n)"),
    has_system=True,
    max_chars=10_000,
)

SWE_PLUS = dataclasses.replace(
    SWE,
    name="swe-plus",
    actions=FencedBash(name="bash-plus", has_thought=True, programs=("edit_via_str_replace",)),
    family="swe",
)
"""mini-swe-agent-plus, which Klear's models were trained on: `swe` and an edit command."""

COMPACT = PromptSet(
    name="compact",
    actions=FencedBash(),
    submit_command="submit",
    submit_pattern=re.compile(r"submit\Z"),
    has_system=False,
    max_chars=1_100,
    max_lines=24,
    tail_frac=0.0,
)

OPENHANDS = PromptSet(
    name="openhands",
    actions=JsonCalls(),
    submit_command="finish",
    submit_pattern=re.compile(r"finish(?:\s|\Z)"),
    has_system=True,
    max_chars=30_000,
)
"""OpenHands' tools as function calls in Qwen2.5's and Qwen3's own template."""

OPENHANDS_TAGS = dataclasses.replace(
    OPENHANDS, name="openhands-tags", actions=TagCalls(), family="openhands"
)
"""The same in OpenHands' own tags, for models trained on its runs without native calls."""

PROMPT_SETS = {
    prompts.name: prompts for prompts in (SWE, SWE_PLUS, COMPACT, OPENHANDS, OPENHANDS_TAGS)
}


def prompt_set(name: str) -> PromptSet:
    """The built-in prompt set called `name`. Raises `AgentsError` for any other."""
    if name not in PROMPT_SETS:
        known = ", ".join(sorted(PROMPT_SETS))
        raise AgentsError(f"prompts: expected one of {known}, found {name!r}")
    return PROMPT_SETS[name]


@functools.cache
def _template(name: str) -> jinja2.Template:
    # Autoescape would turn the quotes and angle brackets into HTML entities.
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined)
    source = importlib.resources.files("contextrl.agents.prompts").joinpath(f"{name}.jinja")
    return environment.from_string(source.read_text(encoding="utf-8"))


def _render(name: str, **values: object) -> str:
    return _template(name).render(**values).strip("\n")
