"""Where a shell command carries the text of an edit: `sed -i` scripts, heredocs, one-liners.

A lexer for the shell that agents write, not a shell: quotes, heredocs, operators, redirections.
One pass, no backtracking, nothing is ever executed or expanded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from contextrl.pairs.normal import Span

_TOKEN = re.compile(
    r"""(?P<space>(?:[ \t\r]|\\\n)+)
      | (?P<comment>(?<![^\s;&|(])\#[^\n]*)
      | (?P<heredoc><<(?!<)(?P<dash>-?)[ \t]*[\\'"]?(?P<end>[\w.-]+)['"]?)
      | (?P<redirect>(?:\d|&)?>>?\|?(?:&\d)?|<<<|<)
      | (?P<operator>&&|\|\||[;|&()\n])
      | (?P<piece>'[^']*'?|"[^"\\]*(?:\\.[^"\\]*)*"?|(?:\\.|[^\s'"\\;|&<>()])+|\\|.)""",
    re.VERBOSE | re.DOTALL,
)
_FENCE = re.compile(r"^[ \t]*```", re.MULTILINE)
_VARIABLE = re.compile(r'"?\$\{?\w+\}?"?')
_STREAM_EDITORS = {"sed": "sed", "gsed": "sed", "perl": "perl", "awk": "awk", "gawk": "awk"}
_PATCH_TOOLS = {"patch", "apply_patch", "applypatch", "ed", "ex"}
_REPLACE_TOOLS = ("edit_via_str_replace", "str_replace_editor", "str_replace_based_edit_tool")
_REPLACE_NAMES = tuple(name + suffix for name in _REPLACE_TOOLS for suffix in ("", ".py"))
_WRITES = ("write", "inplace", "dump(")
_PYTHON = re.compile(r"python[\d.]*$")
_IN_PLACE = re.compile(r"-[A-Za-z0-9]*i.*|--in-place.*")


@dataclass(slots=True)
class _Word:
    raw: str
    start: int
    end: int

    @property
    def text(self) -> str:
        return self.raw.strip("'\"")

    @property
    def quoted(self) -> bool:
        return self.raw[:1] in {"'", '"', "$"} and _VARIABLE.fullmatch(self.raw) is None


@dataclass(slots=True)
class _Command:
    """One simple command: its words, the files it redirects to, its heredoc bodies."""

    words: list[_Word] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    bodies: list[Span] = field(default_factory=list)


def command_spans(reply: str) -> list[Span]:
    """The insides of a reply's fenced blocks; the whole reply when it has none."""
    fences = [found.start() for found in _FENCE.finditer(reply)]
    spans = []
    for opening, closing in zip(fences[::2], [*fences[1::2], len(reply)], strict=False):
        start = reply.find("\n", opening) + 1
        if 0 < start <= closing:
            spans.append((start, closing))
    return spans or [(0, len(reply))]


def edit_spans(command: str, files: Sequence[str]) -> list[Span]:
    """The parts of `command` that hold the text of an edit to one of `files`.

    In-place scripts count whatever they edit; heredocs and one-liners only when they write, or
    name, one of `files`: a script that reproduces the bug is evidence and stays.
    """
    commands = list(_commands(command))
    replaces = any(word.text.endswith(_REPLACE_NAMES) for each in commands for word in each.words)
    spans: list[Span] = []
    for each in commands:
        spans += _script_spans(each, command, files)
        names = [_name(word.text) for word in each.words]
        applies = bool(_PATCH_TOOLS & set(names)) or (
            "git" in names and bool({"apply", "am"} & set(names))
        )
        written = [*each.targets, *(_operands(each) if "tee" in names else ())]
        to_file = any(_names_file(target, files) for target in written)
        for start, end in each.bodies:
            if replaces or applies or to_file or _writes_file(command[start:end], files):
                spans.append((start, end))
        if to_file and names and names[0] in {"echo", "printf"}:
            spans += [(word.start, word.end) for word in each.words[1:]]
    return spans


def _script_spans(command: _Command, text: str, files: Sequence[str]) -> Iterator[Span]:
    """The arguments that are scripts, by the first program of the command that takes any."""
    for at, name in enumerate(_name(word.text) for word in command.words):
        if name in _STREAM_EDITORS:
            rest = command.words[at + 1 :]
            if command.targets or any(_IN_PLACE.fullmatch(option.raw) for option in rest):
                yield from _stream_scripts(_STREAM_EDITORS[name], rest)
            return
        if name.endswith(_REPLACE_NAMES):
            yield from ((w.start, w.end) for w in command.words[at + 1 :] if w.quoted)
            return
        if name == "-c" and _PYTHON.match(_name(command.words[at - 1].text)):
            for script in command.words[at + 1 : at + 2]:
                if _writes_file(text[script.start : script.end], files):
                    yield script.start, script.end
            return


def _stream_scripts(editor: str, arguments: list[_Word]) -> Iterator[Span]:
    """The script words of sed, perl or awk: every `-e` one, else the first operand."""
    found = False
    operands: list[_Word] = []
    words = iter(arguments)
    for word in words:
        takes_script = word.raw in {"-e", "--expression"} or (
            editor == "perl" and re.fullmatch(r"-\w*e", word.raw)
        )
        if takes_script:
            script = next(words, None)
            if script is not None:
                found = True
                yield script.start, script.end
        elif word.raw.startswith(("--expression=", "-e'", '-e"')):
            found = True
            yield word.start, word.end
        elif editor == "awk" and word.raw in {"-i", "-v", "-F", "-f"}:
            next(words, None)
        elif not word.raw.startswith("-") and word.raw not in {"''", '""'}:
            operands.append(word)
    if not found and operands:
        yield operands[0].start, operands[0].end


def _commands(text: str) -> Iterator[_Command]:
    """Simple commands in order. Each heredoc body belongs to the command that opened it."""
    command, at = _Command(), 0
    waiting: list[tuple[_Command, str, bool]] = []
    to_target = False
    glued = False
    while at < len(text):
        token = _TOKEN.match(text, at)
        assert token is not None, "the last alternative takes any character"
        at = token.end()
        if token["piece"] is not None:
            if glued:
                command.words[-1].raw += token[0]
                command.words[-1].end = at
            elif to_target:
                command.targets.append(token[0].strip("'\""))
            else:
                command.words.append(_Word(token[0], token.start(), at))
            glued, to_target = not to_target, False
            continue
        glued = False
        if token["heredoc"] is not None:
            waiting.append((command, token["end"], token["dash"] == "-"))
        elif token["redirect"] is not None:
            to_target = ">" in token[0] and not token[0].endswith(("&1", "&2"))
        elif token["operator"] is not None:
            if token[0] == "\n":
                at = _heredoc_bodies(text, at, waiting)
                waiting = []
            yield command
            command, to_target = _Command(), False
    yield command


def _heredoc_bodies(text: str, at: int, waiting: list[tuple[_Command, str, bool]]) -> int:
    """Gives each waiting command its body; returns where the shell would read on."""
    for command, end_word, dash in waiting:
        indent = r"\t*" if dash else ""
        end = re.compile(rf"^{indent}{re.escape(end_word)}[ \t\r]*$", re.MULTILINE).search(text, at)
        stop = end.start() if end else len(text)
        command.bodies.append((at, max(at, stop - 1) if end else stop))
        at = min(end.end() + 1, len(text)) if end else len(text)
    return at


def _operands(command: _Command) -> list[str]:
    return [word.text for word in command.words if not word.raw.startswith("-")]


def _names_file(text: str, files: Sequence[str]) -> bool:
    return any(_name(text) == _name(file) for file in files)


def _writes_file(body: str, files: Sequence[str]) -> bool:
    """The body of a script or a patch that changes one of `files`."""
    if not any(_name(file) in body for file in files):
        return False
    return any(mark in body for mark in _WRITES) or ("\n+++ " in body and "\n@@ " in body)


def _name(path: str) -> str:
    return path.rpartition("/")[2]
