"""Runs inside the sandbox: OpenHands' file editor as a command.

`str_replace_editor COMMAND PATH [--NAME VALUE ...]`, with the names of the tool's parameters;
`--view_range` takes two values. Standard library only, in the syntax of Python 3.7: images bring
their own. What an edit replaced is kept beside this file, so `undo_edit` works across processes.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys

CONTEXT_LINES = 4
PARAMETERS = ("view_range", "file_text", "old_str", "new_str", "insert_line")
HISTORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "history")
ABSENT = "absent"
"""Name of a history entry for a file that did not exist."""


class Refused(Exception):
    """The call cannot be carried out; the message says what to do instead."""


def view(path: str, given: dict[str, list[str]]) -> str:
    if os.path.isdir(path):
        if "view_range" in given:
            raise Refused("The `view_range` parameter is not allowed when `path` is a directory.")
        return (
            f"Here's the files and directories up to 2 levels deep in {path}, "
            "excluding hidden items:\n" + "\n".join(listing(path))
        )
    lines = read(path).split("\n")
    first, last = 1, len(lines)
    if "view_range" in given:
        first, last = (number("view_range", each) for each in given["view_range"])
        last = len(lines) if last == -1 else min(last, len(lines))
        if not 1 <= first <= len(lines) or last < first:
            raise Refused(
                f"Invalid `view_range` {given['view_range']}: expected a first line from 1 to "
                f"{len(lines)} and a last line not before it, or -1 for the end of the file."
            )
    shown = numbered(lines[first - 1 : last], first)
    return f"Here's the result of running `cat -n` on {path}:\n{shown}"


def create(path: str, given: dict[str, list[str]]) -> str:
    if os.path.lexists(path):
        raise Refused(
            f"File already exists at: {path}. Cannot overwrite files using command `create`; "
            "use `str_replace` or `insert`."
        )
    text = wanted("create", "file_text", given)
    remember(path, None)
    folder = os.path.dirname(path)
    if folder:
        os.makedirs(folder, exist_ok=True)
    write(path, text)
    return f"File created successfully at: {path}"


def str_replace(path: str, given: dict[str, list[str]]) -> str:
    text = read(path)
    old, new = wanted("str_replace", "old_str", given), given.get("new_str", [""])[0]
    if not old:
        raise Refused("`old_str` is empty: give the text to replace, as it stands in the file.")
    if old == new:
        raise Refused("`old_str` and `new_str` are the same, so nothing would change.")
    if old not in text and "\r\n" in text:  # a model writes line feeds whatever the file has
        old, new = (re.sub(r"(?<!\r)\n", "\r\n", each) for each in (old, new))
    count = text.count(old)
    if count == 0:
        raise Refused(
            f"No replacement was performed, old_str `{old}` did not appear verbatim in {path}."
        )
    if count > 1:
        at = [text.count("\n", 0, each.start()) + 1 for each in re.finditer(re.escape(old), text)]
        raise Refused(
            f"No replacement was performed. Multiple occurrences of old_str `{old}` in lines "
            f"{at}. Please ensure it is unique: add the lines around it."
        )
    remember(path, text)
    before = text.index(old)
    write(path, text.replace(old, new, 1))
    first = text.count("\n", 0, before) + 1
    return edited(path, first, new.count("\n") + 1)


def insert(path: str, given: dict[str, list[str]]) -> str:
    text = read(path)
    new = wanted("insert", "new_str", given)
    after = number("insert_line", wanted("insert", "insert_line", given))
    lines = text.split("\n")
    total = len(lines) - (lines[-1] == "")
    if not 0 <= after <= total:
        raise Refused(f"Invalid `insert_line` {after}: expected a line from 0 to {total}.")
    remember(path, text)
    new_lines = new.rstrip("\n").split("\n")
    if "\r\n" in text:
        new_lines = [line.rstrip("\r") + "\r" for line in new_lines]
    write(path, "\n".join([*lines[:after], *new_lines, *lines[after:]]))
    return edited(path, after + 1, len(new_lines))


def undo_edit(path: str, given: dict[str, list[str]]) -> str:
    folder = history_of(path)
    entries = sorted(os.listdir(folder), key=order) if os.path.isdir(folder) else []
    if not entries:
        raise Refused(f"No edit history found for {path}.")
    last = os.path.join(folder, entries[-1])
    if last.endswith(ABSENT):
        os.remove(path)
        os.remove(last)
        return f"Last edit to {path} undone successfully: the file is gone again."
    with open(last, encoding="utf-8", errors="surrogateescape", newline="") as file:
        text = file.read()
    write(path, text)
    os.remove(last)
    return f"Last edit to {path} undone successfully. " + snippet(path, 1, text.count("\n") + 1)


COMMANDS = {
    "view": view,
    "create": create,
    "str_replace": str_replace,
    "insert": insert,
    "undo_edit": undo_edit,
}


def listing(path: str) -> list[str]:
    """Two levels, sorted, folders with a slash; links are named and not followed."""
    found = [path]
    for name in sorted(os.listdir(path)):
        if name.startswith("."):
            continue
        inside = os.path.join(path, name)
        if not os.path.isdir(inside) or os.path.islink(inside):
            found.append(inside)
            continue
        found.append(inside + "/")
        below = sorted(each for each in os.listdir(inside) if not each.startswith("."))
        for each in below:
            whole = os.path.join(inside, each)
            found.append(whole + ("/" if os.path.isdir(whole) else ""))
    return found


def edited(path: str, first: int, count: int) -> str:
    return (
        f"The file {path} has been edited. {snippet(path, first, count)}\n"
        "Review the changes and make sure they are as expected. Edit the file again if necessary."
    )


def snippet(path: str, first: int, count: int) -> str:
    lines = read(path).split("\n")
    start = max(1, first - CONTEXT_LINES)
    stop = min(len(lines), first + count - 1 + CONTEXT_LINES)
    return (
        f"Here's the result of running `cat -n` on a snippet of {path}:\n"
        f"{numbered(lines[start - 1 : stop], start)}"
    )


def numbered(lines: list[str], first: int) -> str:
    return "\n".join(f"{first + n:6d}\t{line}".rstrip("\r") for n, line in enumerate(lines))


def read(path: str) -> str:
    if os.path.isdir(path):
        raise Refused(f"{path} is a directory: only the command `view` takes one.")
    if not os.path.isfile(path):
        raise Refused(f"The path {path} does not exist. Please provide a valid path.")
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        text = file.read()
    if "\0" in text:
        raise Refused(f"{path} is a binary file: it cannot be shown or edited as text.")
    return text


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(text)


def history_of(path: str) -> str:
    name = hashlib.sha256(os.path.realpath(path).encode("utf-8", "surrogateescape")).hexdigest()
    return os.path.join(HISTORY, name)


def order(entry: str) -> int:
    return int(entry.split(".")[0])


def remember(path: str, text: str | None) -> None:
    """The text that is about to be replaced; None where there is no file yet."""
    folder = history_of(path)
    os.makedirs(folder, exist_ok=True)
    entry = os.path.join(folder, str(1 + max(map(order, os.listdir(folder)), default=0)))
    write(f"{entry}.{ABSENT}" if text is None else entry, text or "")


def wanted(command: str, name: str, given: dict[str, list[str]]) -> str:
    if name not in given:
        raise Refused(f"Parameter `{name}` is required for command: {command}.")
    return given[name][0]


def number(name: str, text: str) -> int:
    if not re.match(r"-?\d{1,9}\Z", text):
        raise Refused(f"Invalid `{name}` {text!r}: expected a whole number.")
    return int(text)


def main(words: list[str]) -> str:
    if len(words) < 2 or words[0] not in COMMANDS:
        raise Refused(f"Usage: str_replace_editor {'|'.join(COMMANDS)} PATH [--NAME VALUE ...]")
    command, path, *rest = words
    if not path.startswith("/"):
        raise Refused(
            f"The path {path} is not an absolute path: it should start with `/`. "
            f"Maybe you meant {os.path.abspath(path)}?"
        )
    given: dict[str, list[str]] = {}
    while rest:
        name = rest.pop(0)
        count = 2 if name == "--view_range" else 1
        if not name.startswith("--") or name[2:] not in PARAMETERS or len(rest) < count:
            known = ", ".join(PARAMETERS)
            raise Refused(f"Expected --NAME VALUE with a name of {known}; found {name!r}.")
        given[name[2:]], rest = rest[:count], rest[count:]
    return COMMANDS[command](path, given)


if __name__ == "__main__":
    try:
        said, status = main(sys.argv[1:]), 0
    except (Refused, OSError) as error:
        said, status = f"ERROR:\n{error}", 1
    sys.stdout.buffer.write(said.encode("utf-8", "surrogateescape") + b"\n")
    sys.exit(status)
