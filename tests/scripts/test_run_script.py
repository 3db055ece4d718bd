"""The jobs' scripts refuse what cannot work before they set anything up."""

import os
import subprocess
import time
from pathlib import Path

import pytest

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
    assert time.monotonic() - began < 2


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
