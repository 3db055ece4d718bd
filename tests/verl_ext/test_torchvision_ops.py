"""torchvision beside a CPU torch: importable in every process, and free until it is asked for."""

import subprocess
import sys

import torch


def test_importing_the_package_does_not_import_torch():
    script = "import sys, contextrl.verl_ext; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["False"]


def test_torchvision_and_what_needs_it_import():
    import torchvision.transforms.v2
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor  # noqa: F401

    assert torchvision.__version__.startswith("0.")


def test_a_missing_operator_is_an_error_and_not_a_wrong_answer():
    import torchvision

    boxes, scores = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([0.5])
    try:
        kept = torchvision.ops.nms(boxes, scores, 0.5).tolist()
    except (NotImplementedError, RuntimeError):
        return  # refused, as it should be
    assert kept == [0]
