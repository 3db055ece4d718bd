"""Who may import whom, and what a file may be. The tables are the rules; the rest reads them."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Our packages, and which of them each may import. An arrow may skip, never reverse.
MAY_IMPORT = {
    "envs": {"envs"},
    "agents": {"agents", "envs"},
    "pairs": {"pairs", "agents", "envs"},
    "verl_ext": {"verl_ext", "pairs", "agents", "envs"},
    "scripts": {"scripts", "verl_ext", "pairs", "agents", "envs"},
}

TOUCHES_VERL = frozenset(
    f"verl_ext/{name}.py"
    for name in (
        "agent_loop",
        "cpu",
        "engine",
        "main",
        "papo",
        "quick_batches",
        "quick_bootstrap",
        "register",
        "rollout_hf",
        "rollout_vllm",
        "sampled_logits",
        "server_reply",
        "trainer",
        "vqa_loop",
        "worker",
    )
)
UI_FILES = frozenset({"agents/viewer/*", "scripts/*"})

# Modules that cost seconds or tie us to one system, and the files that may import them. A star
# stands for every file of a folder.
HEAVY = {
    "torch": frozenset({"verl_ext/*"}),
    "tensordict": frozenset({"verl_ext/*"}),
    "verl": TOUCHES_VERL | {"scripts/cli_bench_logprobs.py"},  # which measures it beside ours
    "ray": TOUCHES_VERL,
    "vllm": frozenset({"verl_ext/rollout_vllm.py"}),
    "docker": frozenset({"envs/*"}),
    "rich": UI_FILES,
    "textual": UI_FILES,
    "typer": frozenset({"scripts/*"}),
    "matplotlib": UI_FILES,
}
# Of those, the ones a function may still import when it is called: at module level they would make
# `--help` slow, inside the one function that needs them they harm nobody.
LATE_IS_FINE = {"torch": frozenset({"scripts/*"})}

# What `pip install contextrl` without extras must be enough for: rollouts and mining on a laptop.
WITHOUT_EXTRAS = ("envs", "agents", "pairs")
# Sent as text into a sandbox and run by the Python there, which brings its own pytest.
RUNS_ELSEWHERE = {
    "envs/mutation_driver.py",
    "envs/referee.py",
    "envs/referee_hooks.py",
    "envs/referee_source.py",
    "envs/suite_plugin.py",
}
IMPORTED_AS = {"gitpython": "git", "pillow": "PIL", "pyyaml": "yaml"}
# Libraries of the extras, each imported late by the one file that tells what to install.
OPTIONAL = {
    "datasets": "pairs/hub.py",
    "git": "pairs/repositories.py",
    "faiss": "pairs/neighbours.py",
    "huggingface_hub": "pairs/hub.py",
    "imagehash": "pairs/duplicates.py",
    "litellm": "pairs/litellm_calls.py",
    "sentence_transformers": "pairs/embedders.py",
    "sklearn": "pairs/shortcuts.py",
    "swerex": "envs/rex_deploy.py",
}

# Named above, planned, and not there yet: strike a name out here when its file comes.
NOT_YET_WRITTEN = {"verl_ext/rollout_vllm.py"}

MAX_LINES = 300


def covers(files: frozenset[str], where: str) -> bool:
    return where in files or any(f"{folder}/*" in files for folder in Path(where).parents)


class When(StrEnum):
    AT_ONCE = "as soon as the file is imported"
    LATE = "inside a function"
    NEVER = "for the type checker only"


def imported_modules(path: Path) -> Iterator[tuple[int, str, When]]:
    """Line, module, and when the import happens."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    when = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            when |= dict.fromkeys(ast.walk(node), When.LATE)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for statement in node.body:
                when |= dict.fromkeys(ast.walk(statement), When.NEVER)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "contextrl" and not node.level:
            modules = [f"contextrl.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = ["." * node.level + (node.module or "")]
        else:
            continue
        for module in modules:
            yield node.lineno, module, when.get(node, When.AT_ONCE)


def import_violations(root: Path) -> list[str]:
    found = []
    for package, allowed in MAY_IMPORT.items():
        for path in sorted((root / package).rglob("*.py")):
            where = path.relative_to(root).as_posix()
            for line, module, when in imported_modules(path):
                top, *rest = module.split(".")
                if module.startswith("."):
                    found.append(f"{where}:{line}: import contextrl.{package}..., not {module}")
                elif top in MAY_IMPORT:
                    found.append(f"{where}:{line}: import contextrl.{module}, not {module}")
                elif top == "contextrl" and (not rest or rest[0] not in allowed):
                    found.append(f"{where}:{line}: {package} may not import {module}")
                elif top in HEAVY and not may_load(top, where, when):
                    found.append(f"{where}:{line}: {top} belongs in {sorted(HEAVY[top])}")
    return found


def may_load(library: str, where: str, when: When) -> bool:
    return (
        when is When.NEVER
        or covers(HEAVY[library], where)
        or (when is When.LATE and covers(LATE_IS_FINE.get(library, frozenset()), where))
    )


def file_violations(root: Path) -> list[str]:
    found = []
    for package in (*MAY_IMPORT, "tests"):
        for path in sorted((root / package).rglob("*.py")):
            where = path.relative_to(root).as_posix()
            text = path.read_text(encoding="utf-8")
            if path.stem in {"utils", "helpers", "common", "misc"}:
                found.append(f"{where}: name the file after what it is about")
            if package != "tests" and (lines := len(text.splitlines())) > MAX_LINES:
                found.append(f"{where}: {lines} lines, at most {MAX_LINES}")
            for number, line in enumerate(text.splitlines(), 1):
                if not line.isascii():
                    found.append(f"{where}:{number}: not ASCII; write an escape")
    return found


def packaging_violations(root: Path) -> list[str]:
    """Folders of code or data that an installation would leave out."""
    setuptools = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    listed = {name for name in setuptools["packages"] if name in setuptools["package-dir"]}
    folders = {
        path.parent
        for package in MAY_IMPORT
        for path in (root / package).rglob("*")
        if path.suffix in {".css", ".html", ".jinja", ".js", ".py", ".toml", ".yaml"}
    }
    present = {
        f"contextrl.{folder.relative_to(root).as_posix().replace('/', '.')}" for folder in folders
    }
    return [f"pyproject.toml: {name} is not listed" for name in sorted(present - listed)] + [
        f"pyproject.toml: {name} has no files" for name in sorted(listed - present)
    ]


def dependency_violations(root: Path) -> list[str]:
    """Third-party imports that `[project.dependencies]` does not bring."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[^a-z0-9_-]", line.lower())[0] for line in project["dependencies"]}
    known = {IMPORTED_AS.get(name, name) for name in names} | {"contextrl", *MAY_IMPORT}
    found = []
    for package in WITHOUT_EXTRAS:
        for path in sorted((root / package).rglob("*.py")):
            where = path.relative_to(root).as_posix()
            for line, module, when in imported_modules(path):
                top = module.split(".")[0]
                if top in known | sys.stdlib_module_names or module.startswith("."):
                    continue
                if when is When.LATE and OPTIONAL.get(top) == where:
                    continue
                if when is not When.NEVER and where not in RUNS_ELSEWHERE:
                    found.append(f"{where}:{line}: {top} is in no [project.dependencies]")
    return found


def test_imports_follow_the_arrows():
    assert import_violations(ROOT) == []


def test_files_are_small_named_and_ascii():
    assert file_violations(ROOT) == []


def test_every_package_is_installed():
    assert packaging_violations(ROOT) == []


def test_an_installation_without_extras_brings_what_it_imports():
    assert dependency_violations(ROOT) == []


def test_every_file_the_tables_name_exists():
    named = {
        name
        for files in (*HEAVY.values(), *LATE_IS_FINE.values())
        for name in files
        if "*" not in name
    }
    assert {name for name in named if not (ROOT / name).exists()} == NOT_YET_WRITTEN


# A check that cannot fail is worse than none: each rule against a tree that breaks it.


@pytest.mark.parametrize(
    ("where", "source", "complaint"),
    [
        ("envs/a.py", "import contextrl.agents.types", "envs may not import contextrl.agents"),
        ("agents/a.py", "from contextrl import pairs", "agents may not import contextrl.pairs"),
        ("pairs/a.py", "def f():\n    from contextrl.verl_ext import x", "pairs may not import"),
        ("envs/a.py", "if TYPE_CHECKING:\n    import contextrl.agents.types", "may not import"),
        ("envs/a.py", "import contextrl", "envs may not import contextrl"),
        ("agents/a.py", "from envs.types import Task", "import contextrl.envs.types"),
        ("agents/a.py", "from .types import Step", "import contextrl.agents"),
        ("pairs/a.py", "import torch.nn", "torch belongs in"),
        ("pairs/a.py", "def f():\n    import torch", "torch belongs in"),
        ("scripts/a.py", "import torch", "torch belongs in"),
        ("verl_ext/ca_loss.py", "from verl import DataProto", "verl belongs in"),
        ("scripts/a.py", "import ray", "ray belongs in"),
        ("agents/a.py", "import docker", "docker belongs in"),
        ("agents/rollout.py", "from rich.table import Table", "rich belongs in"),
        ("agents/replay.py", "import textual", "textual belongs in"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path, where, source, complaint):
    write(tmp_path / where, source)
    (found,) = import_violations(tmp_path)
    assert found.startswith(f"{where}:")
    assert complaint in found


@pytest.mark.parametrize(
    ("where", "source"),
    [
        ("scripts/a.py", "from contextrl.envs.types import Task"),
        ("verl_ext/a.py", "import torch"),
        ("agents/viewer/app.py", "import textual"),
        ("verl_ext/engine.py", "import verl"),
        ("scripts/a.py", "def f():\n    import torch"),
        ("pairs/a.py", "if TYPE_CHECKING:\n    import torch"),
        ("envs/a.py", "import dockerfile_parse, json"),
    ],
)
def test_an_allowed_import_is_not(tmp_path, where, source):
    write(tmp_path / where, source)
    assert import_violations(tmp_path) == []


def test_bad_files_are_found(tmp_path):
    write(tmp_path / "envs/utils.py", "")
    write(tmp_path / "envs/long.py", "x = 1\n" * (MAX_LINES + 1))
    write(tmp_path / "tests/test_long.py", "x = 1\n" * (MAX_LINES + 1))
    write(tmp_path / "pairs/arrow.py", "x = 1\n# \u2192\n")
    assert file_violations(tmp_path) == [
        f"envs/long.py: {MAX_LINES + 1} lines, at most {MAX_LINES}",
        "envs/utils.py: name the file after what it is about",
        "pairs/arrow.py:2: not ASCII; write an escape",
    ]


def test_a_package_that_would_not_be_installed_is_found(tmp_path):
    write(tmp_path / "envs/__init__.py", "")
    write(tmp_path / "envs/images/__init__.py", "")
    write(tmp_path / "envs/recipes/moto.toml", "")
    write(
        tmp_path / "pyproject.toml",
        '[tool.setuptools]\npackages = ["contextrl.envs", "contextrl.gone"]\n'
        '[tool.setuptools.package-dir]\n"contextrl.envs" = "envs"\n"contextrl.gone" = "gone"\n',
    )
    assert packaging_violations(tmp_path) == [
        "pyproject.toml: contextrl.envs.images is not listed",
        "pyproject.toml: contextrl.envs.recipes is not listed",
        "pyproject.toml: contextrl.gone has no files",
    ]


def test_an_undeclared_dependency_is_found(tmp_path):
    write(tmp_path / "pyproject.toml", '[project]\ndependencies = ["GitPython>=3", "docker"]\n')
    write(tmp_path / "envs/a.py", "import json\nimport git\nimport docker\nimport numpy as np\n")
    write(tmp_path / "verl_ext/a.py", "import numpy\n")
    assert dependency_violations(tmp_path) == ["envs/a.py:4: numpy is in no [project.dependencies]"]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
