"""What the warm-up of the text policy changes in the model while it runs."""

import pytest
import torch

from contextrl.verl_ext import warmup
from contextrl.verl_ext.sft_data import SFTSequence
from contextrl.verl_ext.warmup import FLOAT32_ATTENTION


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_attention_in_float32_is_the_models_own_up_to_bfloat16(small_qwen3, kv_heads):
    model = small_qwen3(kv_heads=kv_heads).model
    ids_B_T = torch.randint(0, 50, (2, 9))
    own = model(input_ids=ids_B_T, use_cache=False).last_hidden_state
    model.set_attn_implementation(FLOAT32_ATTENTION)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = model(input_ids=ids_B_T, use_cache=False).last_hidden_state
        other = model(input_ids=ids_B_T.flip(1), use_cache=False).last_hidden_state
    assert torch.allclose(own, ours, atol=0.05)
    assert not torch.allclose(own, other, atol=0.05)


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ({"avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({"avx512_f": True, "avx512_bf16": True}, torch.bfloat16),
        ({"neon": True, "bf16": True}, torch.bfloat16),
    ],
)
def test_bfloat16_only_where_the_processor_has_it(small_qwen3, monkeypatch, has, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    model = small_qwen3(layers=1)
    model.set_attn_implementation(FLOAT32_ATTENTION)
    used = []
    model.lm_head.register_forward_hook(lambda module, inputs, logits: used.append(logits.dtype))
    loss = warmup.sft_batch_loss(model, [SFTSequence((1, 2, 3), (0.0, 1.0, 1.0))])
    loss.backward()
    assert used == [expected]
    assert loss.dtype == torch.float32
