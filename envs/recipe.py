"""How to build a repository's environment, and where to find the repository. Data in *.toml."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from contextrl.envs.errors import ImageError
from contextrl.envs.leases import leased_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What must be installed for the repository's tests to run."""

    repo: str
    requirements: tuple[str, ...]
    install: tuple[str, ...] = ()
    """Commands run as root in the repository; none puts `paths` on Python's path."""
    paths: tuple[str, ...] = (".", "src")
    tests: tuple[str, ...] = ("tests",)
    """What pytest runs when the whole suite is asked for."""
    uploaded_before: str = ""
    """A date, 2024-06-01: what requirements need in turn is not taken from later uploads."""


def find_recipe(repo: str) -> Recipe | None:
    """The recipe shipped for `owner/name`, if there is one."""
    folder = resources.files("contextrl.envs") / "recipes"
    for file in folder.iterdir():
        if file.name.endswith(".toml"):
            fields = tomllib.loads(file.read_text(encoding="utf-8"))
            if fields["repo"].lower() == repo.lower():
                return Recipe(
                    repo=repo,
                    requirements=tuple(fields["requirements"]),
                    install=tuple(fields.get("install", ())),
                    paths=tuple(fields.get("paths", (".", "src"))),
                    tests=tuple(fields.get("tests", ("tests",))),
                    uploaded_before=str(fields.get("uploaded_before", "")),
                )
    return None


def find_repository(repos: Path, repo: str, commit: str = "") -> Path | None:
    """The git directory of a local clone or mirror of `owner/name` below `repos`.

    Of several, SWE-smith having one for each base commit, the first that has `commit`; the first of
    all where none has.
    """
    found = list(_repositories(repos, repo))
    with_commit = (git_dir for git_dir in found if commit and tree_id(git_dir, commit))
    return next(with_commit, None) or next(iter(found), None)


def _repositories(repos: Path, repo: str) -> Iterator[Path]:
    owner, _, name = repo.partition("/")
    smith = [
        candidate.relative_to(repos).as_posix()
        for pattern in (f"{owner}__{name}.*", f"swesmith/{owner}__{name}.*")
        for candidate in sorted(repos.glob(pattern.replace("[", "[[]")))
    ]
    plus = sorted(path.name for path in repos.glob(f"swesmith+{owner}__{name}.*"))
    for candidate in (
        f"{owner}__{name}",
        f"{owner}__{name}.git",
        f"{owner}+{name}/repo",
        f"{owner}+{name}",
        f"{owner}/{name}",
        f"{owner}/{name}.git",
        *smith,
        *(f"{folder}/repo" for folder in plus),
        *plus,
        name,
        f"{name}.git",
    ):
        for git_dir in (repos / candidate / ".git", repos / candidate):
            if (git_dir / "HEAD").is_file() and (git_dir / "objects").is_dir():
                yield git_dir
                break


def tree_id(git_dir: Path, commit: str) -> str | None:
    """The id of the commit's tree, None where the repository does not have the commit."""
    done = _git(
        git_dir, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{tree}}"
    )
    return done.stdout.strip() if done.returncode == 0 else None


def export_commit(git_dir: Path, commit: str, folder: Path) -> None:
    """The commit's files are in `folder`, all of them: `git archive` would honour export-ignore."""
    with leased_folder("contextrl-index-") as scratch:
        for arguments in (("read-tree", commit), ("checkout-index", "--all", "--force")):
            done = _git(git_dir, *arguments, work_tree=folder, index=str(scratch / "index"))
            if done.returncode != 0:
                reason = " ".join(done.stderr.split())[:300]
                raise ImageError(f"could not read commit {commit} of {git_dir}: {reason}")


def _git(
    git_dir: Path, *arguments: str, work_tree: Path | None = None, index: str = ""
) -> subprocess.CompletedProcess[str]:
    git = shutil.which("git")
    if git is None:
        raise ImageError("expected git on PATH, found none; run: apt-get install git")
    # The user's own settings could change line endings or run filters.
    environment = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    command = [git, "-c", "safe.directory=*", f"--git-dir={git_dir}"]
    if work_tree is not None:
        command += ["-c", "core.bare=false", f"--work-tree={work_tree}"]
        environment["GIT_INDEX_FILE"] = index
    return subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=work_tree,
    )
