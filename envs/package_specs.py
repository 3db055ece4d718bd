"""Packages that become tasks: what to fetch, which files may break, which tests decide."""

from __future__ import annotations

from pydantic import Field

from contextrl.envs.errors import MutationError
from contextrl.envs.types import Record


class PackageSpec(Record):
    """A pure-Python sdist, pinned by hash, that carries its own tests."""

    name: str
    version: str
    sdist_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    sdist_filename: str
    repo: str
    """`owner/name` of the upstream repository, as tasks state it."""
    sources: tuple[str, ...] = Field(min_length=1)
    """Files that bugs are injected into, relative to the root of the sdist."""
    tests: str
    """Folder or file that pytest collects, relative to the root of the sdist."""
    keep: tuple[str, ...] = Field(min_length=1)
    """Top-level files and folders of the sdist that the image holds. Leaves out set-up scripts."""
    requirements: tuple[str, ...] = Field(min_length=1)
    """What the image installs for the tests, pytest among them, each pinned."""
    max_function_lines: int = Field(default=8, ge=2)
    """Longer functions stay intact. A tiny policy must read a whole function in its context."""
    max_mutants_per_function: int = Field(default=8, ge=1)
    """How many bugs of one function are validated by running the tests."""
    test_timeout_s: float = 20.0
    """Of a task, when it is graded."""
    mutant_cpu_s: int = Field(default=3, ge=1)
    """CPU seconds a mutant's tests may take; CPU, so that a busy machine drops the same ones."""


TOOLZ = PackageSpec(
    name="toolz",
    version="1.0.0",
    sdist_sha256="2c86e3d9a04798ac556793bced838816296a2f085017664e4995cb40a1047a02",
    sdist_filename="toolz-1.0.0.tar.gz",
    repo="pytoolz/toolz",
    sources=(
        "toolz/itertoolz.py",
        "toolz/functoolz.py",
        "toolz/dicttoolz.py",
        "toolz/recipes.py",
    ),
    tests="toolz/tests",
    keep=("toolz", "tlz", "LICENSE.txt", "README.rst"),
    requirements=("pytest==9.2.0",),
)

_SPECS = {spec.name: spec for spec in (TOOLZ,)}


def package_spec(name: str) -> PackageSpec:
    """The built-in specification called `name`. Raises `MutationError` for any other."""
    try:
        return _SPECS[name]
    except KeyError:
        known = ", ".join(sorted(_SPECS))
        raise MutationError(f"package: expected one of {known}, found {name!r}") from None
