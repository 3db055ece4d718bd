"""What `pip install` of this repository brings, and that it works away from this tree."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("agents", "envs", "pairs", "scripts", "verl_ext")
DATA_SUFFIXES = {".css", ".html", ".jinja", ".js", ".sh", ".toml", ".yaml", ".typed"}

pytestmark = pytest.mark.slow


def source_files() -> set[str]:
    """Every file of the packages that a reader would expect in the wheel."""
    return {
        f"contextrl/{path.relative_to(ROOT).as_posix()}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in {".py", *DATA_SUFFIXES} and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    # setuptools keeps its working files beside the sources: a copy keeps the tree clean, and what
    # an earlier build left in it out of this wheel.
    tree = out / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (tree / name).write_bytes((ROOT / name).read_bytes())
    for file in source_files():
        name = file.removeprefix("contextrl/")
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes((ROOT / name).read_bytes())
    run("build", "--wheel", "--no-isolation", "--outdir", str(out), str(tree), cwd=out)
    (built,) = out.glob("*.whl")
    return built


def run(module: str, *args: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *args],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_every_source_file_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    dist_info = {name for name in names if ".dist-info/" in name.split("contextrl", 1)[-1]}
    assert sorted(names - dist_info) == sorted(source_files())
    assert {name.split("/")[0] for name in names} == {
        "contextrl",
        next(iter(dist_info)).split("/")[0],
    }
    assert any(name.endswith("licenses/LICENSE") for name in dist_info)


def test_the_wheel_names_its_command_and_licence(wheel):
    archive = zipfile.ZipFile(wheel)
    read = {
        Path(name).name: archive.read(name).decode()
        for name in archive.namelist()
        if ".dist-info/" in name
    }
    assert "contextrl = contextrl.scripts.cli:main" in read["entry_points.txt"]
    assert "License-Expression: Apache-2.0" in read["METADATA"]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nVersion: {version}\n" in read["METADATA"]


def test_the_installed_wheel_works_outside_of_the_tree(wheel, tmp_path):
    target = tmp_path / "site"
    run(
        "pip",
        "install",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
        str(wheel),
        cwd=tmp_path,
    )
    script = f"""
import importlib, pkgutil, sys
sys.path[:0] = [{str(target)!r}]
sys.path += [{sysconfig.get_path("purelib")!r}, {sysconfig.get_path("platlib")!r}]
import contextrl
assert list(contextrl.__path__) == [{str(target / "contextrl")!r}], contextrl.__path__
for package in ("agents", "envs", "pairs"):
    module = importlib.import_module(f"contextrl.{{package}}")
    for found in pkgutil.walk_packages(module.__path__, module.__name__ + "."):
        importlib.import_module(found.name)
from contextrl.scripts import cli
for verb in cli.VERBS.values():
    verb.load()
print("fine")
"""
    # -S: no .pth file is read, so this environment's own (editable) installation stays out.
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "fine\n", done.stderr
