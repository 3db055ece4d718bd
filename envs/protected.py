"""Which paths of an agent's diff never reach grading: those that decide how tests run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

TEST_CONFIGURATION = frozenset(
    {
        "conftest.py",
        "pytest.ini",
        ".pytest.ini",
        "pytest.toml",
        ".pytest.toml",
        "tox.ini",
        "setup.cfg",
        "pyproject.toml",
        ".coveragerc",
    }
)
TEST_FOLDERS = frozenset({"test", "tests"})
SHADOWED_MODULES = frozenset(
    {"pytest", "_pytest", "pluggy", "iniconfig", "xdist", "sitecustomize", "usercustomize"}
)


def is_protected(path: str) -> bool:
    """Tests, their configuration, start-up hooks, and modules that would shadow them or pytest.

    Python takes a folder, a link, a compiled module or an extension in place of `test_a.py`, so
    what a name ends with does not matter. Nobody fixes an issue in compiled files.
    """
    parts = PurePosixPath(path).parts
    name = parts[-1] if parts else ""
    return (
        name in TEST_CONFIGURATION
        or name.endswith((".pth", ".pyc", ".pyo"))
        or any(part in TEST_FOLDERS or part == "__pycache__" for part in parts[:-1])
        or any(_decides(part.split(".", 1)[0]) for part in parts)
    )


def _decides(stem: str) -> bool:
    return (
        stem in SHADOWED_MODULES
        or stem == "conftest"
        or stem.startswith("test_")
        or stem.endswith("_test")
    )


def _stands_in(path: str, test_file: str) -> bool:
    """Whether Python might import it in place of a test file, however that is called."""
    stem = test_file.removesuffix(".py")
    return path.startswith((f"{stem}/", f"{stem}.")) or path == stem


def paths_to_restore(
    changed: Iterable[str], *, allowed: Iterable[str], always: Iterable[str]
) -> tuple[str, ...]:
    """Of the changed paths, those that go back to the start state.

    `allowed`: the reference fix changes them too, so an honest agent may. `always`: they hold the
    listed tests or the hidden ones, and go back whatever the reference fix does.
    """
    may, must = set(allowed), set(always)
    return tuple(
        path
        for path in changed
        if path in must
        or any(_stands_in(path, test) for test in must)
        or (is_protected(path) and path not in may)
    )
