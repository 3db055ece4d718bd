"""The jobs' scripts refuse what cannot work before they set anything up."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from contextrl.scripts.run_folder import COMPOSED, save_whole
from contextrl.verl_ext.compose import compose

SCRIPTS = Path(__file__).parents[2] / "scripts"


def run(kind, *arguments, path=None):
    env = {**os.environ, **({"PATH": path} if path else {})}
    command = ["bash", str(SCRIPTS / f"run_{kind}_contextrl.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


@pytest.mark.parametrize(
    ("kind", "preset"),
    [("swe", "qwen3-8b"), ("swe", "klear-8b"), ("vl", "qwen2.5-vl-7b"), ("vl", "qwen3-vl-8b")],
)
def test_a_gpu_preset_without_a_gpu_stops_at_once_with_one_line(kind, preset, tmp_path):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nexit 9\n")
    smi.chmod(0o755)
    began = time.monotonic()
    done = run(kind, f"preset={preset}", path=f"{tmp_path}:{os.environ['PATH']}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "expects a CUDA GPU" in done.stderr
    assert f"run_{kind}_contextrl.sh" in done.stderr
    assert time.monotonic() - began < 10, "before any set-up"


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        ("swe", "klear-8b qwen3-8b tiny-cpu"),
        ("vl", "qwen2.5-vl-7b qwen3-vl-8b tiny-vl-cpu tiny-vl3-cpu"),
    ],
)
def test_an_unknown_preset_lists_the_known_ones(kind, known):
    done = run(kind, "preset=gpt-9")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"expected a preset of: {known}, found gpt-9" in done.stderr


def test_a_preset_of_the_other_job_is_unknown():
    assert "found tiny-vl-cpu" in run("swe", "preset=tiny-vl-cpu").stderr


@pytest.mark.parametrize("form", ["--resume {}", "--resume={}"])
def test_a_resumed_gpu_run_without_a_gpu_stops_at_once_too(form, tmp_path):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nexit 9\n")
    smi.chmod(0o755)
    folder = tmp_path / "run"
    folder.mkdir()
    save_whole(compose(["preset=qwen3-8b"]), folder / COMPOSED)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = run("swe", *form.format(folder).split(), path=path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"run {folder} expects a CUDA GPU" in done.stderr


@pytest.mark.parametrize(
    ("preset", "flags", "tunables"),
    [("tiny-cpu", "--docker-if-possible", "hugetlb"), ("qwen3-8b", "--gpu", "none")],
)
def test_a_resumed_run_is_set_up_as_the_one_that_began(preset, flags, tunables, tmp_path):
    """In a copy of the tree where set-up and Python only say how they were called."""
    tree, folder = tmp_path / "tree", tmp_path / "run"
    for path in ("scripts", "verl_ext/config/preset", ".venv/bin", "bin"):
        (tree / path).mkdir(parents=True)
    for name in ("run_job.sh", "run_swe_contextrl.sh"):
        shutil.copy(SCRIPTS / name, tree / "scripts")
    (tree / "verl_ext/config/preset/tiny-cpu.yaml").write_text("job:\n  needs_gpu: false\n")
    (tree / "scripts/setup.sh").write_text('echo "setup $*"\n')
    (tree / ".venv/bin/python").write_text('#!/bin/sh\necho "${GLIBC_TUNABLES:-none}"\n')
    (tree / "bin/nvidia-smi").write_text("#!/bin/sh\nexit 0\n")
    for name in (".venv/bin/python", "bin/nvidia-smi"):
        (tree / name).chmod(0o755)
    folder.mkdir()
    save_whole(compose([f"preset={preset}"]), folder / COMPOSED)
    command = ["bash", "scripts/run_swe_contextrl.sh", "--resume", str(folder)]
    env = {**os.environ, "PATH": f"{tree / 'bin'}:{os.environ['PATH']}"}
    env.pop("GLIBC_TUNABLES", None)
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=True)
    said, tuned = done.stdout.splitlines()
    assert flags in said
    assert tunables in tuned
