"""Attention by length against transformers' own, one image after the other."""

import pytest
import torch

from contextrl.verl_ext.image_attention import attend_by_length

SEVERAL_SIZES = [[1, 4, 4], [1, 8, 2], [1, 2, 2], [1, 4, 8], [1, 4, 4]]


@pytest.mark.parametrize("model", ["random_qwen25_vl", "random_qwen3_vl"])
@pytest.mark.parametrize("grid", [[[1, 4, 4]] * 3, SEVERAL_SIZES])
def test_features_and_gradients_are_those_of_transformers(model, grid, request, monkeypatch):
    from transformers import AutoModelForImageTextToText

    seeing = AutoModelForImageTextToText.from_pretrained(
        request.getfixturevalue(model), attn_implementation="sdpa"
    )
    tower, grid_thw = seeing.model.visual, torch.tensor(grid)
    n_patches = int(grid_thw.prod(dim=1).sum())
    width = tower.patch_embed.proj.weight[0].numel()
    pixels = torch.randn(n_patches, width, generator=torch.Generator().manual_seed(0))

    def seen():
        tower.zero_grad()
        features = tower(pixels, grid_thw=grid_thw).pooler_output
        features.square().sum().backward()
        return features.detach(), [each.grad for each in tower.parameters()]

    wanted = seen()
    attend_by_length(seeing)
    calls = []
    attend = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda query, *args, **kwargs: calls.append(len(query)) or attend(query, *args, **kwargs),
    )
    found = seen()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    n_lengths = len({one[1] * one[2] for one in grid})
    assert len(calls) <= n_lengths * len(tower.blocks)
    assert max(calls) > 1


def test_a_model_of_the_same_configuration_can_be_made_and_saved(random_qwen25_vl, tmp_path):
    """As veRL does for a checkpoint."""
    from transformers import AutoModelForImageTextToText

    seeing = AutoModelForImageTextToText.from_pretrained(random_qwen25_vl)
    attend_by_length(seeing)
    AutoModelForImageTextToText.from_config(seeing.config).save_pretrained(tmp_path)
    assert "contextrl" not in (tmp_path / "config.json").read_text()
    AutoModelForImageTextToText.from_pretrained(tmp_path)


def test_a_model_of_text_stays_as_it_is(small_qwen3):
    model = small_qwen3()
    before = model.config._attn_implementation
    attend_by_length(model)
    assert model.config._attn_implementation == before
