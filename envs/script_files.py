"""Files of a sandbox through scripts that run in it, for backends without a way of their own."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Protocol


class RunScript(Protocol):
    def __call__(self, script: str, max_bytes: int, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        """Exit code, stdout cut at one byte over `max_bytes`, and stderr."""
        ...


def read_file(run: RunScript, path: str, limit: int) -> bytes:
    """Raises `FileNotFoundError` if there is none, `ValueError` if it is too large."""
    file = shlex.quote(path)
    code, stdout, _ = run(
        f"[ -f {file} ] && [ ! -L {file} ] && exec head -c {limit + 1} -- {file}", limit
    )
    if code != 0:
        raise FileNotFoundError(f"{path}: not a regular file in the sandbox")
    if len(stdout) > limit:
        raise ValueError(f"{path}: larger than {limit} bytes")
    return stdout


def write_file(run: RunScript, path: str, content: bytes) -> None:
    """Parent folders are made; a file that exists keeps its mode, and is replaced whole."""
    target = PurePosixPath(path)
    if not target.is_absolute():
        raise ValueError(f"path must be absolute, got {path}")
    folder, file = shlex.quote(str(target.parent)), shlex.quote(path)
    script = f"mkdir -p -- {folder} && head -c {len(content)} > {file}"
    code, _, stderr = run(script, 4096, stdin=content)
    if code != 0:
        raise PermissionError(f"{path}: {' '.join(stderr.decode(errors='replace').split())}")


def diff_runner(run: RunScript, max_bytes: int) -> Callable[[str], tuple[int, bytes, bytes]]:
    return lambda script: run(script, max_bytes)
