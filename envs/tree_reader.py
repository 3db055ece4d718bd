"""Files of a tree by paths that nobody checked."""

from __future__ import annotations

from pathlib import Path

from contextrl.envs.bug_issue import ReadSource


def reader_below(root: Path) -> ReadSource:
    """Reads text files below `root` and nowhere else, links that lead out included."""
    root = root.resolve()

    def read(path: str) -> str | None:
        file = (root / path).resolve()
        if not file.is_relative_to(root) or not file.is_file():
            return None
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None

    return read
