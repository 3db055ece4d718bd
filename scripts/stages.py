"""The stages of a job: said when they begin, timed when they end, cached by what went into them."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

COMPLETE = ".complete"
QUIET_S = 30.0


class Stages:
    """Prints one line when a stage begins and one when it ends; remembers the seconds."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}
        self._last_progress = time.monotonic()

    @contextlib.contextmanager
    def stage(self, name: str, what: str) -> Iterator[None]:
        """`what` says what the stage does, in a few words."""
        self.console.print(f"[bold]{name}[/]: {what}", highlight=False)
        began = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - began
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
            self.console.print(f"  [dim]{name}: {seconds:.1f} s[/]", highlight=False)

    def progress(self, what: str, done: int, total: int | None) -> None:
        """A line that rewrites itself on a terminal; elsewhere one line every half minute."""
        now = time.monotonic()
        finished = total is not None and done >= total
        text = f"{what} {done}/{total}" if total else f"{what} {done}"
        if self.console.is_terminal:
            self.console.print(f"  {text}\033[K", end="\n" if finished else "\r", highlight=False)
        elif finished or now - self._last_progress > QUIET_S:
            self._last_progress = now
            self.say(text)

    def say(self, line: str) -> None:
        self.console.print(f"  {line}", highlight=False, markup=False)


class Cache:
    """Folders named by the digest of their inputs. A folder without its mark is never used."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(
        self, kind: str, inputs: Mapping[str, Any], make: Callable[[Path], None]
    ) -> tuple[Path, bool]:
        """The folder of these inputs and whether it was there; else `make` fills a draft of it.

        A draft that was interrupted stays a draft: it is not taken for complete, and `make` starts
        anew in a fresh one.
        """
        folder = self.root / kind / digest(inputs)
        if (folder / COMPLETE).is_file():
            return folder, True
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            make(draft)
            text = json.dumps(inputs, indent=1, sort_keys=True, default=str)
            (draft / COMPLETE).write_text(text, encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return folder, False


def digest(inputs: Mapping[str, Any]) -> str:
    text = json.dumps(inputs, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def source_digest(*modules: str) -> str:
    """Of the code that a cached stage depends on, e.g. `contextrl.agents`, `contextrl.pairs`."""
    hasher = hashlib.sha256()
    for module in modules:
        package, _, file = module.partition(":")
        root = importlib.resources.files(package)
        files = [root / file] if file else sorted(root.iterdir(), key=lambda item: item.name)
        for item in files:
            if item.is_file() and item.name.endswith((".py", ".jinja")):
                hasher.update(item.name.encode() + item.read_bytes())
    return hasher.hexdigest()[:12]


def file_digest(path: Path) -> str:
    """Of one file, or of a folder's files in order of their names."""
    hasher = hashlib.sha256()
    files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    for item in files:
        hasher.update(item.name.encode())
        hasher.update(item.read_bytes())
    return hasher.hexdigest()[:16]
