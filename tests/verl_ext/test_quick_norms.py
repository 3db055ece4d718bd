"""Our RMS norms against those of transformers."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from contextrl.verl_ext.quick_norms import quicken_norms, rms_norm


@pytest.mark.parametrize("shape", [(3, 5, 16), (2, 5, 4, 16), (7, 16)])
def test_values_and_gradients_are_those_of_transformers(shape):
    rng = torch.Generator().manual_seed(0)
    usual = Qwen3RMSNorm(16, eps=1e-4)
    with torch.no_grad():
        usual.weight.copy_(torch.randn(16, generator=rng))
    grad = torch.randn(shape, generator=rng)
    hidden = torch.randn(shape, generator=rng).mul(0.05).requires_grad_()

    wanted = usual(hidden)
    wanted.backward(grad)
    theirs = hidden.grad.clone(), usual.weight.grad.clone()
    hidden.grad = usual.weight.grad = None
    found = rms_norm(hidden, usual.weight, 1e-4)
    found.backward(grad)

    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close((hidden.grad, usual.weight.grad), theirs, rtol=1e-5, atol=1e-5)


def test_gradients_to_the_last_digits():
    rng = torch.Generator().manual_seed(1)
    hidden = torch.randn(2, 3, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, generator=rng, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, 1e-3), (hidden, weight))


def test_a_model_computes_what_it_did_and_what_is_not_float32_goes_the_usual_way():
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = Qwen2ForCausalLM(config).eval()
    ids = torch.arange(6)[None]
    wanted = model(ids).logits
    names = set(model.state_dict())
    quicken_norms(model)
    found = model(ids).logits
    assert "_RMSNorm" in _names_below(found.grad_fn)
    torch.testing.assert_close(found, wanted)
    assert set(model.state_dict()) == names
    assert "_RMSNorm" not in _names_below(model.to(torch.bfloat16)(ids).logits.grad_fn)


def _names_below(node):
    seen, waiting = set(), [node]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [below for below, _ in node.next_functions]
    return {type(each).__name__.removesuffix("Backward") for each in seen}
