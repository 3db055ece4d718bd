import math

import pytest
import torch

from contextrl.verl_ext.ca_loss import ca_loss, gradient_norms, option_margin


def test_value_of_one_pair_by_hand():
    loss = ca_loss(torch.tensor([1.0]), clip=5.0).loss
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1.0)))


def test_a_coin_toss_costs_log_two_and_counts_as_wrong():
    result = ca_loss(torch.zeros(3), clip=5.0)
    assert result.loss.item() == pytest.approx(math.log(2))
    assert result.metrics["ca/accuracy"] == 0


def test_gradient_is_zero_beyond_the_clip_on_both_sides():
    margin = torch.tensor([-6.0, -4.0, 4.0, 6.0], requires_grad=True)
    ca_loss(margin, clip=5.0).loss.backward()
    assert (margin.grad != 0).tolist() == [False, True, True, False]


def test_stuck_and_saturated_pairs_are_counted():
    metrics = ca_loss(torch.tensor([-6.0, -1.0, 1.0, 6.0, 7.0]), clip=5.0).metrics
    assert metrics["ca/stuck_frac"].item() == pytest.approx(0.2)
    assert metrics["ca/saturated_frac"].item() == pytest.approx(0.4)
    assert metrics["ca/accuracy"].item() == pytest.approx(0.6)
    assert metrics["ca/margin"].item() == pytest.approx(7 / 5)


def test_split_into_micro_batches_gives_the_same_gradient():
    margins = torch.randn(8, generator=torch.Generator().manual_seed(0))
    whole = margins.clone().requires_grad_()
    ca_loss(whole, clip=5.0).loss.backward()
    split = margins.clone().requires_grad_()
    for chunk_B in split.chunk(4):
        (ca_loss(chunk_B, clip=5.0).loss * len(chunk_B) / 8).backward()
    torch.testing.assert_close(whole.grad, split.grad)


def test_metrics_hold_no_graph():
    margin = torch.randn(4, requires_grad=True)
    assert not any(value.requires_grad for value in ca_loss(margin, clip=5.0).metrics.values())


@pytest.mark.parametrize("clip", [0.0, -1.0])
def test_a_clip_that_is_not_positive_is_refused(clip):
    with pytest.raises(ValueError, match="clip must be positive"):
        ca_loss(torch.zeros(1), clip=clip)


def test_the_softmax_normaliser_cancels():
    logits = torch.randn(2, 10)
    correct, other = torch.tensor([[1], [2]]), torch.tensor([[3], [4]])
    shifted = option_margin(logits + 7.0, correct, other)
    torch.testing.assert_close(option_margin(logits, correct, other), shifted)
    logp = logits.log_softmax(-1)
    expected = torch.stack([logp[0, 1] - logp[0, 3], logp[1, 2] - logp[1, 4]])
    torch.testing.assert_close(shifted, expected)


def test_the_likelier_spelling_of_a_letter_counts():
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0]])
    margin = option_margin(logits, torch.tensor([[0, 1]]), torch.tensor([[2, 3]]))
    assert margin.item() == pytest.approx(3.0 - 2.0)


def test_cosine_of_the_two_gradients_from_their_norms():
    ca, grpo = torch.tensor([3.0, 0.0]), torch.tensor([1.0, 1.0])
    found = gradient_norms(ca.norm(), grpo.norm(), (ca + grpo).norm())
    expected = torch.nn.functional.cosine_similarity(ca, grpo, dim=0)
    assert found["ca/grad_cosine"].item() == pytest.approx(expected.item(), abs=1e-6)


def test_cosine_is_zero_when_a_term_vanished():
    zero, one = torch.zeros(()), torch.ones(())
    assert gradient_norms(zero, one, one)["ca/grad_cosine"] == 0
