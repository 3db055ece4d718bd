"""Log-probabilities in blocks against PyTorch's own log-softmax."""

import pytest
import torch
from torch import Tensor

from contextrl.verl_ext import token_logprobs as module
from contextrl.verl_ext.token_logprobs import token_logprobs

N_TOKENS, VOCAB = 7, 11


@pytest.fixture(autouse=True)
def blocks_of_three_rows(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", 3 * 4 * VOCAB)


def inputs(dtype: torch.dtype, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    logits = (scale * torch.randn(N_TOKENS, VOCAB, generator=rng)).to(dtype)
    return logits.requires_grad_(), torch.randint(0, VOCAB, (N_TOKENS,), generator=rng)


def plainly(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0]


def test_gradients_to_the_last_digits():
    logits, labels = inputs(torch.float64)
    assert torch.autograd.gradcheck(lambda x: token_logprobs(x, labels, False), logits)


@pytest.mark.parametrize("inplace", [True, False])
def test_a_batch_gives_what_log_softmax_gives(inplace):
    logits, labels = inputs(torch.float32)
    wanted = plainly(logits, labels)
    weights = torch.linspace(-1, 2, N_TOKENS)
    (wanted * weights).sum().backward()
    batch = logits.detach()[None].clone().requires_grad_()
    found = token_logprobs(batch * 1, labels[None], inplace)
    (found[0] * weights).sum().backward()
    torch.testing.assert_close(found[0], wanted)
    torch.testing.assert_close(batch.grad[0], logits.grad)


def test_bfloat16_is_summed_in_float32():
    logits, labels = inputs(torch.bfloat16, scale=20.0)
    found = token_logprobs(logits, labels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, plainly(logits.float(), labels))


def test_logits_that_another_term_still_needs_are_not_overwritten_unseen():
    logits, labels = inputs(torch.float32)
    scores = logits * 1
    total = token_logprobs(scores, labels).sum() + scores.logsumexp(-1).sum()
    total.backward()  # the other term's gradient is taken first: right, whatever comes after it
    wanted = logits.grad.clone()
    logits.grad = None
    scores = logits * 1
    (token_logprobs(scores, labels, False).sum() + scores.logsumexp(-1).sum()).backward()
    torch.testing.assert_close(wanted, logits.grad)

    scores = logits * 1
    total = scores.logsumexp(-1).sum() + token_logprobs(scores, labels).sum()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_a_second_pass_back_is_refused_rather_than_wrong():
    logits, labels = inputs(torch.float32)
    total = token_logprobs(logits * 1, labels).sum()
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()
