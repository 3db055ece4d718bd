"""Prompt sets: how a task and a command's outcome read to a policy.

Templates are package data and are the only text ever compiled; issues and outputs are values in
them, so `{{ ... }}` in an issue stays what it is.
"""

from __future__ import annotations

import functools
import importlib.resources
import re
from dataclasses import dataclass

import jinja2

from contextrl.agents.errors import AgentsError
from contextrl.agents.types import Message
from contextrl.envs.types import ExecResult, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSet:
    name: str
    """Templates: `<name>_task`, `<name>_observation` and, if `has_system`, `<name>_system`."""
    submit_command: str
    """What the task prompt tells the agent to finish with."""
    submit_pattern: re.Pattern[str]
    """What counts as that, matched at the start of the command."""
    has_system: bool
    has_thought: bool
    """Replies begin with `THOUGHT: ...`."""
    max_chars: int
    """Of an output, before it is cut."""
    max_lines: int | None = None
    tail_frac: float = 0.5
    """Share of `max_chars` that a cut output keeps of its end."""

    def render_task(self, task: Task) -> tuple[Message, ...]:
        """What the policy reads first."""
        content = _render(
            f"{self.name}_task",
            problem=task.problem.strip(),
            workdir=task.workdir,
            submit_command=self.submit_command,
        )
        user = Message(role="user", content=content)
        if not self.has_system:
            return (user,)
        return (Message(role="system", content=_render(f"{self.name}_system")), user)

    def render_observation(self, result: ExecResult, *, max_chars: int | None = None) -> str:
        """What the policy reads after a command; `max_chars` may only lower the set's own."""
        limit = self.max_chars if max_chars is None else min(max_chars, self.max_chars)
        head, elided_chars, tail = self._excerpt(result.output.rstrip(), limit)
        return _render(
            f"{self.name}_observation",
            exit_code=result.exit_code,
            timed_out=result.timed_out,
            seconds=result.seconds,
            head=head,
            elided_chars=elided_chars,
            tail=tail,
        )

    def render_reply(self, command: str, *, thought: str) -> str:
        """How an agent that follows this prompt writes `command`."""
        block = f"```bash\n{command}\n```"
        return f"THOUGHT: {thought}\n\n{block}" if self.has_thought else block

    def is_submission(self, command: str) -> bool:
        return self.submit_pattern.match(command.strip()) is not None

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
    submit_command="echo MINI_SWE_AGENT_FINAL_OUTPUT && git add -A && git diff --cached",
    # Models trained on mini-swe-agent runs vary what follows; we take the diff from outside anyway.
    submit_pattern=re.compile(r"echo\s+['\"]?MINI_SWE_AGENT_FINAL_OUTPUT['\"]?\s*(?:$|&&|;|\n)"),
    has_system=True,
    has_thought=True,
    max_chars=10_000,
)

COMPACT = PromptSet(
    name="compact",
    submit_command="submit",
    submit_pattern=re.compile(r"submit\Z"),
    has_system=False,
    has_thought=False,
    max_chars=1_100,
    max_lines=24,
    tail_frac=0.0,
)

PROMPT_SETS = {prompts.name: prompts for prompts in (SWE, COMPACT)}


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
