"""Batches that are padded on the right reach the model without a mask, and mean the same."""

import torch

from contextrl.verl_ext.padding import drop_padding_mask

LENGTHS = [9, 4, 6]


def padded(*, left=False):
    mask = torch.tensor([[1] * n + [0] * (9 - n) for n in LENGTHS])
    positions = torch.tensor([[*range(n), *[0] * (9 - n)] for n in LENGTHS])
    ids = torch.randint(1, 50, (3, 9), generator=torch.Generator().manual_seed(0)) * mask
    if left:
        ids, mask, positions = ids.flip(1), mask.flip(1), positions.flip(1)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}


def test_real_tokens_see_what_they_saw_with_the_mask(small_qwen3, monkeypatch):
    model, inputs = small_qwen3(kv_heads=2).eval(), padded()
    with torch.no_grad():
        masked = model(**inputs, use_cache=False).logits
        drop_padding_mask(inputs)
        masks = []
        attention = torch.nn.functional.scaled_dot_product_attention

        def spy(*args, attn_mask=None, **settings):
            masks.append(attn_mask)
            return attention(*args, attn_mask=attn_mask, **settings)

        monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
        without = model(**inputs, use_cache=False).logits
    assert masks == [None, None]
    for row, length in enumerate(LENGTHS):
        assert torch.allclose(masked[row, :length], without[row, :length], atol=1e-5)


def test_padding_on_the_left_keeps_its_mask():
    inputs = padded(left=True)
    before = {name: tensor.clone() for name, tensor in inputs.items()}
    drop_padding_mask(inputs)
    assert all(torch.equal(inputs[name], before[name]) for name in before)


def test_positions_of_images_stay_and_those_of_text_count_on():
    inputs = padded()
    image_B_T = torch.full((3, 9), 7)
    inputs["position_ids"] = torch.stack([inputs["position_ids"], *[image_B_T] * 3])
    given = inputs["position_ids"].clone()
    drop_padding_mask(inputs)
    text, *of_images = inputs["position_ids"]
    assert torch.equal(text, torch.arange(9).expand(3, 9))
    assert all(torch.equal(each, image_B_T) for each in of_images)
    assert torch.equal(given[0, 1, 4:], torch.zeros(5, dtype=torch.long))


def test_packed_batches_have_no_mask_to_drop():
    inputs = {"input_ids": torch.ones(1, 5), "attention_mask": None, "position_ids": torch.ones(5)}
    drop_padding_mask(inputs)
    assert inputs["attention_mask"] is None
    assert torch.equal(inputs["position_ids"], torch.ones(5))
