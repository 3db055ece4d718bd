"""torchvision beside a CPU torch: importable in every process, and free until it is asked for."""

import subprocess
import sys
import textwrap


def run(script):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


def test_torchvision_and_what_needs_it_import_and_no_operator_answers_wrongly():
    found = run(
        """
        import sys
        import contextrl.verl_ext
        print("torch" in sys.modules)
        import torch, torchvision.transforms.v2
        from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor
        print(torchvision.__version__)
        boxes, scores = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([0.5])
        try:
            print(torchvision.ops.nms(boxes, scores, 0.5).tolist() == [0])
        except (NotImplementedError, RuntimeError):
            print("refused")
        """
    )
    assert found[0] == "False"
    assert found[1].startswith("0.")
    assert found[2] in ("True", "refused")
