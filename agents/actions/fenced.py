"""mini-swe-agent's form: one fenced bash block, read by `agents.parsing`."""

from __future__ import annotations

from dataclasses import dataclass

from contextrl.agents.actions.installing import equipped
from contextrl.agents.parsing import parse_command
from contextrl.envs.types import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class FencedBash:
    name: str = "bash"
    has_thought: bool = False
    """Replies begin with `THOUGHT: ...`."""
    programs: tuple[str, ...] = ()
    """Of `actions/programs`, as commands and as scripts of `python`."""
    declaration: str = ""

    def read(self, text: str, *, truncated: bool = False) -> str:
        return parse_command(text, truncated=truncated)

    def write(self, command: str, *, thought: str) -> str:
        block = f"```bash\n{command}\n```"
        return f"THOUGHT: {thought}\n\n{block}" if self.has_thought else block

    def answer(self, observation: str) -> str:
        return observation

    def equip(self, task: Task) -> Task:
        return equipped(task, self.programs, as_scripts=True) if self.programs else task
