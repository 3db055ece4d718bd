"""A made-up corpus in the shape of SWE-smith's trajectories, for measuring the miner.

Made of nothing but a seed: repositories of small modules, one mutated line per instance, several
runs per instance that look, edit, look again and submit. What varies as in the real set: runs per
repository, bugs per function, length (mean `chars` of text a row), share of unreadable rows.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

from contextrl.agents.formats.calls import written_call
from contextrl.envs.reverse import reverse_patch

_VERBS = ("merge", "split", "clamp", "count", "group", "parse", "build", "check", "order", "trim")
_NOUNS = ("rows", "spans", "words", "edges", "pages", "units", "items", "ranks", "marks", "tests")
_FUNCTIONS_PER_FILE = 8
_FILES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusShape:
    runs: int = 66_000
    repositories: int = 128
    files: int = 64
    chars: int = 45_000
    """Of text in a row, about; with JSON's escapes a row is a tenth longer on disk."""
    runs_per_instance: int = 3
    seed: int = 0


def write_corpus(folder: Path, shape: CorpusShape) -> int:
    """`folder` holds `shape.files` JSONL files; returns their bytes. Rows are dealt like cards."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(shape.seed)
    repositories = [_Repository(number, rng) for number in range(shape.repositories)]
    streams = [
        (folder / f"part-{number:03d}.jsonl").open("w", encoding="utf-8")
        for number in range(shape.files)
    ]
    try:
        for number in range(shape.runs):
            repository = repositories[number % len(repositories)]
            instance = number // len(repositories) // shape.runs_per_instance
            row = repository.row(instance, number, shape.chars)
            streams[number % shape.files].write(json.dumps(row) + "\n")
    finally:
        for stream in streams:
            stream.close()
    return sum(path.stat().st_size for path in folder.iterdir())


class _Repository:
    def __init__(self, number: int, rng: random.Random) -> None:
        self.name = f"owner{number}__lib{number}.{rng.getrandbits(32):08x}"
        self.files = {
            f"lib{number}/{noun}.py": [
                _function(f"{verb}_{noun}", rng) for verb in _VERBS[:_FUNCTIONS_PER_FILE]
            ]
            for noun in _NOUNS[:_FILES]
        }
        self.rng = rng

    def row(self, instance: int, number: int, chars: int) -> dict[str, object]:
        paths = list(self.files)
        path = paths[instance % len(paths)]
        at = instance // len(paths) % _FUNCTIONS_PER_FILE
        turn = instance // len(paths) // _FUNCTIONS_PER_FILE
        right = self.files[path]
        body = right[at].split("\n")
        line = 3 + turn % (len(body) - 4)
        wrong = [*body[:line], _mutated(body[line], turn), *body[line + 1 :]]
        before = "\n\n".join([*right[:at], "\n".join(wrong), *right[at + 1 :]]) + "\n"
        name = body[0].split("(")[0].removeprefix("def ")
        first = 1 + sum(len(each.split("\n")) + 1 for each in right[:at])
        bug = _hunk(path, body, wrong, line, first)
        fix = reverse_patch(bug)
        return {
            "instance_id": f"{self.name}.func_basic__{instance:06d}",
            "messages": self._messages(path, name, before, wrong[line], body[line], fix, chars),
            "resolved": True,
            "model": "made-up",
            "traj_id": f"{self.name}.func_basic__{instance:06d}.{number}",
            "patch": fix,
        }

    def _messages(
        self, path: str, name: str, before: str, wrong: str, right: str, fix: str, chars: int
    ) -> list[dict[str, str]]:
        rng = self.rng
        issue = (
            f"# {name} gives a wrong result\n\nSince the last release `{name}` in {path} returns "
            f"{rng.randrange(1000)} where {rng.randrange(1000)} is right for "
            f"{rng.choice(_VERBS)} over {rng.choice(_NOUNS)}, {rng.choice(_NOUNS)} and "
            f"{rng.choice(_NOUNS)} of length {rng.randrange(50)}."
        )
        view = written_call("str_replace_editor", {"command": "view", "path": f"/testbed/{path}"})
        edit = written_call(
            "str_replace_editor",
            {
                "command": "str_replace",
                "path": f"/testbed/{path}",
                "old_str": wrong,
                "new_str": right,
            },
        )
        others = [other for other in self.files if other != path]
        talk = [
            ("I look at the code.\n\n" + view, "OBSERVATION:\n" + _numbered(before)),
            ("I fix it.\n\n" + edit, "OBSERVATION:\n" + _numbered(before.replace(wrong, right))),
            ("Submit.\n\n<function=submit>\n</function>", "OBSERVATION:\n" + fix),
        ]
        used = sum(len(a) + len(b) for a, b in talk)
        filler = []
        while used < chars:
            other = rng.choice(others)
            body = "\n\n".join(self.files[other]) + f"\n# {rng.getrandbits(64):x}\n"
            seen = (f"I read {other}.", "OBSERVATION:\n" + _numbered(body))
            filler.append(seen)
            used += len(seen[1])
        messages = [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": f"<pr_description>\n{issue}\n</pr_description>"},
        ]
        for said, saw in [talk[0], *filler, *talk[1:]]:
            messages += [{"role": "assistant", "content": said}, {"role": "user", "content": saw}]
        return messages


def _function(name: str, rng: random.Random) -> str:
    lines = [f"def {name}(values, limit):", f'    """{name} of the values."""', "    total = 0"]
    lines += [
        f"    step_{n} = total * {rng.randrange(2, 99)} + values[{rng.randrange(9)}] + limit"
        for n in range(24)
    ]
    return "\n".join([*lines, "    return total"])


def _mutated(line: str, turn: int) -> str:
    return line.replace("+ limit", f"- limit - {turn}")


def _hunk(path: str, body: list[str], wrong: list[str], line: int, first: int) -> str:
    start, stop = max(line - 3, 0), min(line + 4, len(body))
    lines = [f" {each}" for each in body[start:line]]
    lines += [f"-{body[line]}", f"+{wrong[line]}"]
    lines += [f" {each}" for each in body[line + 1 : stop]]
    size = stop - start
    at = first + start
    return (
        f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n"
        f"@@ -{at},{size} +{at},{size} @@ {body[0]}\n" + "\n".join(lines) + "\n"
    )


def _numbered(text: str) -> str:
    return "\n".join(f"{n:6}\t{line}" for n, line in enumerate(text.split("\n"), start=1))
