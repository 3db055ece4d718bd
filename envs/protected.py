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
    """Tests, their configuration, start-up hooks, and modules that would shadow the test runner."""
    parts = PurePosixPath(path).parts
    name = parts[-1] if parts else ""
    stem = name.split(".", 1)[0]  # of a package, a .pyc or an extension module too
    return (
        name in TEST_CONFIGURATION
        or name.endswith((".pth", "_test.py"))
        or (name.startswith("test_") and name.endswith(".py"))
        or any(part in TEST_FOLDERS for part in parts[:-1])
        or stem in SHADOWED_MODULES
        or stem == "conftest"
        or any(part in SHADOWED_MODULES for part in parts[:-1])
    )


def paths_to_restore(
    changed: Iterable[str], *, allowed: Iterable[str], always: Iterable[str]
) -> tuple[str, ...]:
    """Of the changed paths, those that go back to the start state.

    `allowed`: the reference fix changes them too, so an honest agent may. `always`: they hold the
    listed tests or the hidden ones, and go back whatever the reference fix does.
    """
    may, must = set(allowed), set(always)
    return tuple(
        path for path in changed if path in must or (is_protected(path) and path not in may)
    )
