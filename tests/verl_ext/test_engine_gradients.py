"""The combined step's gradients, through veRL's FSDP2 engine, against plain autograd."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from contextrl.verl_ext.register import environment

CHECK = Path(__file__).with_name("gradient_check.py")


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    with checks(tmp_path_factory.mktemp("gradients") / "stderr", "cpu") as ask:
        yield ask


@contextmanager
def checks(log, device):
    """Asks the process of `gradient_check.py`."""
    env = {**os.environ, **environment(cpu=device == "cpu"), "OMP_NUM_THREADS": "1"}
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, str(CHECK)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=env,
            text=True,
        ) as process,
    ):
        assert process.stdin
        assert process.stdout

        def ask(model, case="", *, ranks=1):
            request = {"model": str(model), "case": case, "ranks": ranks, "device": device}
            print(json.dumps(request), file=process.stdin, flush=True)
            while True:  # what libraries print stands beside the answers
                line = process.stdout.readline()
                if not line or line.startswith("{"):
                    break
            found = json.loads(line or "{}")
            assert found, log.read_text()[-3000:]
            return found

        yield ask
        process.stdin.close()


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_combined_gradients_equal_plain_autograd(check, random_model, ranks):
    found = check(random_model, ranks=ranks)
    print(f"\n{ranks} ranks: relative error {found['relative_error']:.1e}")

    assert found["relative_error"] <= 1e-5
    assert found["margins"] == pytest.approx(found["expected_margins"], abs=1e-5)
    for key, value in found["expected"].items():
        assert found["metrics"][key] == pytest.approx([value], rel=1e-4)


@pytest.mark.slow
def test_gradients_of_sequences_packed_into_one_row(check, random_model):
    """As the GPU presets run: `use_remove_padding`, with PyTorch's own attention."""
    found = check(random_model, "packed=1 micro-batch=2", ranks=2)
    print(f"\n2 ranks, packed: relative error {found['relative_error']:.1e}")

    assert found["relative_error"] <= 1e-5
    assert found["margins"] == pytest.approx(found["expected_margins"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("packed", [0, 1])
def test_logits_are_taken_of_sampled_tokens_alone(check, random_model, packed):
    """With what else the logits are for: an entropy bonus, at another temperature."""
    found = check(
        random_model, f"micro-batch=2 packed={packed} temperature=0.6 entropy=0.3 measure=0"
    )

    assert found["relative_error"] <= 1e-5
    assert found["n_logits"] == found["n_sampled"] + 4  # of the pairs, one each


@pytest.mark.slow
def test_an_episode_without_a_sampled_token_changes_nothing(check, random_model):
    found = check(random_model, "nothing-sampled=1", ranks=2)

    assert found["relative_error"] <= 1e-5
    assert found["n_logits"] == found["n_sampled"] + 1 + 2


@pytest.mark.slow
def test_gradients_of_images_packed_into_one_row(check, random_qwen3_vl):
    found = check(random_qwen3_vl, "micro-batch=2 packed=1")

    assert found["relative_error"] <= 1e-5
    assert found["vision_gradient"] > 0
    assert found["margins"] == pytest.approx(found["expected_margins"], abs=1e-5)


@pytest.mark.slow
def test_gradients_are_the_same_when_the_norms_are_not_measured(check, random_model):
    found = check(random_model, "measure=0 micro-batch=2", ranks=2)

    assert found["relative_error"] <= 1e-5
    assert "ca/grad_norm" not in found["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_gradients_of_image_and_text_pairs_in_one_batch(check, random_qwen25_vl, ranks):
    found = check(random_qwen25_vl, "micro-batch=2", ranks=ranks)
    print(f"\n{ranks} ranks: relative error {found['relative_error']:.1e}")

    assert found["relative_error"] <= 1e-5
    assert found["vision_gradient"] > 0
    assert found["margins"] == pytest.approx(found["expected_margins"], abs=1e-5)
    for key, value in found["expected"].items():
        assert found["metrics"][key] == pytest.approx([value], rel=1e-4)


@pytest.mark.slow
def test_gradients_with_a_frozen_vision_tower_and_sequences_of_one_length(check, random_qwen3_vl):
    found = check(random_qwen3_vl, "micro-batch=2 one-length=1 freeze=1")

    assert found["relative_error"] <= 1e-5
    assert found["same_parameters"]
    assert found["vision_gradient"] == 0
    assert found["margins"] == pytest.approx(found["expected_margins"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "masked_gradient"), [(1, 0), (2, 0), (2, 1)])
def test_gradients_with_papo_beside_the_ca_loss(check, random_qwen25_vl, ranks, masked_gradient):
    also = " masked-gradient=1" if masked_gradient else ""
    found = check(random_qwen25_vl, f"micro-batch=2 papo=0.3{also}", ranks=ranks)
    print(f"\n{ranks} ranks: relative error {found['relative_error']:.1e}, KL {found['kl']:.1e}")

    assert found["relative_error"] <= 1e-5
    assert found["vision_gradient"] > 0
    assert found["kl"] > 0
    if ranks == 1:  # else each rank reports its share
        assert found["kl"] == pytest.approx(found["expected_kl"], rel=1e-4)


@pytest.mark.slow
def test_without_weight_the_margins_are_measured_and_the_gradients_are_grpos_alone(
    check, random_model
):
    found = check(random_model, "lam=0")

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
def test_combined_gradients_equal_plain_autograd_on_a_gpu(random_model, tmp_path):
    with checks(tmp_path / "stderr", "cuda") as ask:
        found = ask(random_model)
    assert found["relative_error"] <= 1e-5
