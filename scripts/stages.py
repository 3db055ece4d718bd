"""The stages of a job: said when they begin, timed when they end, cached by what went into them."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from rich.console import Console

from contextrl.scripts import file_lock
from contextrl.scripts.console import ScriptError

logger = logging.getLogger(__name__)

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
        self,
        kind: str,
        inputs: Mapping[str, Any],
        make: Callable[[Path], None],
        *,
        resumable: bool = False,
    ) -> tuple[Path, bool]:
        """The folder of these inputs and whether it was there; else `make` fills a draft of it.

        Two jobs that want the same folder make it once: the second waits. A draft that was
        interrupted is not taken for complete. It is removed, and `make` starts anew; or, if that
        is `resumable`, it is kept, and the next `make` gets it as it was left.
        """
        folder = self.root / kind / digest(inputs)
        if (folder / COMPLETE).is_file():
            return folder, True
        folder.parent.mkdir(parents=True, exist_ok=True)
        with self._alone(f"{kind}-{folder.name}"):
            if (folder / COMPLETE).is_file():  # made by the job that we waited for
                return folder, True
            draft = folder.parent / f".{folder.name}.draft"
            if not resumable:
                shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(exist_ok=True)
            keep = resumable
            try:
                make(draft)
                text = json.dumps(inputs, indent=1, sort_keys=True, default=str)
                (draft / COMPLETE).write_text(text, encoding="utf-8")
                keep = False
                # Where a disk knows no locks somebody may have been faster, and use it already.
                if (folder / COMPLETE).is_file():
                    return folder, True
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(draft, folder)
            finally:
                if not keep:
                    shutil.rmtree(draft, ignore_errors=True)
        return folder, False

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        lock = self.root / ".locks" / name
        lock.parent.mkdir(exist_ok=True)
        try:
            fd = file_lock.take(lock, wait=False)
        except BlockingIOError:
            logger.warning("process %s makes %s; waiting for it", file_lock.holder(lock), name)
            fd = file_lock.take(lock, wait=True)
        try:
            yield
        finally:
            os.close(fd)


def digest(inputs: Mapping[str, Any]) -> str:
    text = json.dumps(inputs, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def source_digest(*modules: str) -> str:
    """Of the code that a cached stage depends on: a package, e.g. `contextrl.agents`, with all
    below it, or one file of it, e.g. `contextrl.scripts:job_play.py`.
    """
    hasher = hashlib.sha256()
    for module in modules:
        package, _, file = module.partition(":")
        root = importlib.resources.files(package)
        for name, item in [(file, root / file)] if file else _code_below(root):
            hasher.update(f"{name}\0".encode() + item.read_bytes())
    return hasher.hexdigest()[:12]


def _code_below(folder: Traversable, place: str = "") -> Iterator[tuple[str, Traversable]]:
    for item in sorted(folder.iterdir(), key=lambda each: each.name):
        name = f"{place}{item.name}"
        if item.is_dir():
            yield from _code_below(item, f"{name}/")
        elif item.name.endswith((".py", ".jinja", ".toml")):
            yield name, item


def file_digest(path: Path) -> str:
    """Of one file, or of all files of a folder. Raises `ScriptError` if there is none."""
    files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    if not files:
        raise ScriptError(f"expected a file or a folder of files at {path}, found none")
    hasher = hashlib.sha256()
    for item in files:
        with item.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        name = item.name if item == path else item.relative_to(path).as_posix()
        hasher.update(f"{name}\0".encode() + content)
    return hasher.hexdigest()[:16]


def model_digest(model: Path) -> str:
    """Of a folder's files; of a name on the hub, and of the revision that would be loaded."""
    if model.exists() or model.is_absolute() or len(model.parts) > 2:
        return file_digest(model)
    return digest({"model": str(model), "revision": _hub_revision(str(model))})


def _hub_revision(name: str) -> str:
    """The snapshot that its configuration is read from; empty where none can be had."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    file = "config.json"
    try:
        found = try_to_load_from_cache(name, file)
        found = found if isinstance(found, str) else hf_hub_download(name, file)
        return Path(found).parent.name
    except (OSError, ValueError):  # no network and not on this disk, or no such model
        return ""
