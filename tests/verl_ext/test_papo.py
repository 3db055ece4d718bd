"""PAPO's masked-image KL: the loss by hand, the masks, the settings."""

import io
import math

import pytest
import torch
from PIL import Image
from rich.console import Console

from contextrl.pairs.encode import encode_prompt
from contextrl.verl_ext.compose import compose
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.image_masking import masked_patches, with_masked_images
from contextrl.verl_ext.papo_loss import MOST_KL, masked_image_kl, papo_loss
from contextrl.verl_ext.settings_papo import PAPOConfig
from contextrl.verl_ext.vision_tokenizer import QwenVisionTokenizer

WEIGHTS = {"coef": 0.02, "entropy_coef": 0.05, "masked_entropy_coef": 0.03}


def test_the_loss_by_hand():
    # Intact: p = 0.5 and 0.8; masked: 0.25 and 0.8; a third token was not sampled by the policy.
    logp = torch.tensor([[0.5, 0.8, 0.1]]).log()
    masked = torch.tensor([[0.25, 0.8, 0.9]]).log()
    found = papo_loss(logp, masked, torch.tensor([[1, 1, 0]]), n_tokens=2, **WEIGHTS)

    kl = (0.5 - 1 - math.log(0.5)) / 2  # r - 1 - log r at r = 0.25 / 0.5, and 0 at r = 1
    entropy = -(math.log(0.5) + math.log(0.8)) / 2
    masked_entropy = -(math.log(0.25) + math.log(0.8)) / 2
    assert found.metrics["papo/kl"].item() == pytest.approx(kl)
    assert found.metrics["papo/entropy"].item() == pytest.approx(entropy)
    assert found.metrics["papo/masked_entropy"].item() == pytest.approx(masked_entropy)
    assert found.loss.item() == pytest.approx(-0.02 * kl + 0.05 * entropy + 0.03 * masked_entropy)


def test_the_kl_alone_pushes_both_policies_apart():
    logp = torch.tensor([[-0.7]], requires_grad=True)
    masked = torch.tensor([[-1.4]])
    papo_loss(
        logp,
        masked,
        torch.ones(1, 1),
        n_tokens=1,
        coef=1.0,
        entropy_coef=0.0,
        masked_entropy_coef=0.0,
    ).loss.backward()
    assert logp.grad.item() == pytest.approx(-(1 - math.exp(-0.7)))  # a step raises logp


def test_the_estimator_is_unbiased_over_the_intact_policy():
    intact, masked = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.2, 0.3, 0.5])
    exact = (intact * (intact / masked).log()).sum()
    estimate = (intact * masked_image_kl(intact.log()[None], masked.log()[None])[0]).sum()
    assert estimate.item() == pytest.approx(exact.item(), rel=1e-5)


def test_a_token_beyond_the_limit_has_no_gradient_and_is_counted():
    logp = torch.tensor([[-9.0, -1.0]], requires_grad=True)
    masked = torch.tensor([[-0.1, -1.5]])
    found = papo_loss(logp, masked, torch.ones(1, 2), n_tokens=2, **{**WEIGHTS, "entropy_coef": 0})
    found.loss.backward()
    assert logp.grad[0, 0] == 0
    assert logp.grad[0, 1] != 0
    assert found.metrics["papo/saturated_frac"] == 0.5
    assert masked_image_kl(torch.tensor([-1e9]), torch.tensor([0.0])) == MOST_KL


def test_micro_batches_add_up_to_the_whole():
    logp, masked = torch.randn(4, 5), torch.randn(4, 5)
    sampled = torch.rand(4, 5) > 0.4
    n_tokens = float(sampled.sum())
    whole = papo_loss(logp, masked, sampled, n_tokens=n_tokens, **WEIGHTS)
    parts = [
        papo_loss(logp[part], masked[part], sampled[part], n_tokens=n_tokens, **WEIGHTS)
        for part in (slice(0, 1), slice(1, 4))
    ]
    torch.testing.assert_close(sum(part.loss for part in parts), whole.loss)
    torch.testing.assert_close(sum(p.metrics["papo/kl"] for p in parts), whole.metrics["papo/kl"])


def test_a_mask_is_a_function_of_seed_step_and_row():
    def mask(**changes):
        return masked_patches(
            400, **{"ratio": 0.6, "seed": 0, "step": 3, "row_id": "chart/1", **changes}
        )

    assert mask().equal(mask())
    assert mask().float().mean().item() == pytest.approx(0.6, abs=0.08)
    assert mask(ratio=1.0).all()
    for change in ({"seed": 1}, {"step": 4}, {"row_id": "chart/2"}):
        assert not mask().equal(mask(**change))


@pytest.mark.parametrize("kind", ["random_qwen25_vl", "random_qwen3_vl"])
def test_masked_features_are_those_of_an_image_with_black_patches(kind, request):
    tokenizer = QwenVisionTokenizer.from_pretrained(request.getfixturevalue(kind))
    processor = tokenizer._images
    noise = torch.randint(1, 256, (42, 56, 3), dtype=torch.uint8)
    file = io.BytesIO()
    Image.fromarray(noise.numpy()).save(file, "PNG")
    _, vision = encode_prompt("<image>?", tokenizer, images=[file.getvalue()], row_id="r")
    inputs = vision.model_inputs()
    masked = with_masked_images(inputs, processor, ratio=0.5, seed=0, step=0)

    changed = (masked["pixel_values"] != inputs["pixel_values"]).any(dim=1)
    assert 0 < changed.sum() < len(changed)
    black = torch.zeros_like(noise)
    file = io.BytesIO()
    Image.fromarray(black.numpy()).save(file, "PNG")
    _, all_black = encode_prompt("<image>?", tokenizer, images=[file.getvalue()], row_id="r")
    torch.testing.assert_close(
        masked["pixel_values"][changed], all_black.pixel_values[changed], atol=1e-5, rtol=0
    )
    assert masked["image_grid_thw"] is inputs["image_grid_thw"]


def test_a_row_without_images_stays_as_it_is():
    assert with_masked_images({}, None, ratio=0.5, seed=0, step=0) == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"coef": -0.1}, "papo.coef must be >= 0"),
        ({"coef": 0.1, "mask_ratio": 0.0}, "papo.mask_ratio must be above 0"),
        ({"entropy_coef": 0.05}, r"papo.entropy_coef needs papo.coef > 0"),
        ({"black_prob": 0.6}, "unknown key papo.black_prob"),
    ],
)
def test_wrong_settings_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        PAPOConfig.from_mapping(values)


def test_off_by_default_and_for_runs_that_stored_no_such_block():
    assert PAPOConfig.from_mapping(compose([]).papo) == PAPOConfig.from_mapping(None)
    assert not PAPOConfig().active


def test_a_run_on_text_refuses_in_one_line():
    from contextrl.scripts.stages import Stages
    from contextrl.scripts.swe_job import run

    with pytest.raises(ConfigError, match=r"expected papo\.coef 0 in a run on text, got 0\.02"):
        run(["papo.coef=0.02"], None, Stages(Console()))
