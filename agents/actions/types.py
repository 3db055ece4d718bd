"""How a reply says what to do: the contract of every action format.

Whatever a model writes, an action is one shell command: tools are programs in the sandbox. So time
limits, output limits, replay, mining and the viewer know one thing, and a record of an episode can
be lived again without the code that read it.
"""

from __future__ import annotations

from typing import Protocol

from contextrl.envs.types import Task


class ActionFormat(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def declaration(self) -> str:
        """What the system prompt says of the tools, in the words of the model's own template."""
        ...

    def read(self, text: str, *, truncated: bool = False) -> str:
        """The one command that a reply stands for.

        Raises `FormatError`, whose text is shown to the model and says what to write instead.
        """
        ...

    def write(self, command: str, *, thought: str) -> str:
        """How an agent that follows this format writes `command`: what `read` reads."""
        ...

    def answer(self, observation: str) -> str:
        """A command's outcome as the model's template shows it; one user message."""
        ...

    def equip(self, task: Task) -> Task:
        """The task with the format's tools in each of its shells; the same task if it has none."""
        ...
