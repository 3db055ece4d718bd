"""Files of a repository at a commit, from mirrors or clones on this machine; nothing is fetched.

`root` holds one folder per repository: `owner__name`, `owner__name.git`, `owner/name`, `name`, with
or without a commit behind it (`owner__name.8b421526`, as SWE-smith names its mirrors, whose own
commits have other ids). The objects are read by GitPython from the object store: nothing is checked
out and no hook or filter runs.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from contextrl.envs.recipe import find_repository
from contextrl.envs.types import Task
from contextrl.pairs.diffs import MAX_SOURCE_BYTES
from contextrl.pairs.errors import SourceError
from contextrl.pairs.types import Instance

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{7,40}")


class Repositories:
    """Call it with an instance and a path: the file's text before the fix, or None."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise SourceError(f"expected a folder of repositories at {root}, found none")
        self.root = root
        self._folder = lru_cache(maxsize=1024)(self._inside)
        self._read = lru_cache(maxsize=4096)(self._at_commit)

    def __reduce__(self) -> tuple[type[Repositories], tuple[Path]]:
        return Repositories, (self.root,)  # for worker processes: the caches stay behind

    def __call__(self, instance: Task | Instance, path: str) -> str | None:
        folder = self._folder(instance.repo, instance.base_commit)
        return self._read(folder, instance.base_commit, path) if folder is not None else None

    def _inside(self, repo: str, commit: str) -> Path | None:
        """Names come from rows that nobody checked: none leads out of `root`."""
        if not _REPO.fullmatch(repo) or not _COMMIT.fullmatch(commit):
            return None
        owner, _, name = repo.partition("/")
        for base in (f"{owner}__{name}", f"{owner}/{name}", name):
            named = self.root / f"{base}.{commit[:8]}"
            if named.is_dir() and named.resolve().is_relative_to(self.root.resolve()):
                return named
        found = find_repository(self.root, repo, commit)
        inside = found is not None and found.resolve().is_relative_to(self.root.resolve())
        return found if inside else None

    def _at_commit(self, folder: Path, commit: str, path: str) -> str | None:
        git = _git()
        try:
            # Read in this process: the command `git` refuses repositories of another user.
            with git.Repo(folder, odbt=git.GitDB) as repository:
                blob = repository.commit(commit).tree / path
                if blob.type != "blob" or blob.size > MAX_SOURCE_BYTES:
                    return None
                return str(blob.data_stream.read().decode("utf-8"))
        # GitPython lets the errors of its object database through: all mean "not at hand".
        except (git.exc.GitError, git.exc.ODBError, ValueError, KeyError, OSError):
            return None


def _git() -> Any:
    try:
        import git
    except ImportError as error:
        raise SourceError(
            "expected the package `gitpython` to read repositories, found none; "
            "run: pip install 'contextrl[mine]'"
        ) from error
    return git
