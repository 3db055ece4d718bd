"""The combined step's gradients, through veRL's FSDP2 engine, against plain autograd."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from contextrl.verl_ext.register import environment

CHECK = Path(__file__).with_name("gradient_check.py")


def check(model, *, ranks, device="cpu", **options):
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={ranks}", str(CHECK), str(model), f"--device={device}", *flags]
    env = {**os.environ, **environment(cpu=device == "cpu"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_combined_gradients_equal_plain_autograd(random_model, ranks):
    found = check(random_model, ranks=ranks)
    print(f"\n{ranks} ranks: relative error {found['relative_error']:.1e}")

    assert found["relative_error"] <= 1e-5
    assert found["margins"] == pytest.approx(found["expected_margins"], abs=1e-5)
    for key, value in found["expected"].items():
        assert found["metrics"][key] == pytest.approx([value], rel=1e-4)


@pytest.mark.slow
def test_gradients_of_sequences_packed_into_one_row(random_model):
    """As the GPU presets run: `use_remove_padding`, with PyTorch's own attention."""
    found = check(random_model, ranks=2, packed=1, micro_batch=2)
    print(f"\n2 ranks, packed: relative error {found['relative_error']:.1e}")

    assert found["relative_error"] <= 1e-5
    assert found["margins"] == pytest.approx(found["expected_margins"], abs=1e-5)


@pytest.mark.slow
def test_gradients_of_images_packed_into_one_row(random_qwen3_vl):
    found = check(random_qwen3_vl, ranks=1, packed=1, micro_batch=2)

    assert found["relative_error"] <= 1e-5
    assert found["vision_gradient"] > 0
    assert found["margins"] == pytest.approx(found["expected_margins"], abs=1e-5)


@pytest.mark.slow
def test_gradients_are_the_same_when_the_norms_are_not_measured(random_model):
    found = check(random_model, ranks=2, measure=0, micro_batch=2)

    assert found["relative_error"] <= 1e-5
    assert "ca/grad_norm" not in found["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_gradients_of_image_and_text_pairs_in_one_batch(random_qwen25_vl, ranks):
    found = check(random_qwen25_vl, ranks=ranks, micro_batch=2)
    print(f"\n{ranks} ranks: relative error {found['relative_error']:.1e}")

    assert found["relative_error"] <= 1e-5
    assert found["vision_gradient"] > 0
    assert found["margins"] == pytest.approx(found["expected_margins"], abs=1e-5)
    for key, value in found["expected"].items():
        assert found["metrics"][key] == pytest.approx([value], rel=1e-4)


@pytest.mark.slow
def test_gradients_with_a_frozen_vision_tower_and_sequences_of_one_length(random_qwen3_vl):
    found = check(random_qwen3_vl, ranks=1, micro_batch=2, one_length=1, freeze=1)

    assert found["relative_error"] <= 1e-5
    assert found["same_parameters"]
    assert found["vision_gradient"] == 0
    assert found["margins"] == pytest.approx(found["expected_margins"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "masked_gradient"), [(1, 0), (2, 0), (2, 1)])
def test_gradients_with_papo_beside_the_ca_loss(random_qwen25_vl, ranks, masked_gradient):
    found = check(
        random_qwen25_vl, ranks=ranks, micro_batch=2, papo=0.3, masked_gradient=masked_gradient
    )
    print(f"\n{ranks} ranks: relative error {found['relative_error']:.1e}, KL {found['kl']:.1e}")

    assert found["relative_error"] <= 1e-5
    assert found["vision_gradient"] > 0
    assert found["kl"] > 0
    if ranks == 1:  # else each rank reports its share
        assert found["kl"] == pytest.approx(found["expected_kl"], rel=1e-4)


@pytest.mark.slow
def test_without_weight_the_margins_are_measured_and_the_gradients_are_grpos_alone(random_model):
    found = check(random_model, ranks=1, lam=0.0)

    assert found["relative_error"] <= 1e-5
    assert set(found["metrics"]) == {
        "ca/loss",
        "ca/accuracy",
        "ca/margin",
        "ca/stuck_frac",
        "ca/saturated_frac",
    }


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif("not __import__('torch').cuda.is_available()", reason="no CUDA device")
def test_combined_gradients_equal_plain_autograd_on_a_gpu(random_model):
    assert check(random_model, ranks=1, device="cuda")["relative_error"] <= 1e-5
