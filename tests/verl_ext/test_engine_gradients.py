"""The combined step's gradients, through veRL's FSDP2 engine, against plain autograd."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from contextrl.verl_ext.register import environment

CHECK = Path(__file__).with_name("gradient_check.py")


TEXT = {
    1: ["", "lam=0"],
    2: ["", "packed=1 micro-batch=2", "measure=0 micro-batch=2"],
}
"""By ranks: what is checked in one go, with a model of text."""
QWEN3 = {1: ["micro-batch=2 one-length=1 freeze=1", "micro-batch=2 packed=1"]}


def run(model, cases, *, ranks, device="cpu"):
    """What each case gave."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={ranks}", str(CHECK), str(model), device, *cases]
    env = {**os.environ, **environment(cpu=device == "cpu"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(zip(cases, lines, strict=True))


def once(model, by_ranks):
    found = {}

    def checked(case, *, ranks):
        if ranks not in found:
            found[ranks] = run(model, by_ranks[ranks], ranks=ranks)
        return found[ranks][case]

    return checked


@pytest.fixture(scope="module")
def text(random_model):
    return once(random_model, TEXT)


@pytest.fixture(scope="module")
def qwen25(random_qwen25_vl):
    """Each case alone: veRL patches the classes of Qwen2.5-VL, and so the next case's reference."""
    return lambda case, *, ranks: run(random_qwen25_vl, [case], ranks=ranks)[case]


@pytest.fixture(scope="module")
def qwen3(random_qwen3_vl):
    return once(random_qwen3_vl, QWEN3)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_combined_gradients_equal_plain_autograd(text, ranks):
    found = text("", ranks=ranks)
    print(f"\n{ranks} ranks: relative error {found['relative_error']:.1e}")

    assert found["relative_error"] <= 1e-5
    assert found["margins"] == pytest.approx(found["expected_margins"], abs=1e-5)
    for key, value in found["expected"].items():
        assert found["metrics"][key] == pytest.approx([value], rel=1e-4)


@pytest.mark.slow
def test_gradients_of_sequences_packed_into_one_row(text):
    """As the GPU presets run: `use_remove_padding`, with PyTorch's own attention."""
    found = text("packed=1 micro-batch=2", ranks=2)
    print(f"\n2 ranks, packed: relative error {found['relative_error']:.1e}")

    assert found["relative_error"] <= 1e-5
    assert found["margins"] == pytest.approx(found["expected_margins"], abs=1e-5)


@pytest.mark.slow
def test_gradients_of_images_packed_into_one_row(qwen3):
    found = qwen3("micro-batch=2 packed=1", ranks=1)

    assert found["relative_error"] <= 1e-5
    assert found["vision_gradient"] > 0
    assert found["margins"] == pytest.approx(found["expected_margins"], abs=1e-5)


@pytest.mark.slow
def test_gradients_are_the_same_when_the_norms_are_not_measured(text):
    found = text("measure=0 micro-batch=2", ranks=2)

    assert found["relative_error"] <= 1e-5
    assert "ca/grad_norm" not in found["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_gradients_of_image_and_text_pairs_in_one_batch(qwen25, ranks):
    found = qwen25("micro-batch=2", ranks=ranks)
    print(f"\n{ranks} ranks: relative error {found['relative_error']:.1e}")

    assert found["relative_error"] <= 1e-5
    assert found["vision_gradient"] > 0
    assert found["margins"] == pytest.approx(found["expected_margins"], abs=1e-5)
    for key, value in found["expected"].items():
        assert found["metrics"][key] == pytest.approx([value], rel=1e-4)


@pytest.mark.slow
def test_gradients_with_a_frozen_vision_tower_and_sequences_of_one_length(qwen3):
    found = qwen3("micro-batch=2 one-length=1 freeze=1", ranks=1)

    assert found["relative_error"] <= 1e-5
    assert found["same_parameters"]
    assert found["vision_gradient"] == 0
    assert found["margins"] == pytest.approx(found["expected_margins"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "masked_gradient"), [(1, 0), (2, 0), (2, 1)])
def test_gradients_with_papo_beside_the_ca_loss(qwen25, ranks, masked_gradient):
    also = " masked-gradient=1" if masked_gradient else ""
    found = qwen25(f"micro-batch=2 papo=0.3{also}", ranks=ranks)
    print(f"\n{ranks} ranks: relative error {found['relative_error']:.1e}, KL {found['kl']:.1e}")

    assert found["relative_error"] <= 1e-5
    assert found["vision_gradient"] > 0
    assert found["kl"] > 0
    if ranks == 1:  # else each rank reports its share
        assert found["kl"] == pytest.approx(found["expected_kl"], rel=1e-4)


@pytest.mark.slow
def test_without_weight_the_margins_are_measured_and_the_gradients_are_grpos_alone(text):
    found = text("lam=0", ranks=1)

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
    (found,) = run(random_model, [""], ranks=1, device="cuda").values()
    assert found["relative_error"] <= 1e-5
