"""OpenHands' tools: what a model may call, and the check that a call is one of these."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from contextrl.agents.errors import FormatError
from contextrl.agents.formats.calls import ToolCall

Kind = Literal["string", "integer", "array"]


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    kind: Kind
    description: str
    required: bool = False
    choices: tuple[str, ...] = ()

    def schema(self) -> dict[str, Any]:
        found: dict[str, Any] = {"type": self.kind, "description": self.description}
        if self.kind == "array":
            found["items"] = {"type": "integer"}
        if self.choices:
            found["enum"] = list(self.choices)
        return found

    def text(self, value: object) -> str:
        """The value as one word of a command line. Raises `ValueError` that says what it must be.

        A number written as a string is taken for what it says: models do that, and no harm is done.
        """
        if isinstance(value, str) and self.kind != "string":
            value = json.loads(value)
        if self.kind == "integer" and (type(value) is not int):
            raise ValueError("a whole number")
        if self.kind == "array" and not (
            isinstance(value, list) and len(value) == 2 and all(type(one) is int for one in value)
        ):
            raise ValueError("two whole numbers, as [1, 40]")
        if self.kind == "string" and not isinstance(value, str):
            raise ValueError("a string")
        if self.choices and value not in self.choices:
            raise ValueError(f"one of {', '.join(self.choices)}")
        return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    description: str
    parameters: tuple[Parameter, ...]

    def schema(self) -> dict[str, Any]:
        """As chat templates and endpoints take a function."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": {
                    "type": "object",
                    "properties": {each.name: each.schema() for each in self.parameters},
                    "required": [each.name for each in self.parameters if each.required],
                },
            },
        }


FINISH = "finish"
OPENHANDS_TOOLS = (
    Tool(
        "execute_bash",
        "Run a command in the one shell of this session. Its working directory and variables are "
        "kept between calls. Nothing is interactive: a command that waits for input gets none.",
        (Parameter("command", "string", "The bash command to run.", required=True),),
    ),
    Tool(
        "str_replace_editor",
        "View, create and edit files. `view` shows a file with line numbers, or a directory two "
        "levels deep. `create` makes a file that does not exist yet. `str_replace` replaces "
        "`old_str`, which must occur exactly once, blanks included. `insert` puts `new_str` after "
        "line `insert_line`. `undo_edit` takes back the last change to the file.",
        (
            Parameter(
                "command",
                "string",
                "What to do.",
                required=True,
                choices=("view", "create", "str_replace", "insert", "undo_edit"),
            ),
            Parameter("path", "string", "Absolute path of a file or directory.", required=True),
            Parameter("file_text", "string", "For `create`: what the file will hold."),
            Parameter("old_str", "string", "For `str_replace`: the text to replace."),
            Parameter("new_str", "string", "For `str_replace` and `insert`: the new text."),
            Parameter(
                "insert_line", "integer", "For `insert`: the line to insert after; 0: first."
            ),
            Parameter("view_range", "array", "For `view`: first and last line, -1 for the end."),
        ),
    ),
    Tool(
        FINISH,
        "End the task, when the change is made and checked. Nothing can be done after it.",
        (Parameter("message", "string", "What was done."),),
    ),
)


def checked(name: str, arguments: Mapping[str, object]) -> ToolCall:
    """The call, if it is one that can be made. Raises `FormatError` that names what is wrong."""
    tool = next((each for each in OPENHANDS_TOOLS if each.name == name), None)
    if tool is None:
        known = ", ".join(each.name for each in OPENHANDS_TOOLS)
        raise FormatError(f"there is no function {name[:60]!r}; the functions are {known}")
    parameters = {each.name: each for each in tool.parameters}
    words = {}
    for key, value in arguments.items():
        if key not in parameters:
            raise FormatError(
                f"{name} has no parameter {key[:60]!r}; its parameters are {', '.join(parameters)}"
            )
        try:
            words[key] = parameters[key].text(value)
        except (ValueError, RecursionError) as error:
            wanted = "a value of its type" if isinstance(error, json.JSONDecodeError) else error
            raise FormatError(
                f"{name}: expected {wanted} as {key}, found {str(value)[:60]!r}"
            ) from error
    missing = [each.name for each in tool.parameters if each.required and each.name not in words]
    if missing:
        raise FormatError(f"{name} needs the parameter {missing[0]!r}, which is missing")
    # JSON can spell what no shell can take: NUL bytes and halves of surrogate pairs.
    if any("\0" in word for word in words.values()):
        raise FormatError(f"an argument of {name} holds a NUL byte")
    words = {key: word.encode("utf-8", "replace").decode() for key, word in words.items()}
    return ToolCall(name, words, (0, 0))
