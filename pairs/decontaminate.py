"""Keep benchmarks out of training pairs: by repository, by commit, by instance id and by text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum

from contextrl.pairs.types import Instance

# The repositories of SWE-bench, and so of Verified and Lite.
SWE_BENCH_REPOSITORIES = frozenset(
    {
        "astropy/astropy", "django/django", "matplotlib/matplotlib", "mwaskom/seaborn",
        "pallets/flask", "psf/requests", "pydata/xarray", "pylint-dev/pylint",
        "pytest-dev/pytest", "scikit-learn/scikit-learn", "sphinx-doc/sphinx", "sympy/sympy",
    }
)  # fmt: skip
SHINGLE_WORDS = 13
"""As in the usual n-gram decontamination of training sets."""
MIN_SHARED_SHINGLES = 3
MIN_COMMIT_CHARS = 7

_WORD = re.compile(r"\w+")


class Contamination(StrEnum):
    REPOSITORY = "repository of the benchmark"
    COMMIT = "commit of the benchmark"
    INSTANCE = "instance of the benchmark"
    TEXT = "issue text of the benchmark"


class Benchmark:
    """What must not be trained on."""

    def __init__(
        self,
        instances: Iterable[Instance] = (),
        repositories: Iterable[str] = SWE_BENCH_REPOSITORIES,
    ) -> None:
        instances = list(instances)
        self.repositories = {name.lower() for name in repositories}
        self.instances = {each.task_id for each in instances}
        self.commits = {
            each.base_commit for each in instances if len(each.base_commit) >= MIN_COMMIT_CHARS
        }
        self._short = {commit[:8] for commit in self.commits}
        self._shingles = {shingle for each in instances for shingle in _shingles(each.problem)}

    def found_in(self, instance: Instance) -> Contamination | None:
        """The first reason why this must not be trained on; None when there is none."""
        if instance.repo.lower() in self.repositories:
            return Contamination.REPOSITORY
        if instance.task_id in self.instances:
            return Contamination.INSTANCE
        commit = instance.base_commit
        if commit in self.commits or (len(commit) == 8 and commit in self._short):
            return Contamination.COMMIT
        shared = sum(each in self._shingles for each in set(_shingles(instance.problem)))
        return Contamination.TEXT if shared >= MIN_SHARED_SHINGLES else None


def _shingles(text: str) -> Iterable[str]:
    words = [word.lower() for word in _WORD.findall(text)]
    return (
        " ".join(words[at : at + SHINGLE_WORDS]) for at in range(len(words) - SHINGLE_WORDS + 1)
    )
