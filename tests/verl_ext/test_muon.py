"""Our Muon against PyTorch's, which orthogonalises in bfloat16."""

import pytest
import torch

from contextrl.verl_ext.muon import Muon, orthogonal

SHAPES = [(8, 8), (24, 8), (8, 24), (8, 8)]


def walk(make, shapes=SHAPES, steps=4):
    rng = torch.Generator().manual_seed(0)
    matrices = [torch.randn(shape, generator=rng).requires_grad_() for shape in shapes]
    begun = [matrix.detach().clone() for matrix in matrices]
    optimizer = make(matrices)
    for _ in range(steps):
        for matrix in matrices:
            matrix.grad = torch.randn(matrix.shape, generator=rng)
        optimizer.step()
    return [matrix.detach() - start for matrix, start in zip(matrices, begun, strict=True)]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_steps_are_those_of_pytorch_to_the_precision_of_bfloat16(weight_decay):
    ours = walk(lambda matrices: Muon(matrices, lr=0.02, weight_decay=weight_decay))
    theirs = walk(
        lambda matrices: torch.optim.Muon(
            matrices, lr=0.02, weight_decay=weight_decay, adjust_lr_fn="original"
        )
    )
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() < 0.02 * other.norm()


@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 32, 16), (3, 16, 32)])
def test_steps_are_nearly_orthogonal(shape):
    found = orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_a_matrix_without_a_gradient_stays():
    matrix = torch.ones(4, 4, requires_grad=True)
    Muon([matrix], lr=1.0).step()
    assert (matrix == 1).all()


def test_its_state_is_kept_and_taken_up_again():
    def resumed(matrices):
        optimizer = Muon(matrices, lr=0.02)
        again = Muon(matrices, lr=0.02)

        class Twice:
            steps = 0

            def step(self):
                self.steps += 1
                if self.steps == 3:
                    again.load_state_dict(optimizer.state_dict())
                (optimizer if self.steps < 3 else again).step()

        return Twice()

    for one, other in zip(walk(resumed), walk(lambda m: Muon(m, lr=0.02)), strict=True):
        torch.testing.assert_close(one, other)
