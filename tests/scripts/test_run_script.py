"""`run_swe_contextrl.sh` refuses what cannot work before it sets anything up."""

import os
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "run_swe_contextrl.sh"


def run(*arguments, path=None):
    env = {**os.environ, **({"PATH": path} if path else {})}
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments], capture_output=True, text=True, env=env, check=False
    )


@pytest.mark.parametrize("preset", ["qwen3-8b", "klear-8b"])
def test_a_gpu_preset_without_a_gpu_stops_at_once_with_one_line(preset, tmp_path):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nexit 9\n")
    smi.chmod(0o755)
    began = time.monotonic()
    done = run(f"preset={preset}", path=f"{tmp_path}:{os.environ['PATH']}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "expects a CUDA GPU" in done.stderr
    assert time.monotonic() - began < 2


def test_an_unknown_preset_lists_the_known_ones():
    done = run("preset=gpt-9")
    assert (done.returncode, done.stdout) == (1, "")
    assert "klear-8b qwen3-8b tiny-cpu" in done.stderr
