"""The warm-up of the tiny vision model: what it is asked, what it learns from."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForImageTextToText

from contextrl.pairs.encode import IMAGE_MARK
from contextrl.pairs.render_images import COMPACT_IMAGES, render_images
from contextrl.pairs.scenes import draw_pair
from contextrl.pairs.types import ImagePair, Order
from contextrl.verl_ext.settings_vl import VLWarmupConfig
from contextrl.verl_ext.vision_tokenizer import QwenVisionTokenizer
from contextrl.verl_ext.warmup_vl import (
    chances_of_replies,
    one_image,
    sft_loss,
    share_right,
    two_images,
    two_words,
    warm_up,
)


@pytest.fixture(scope="module")
def tokenizer(random_qwen25_vl):
    return QwenVisionTokenizer.from_pretrained(random_qwen25_vl)


@pytest.fixture(scope="module")
def scene():
    return draw_pair("colors", 1, 0.0, side=56)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("positive", [False, True])
def test_both_images_are_asked_about_under_their_own_letters(scene, positive, swapped):
    example = two_images(scene, positive, swapped, " Think first.")
    under = dict(zip("AB", example.images, strict=True))
    true_of = {
        id(scene.image_positive): scene.answer_positive,
        id(scene.image_negative): scene.answer_negative,
    }
    letters = [turn.asked.rpartition(": ")[0][-1] for turn in example.turns]
    assert sorted(letters) == ["A", "B"]
    first = scene.image_positive if positive else scene.image_negative
    assert under[letters[0]] is first
    for letter, turn in zip(letters, example.turns, strict=True):
        answer = true_of[id(under[letter])]
        assert turn.reply == f"<think>{letter}</think><answer>{answer}</answer>"


def test_no_letter_is_ever_an_answer_about_images(scene):
    """Which image supports an answer is left to the CA loss."""
    for swapped in (False, True):
        for turn in two_images(scene, True, swapped, "").turns:
            assert "Output A or B" not in turn.asked
            assert "<answer>A" not in turn.reply
            assert "<answer>B" not in turn.reply


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("positive", [False, True])
def test_words_are_chosen_in_the_words_of_a_pair(scene, positive, swapped):
    example = two_words(scene, positive, swapped, COMPACT_IMAGES)
    answer = scene.answer_positive if positive else scene.answer_negative
    pair = ImagePair.model_construct(
        pair_id="p",
        question=scene.question,
        answer=answer,
        positive=SimpleNamespace(image="positive"),
        negative=SimpleNamespace(image="negative"),
    )
    order = Order.POSITIVE_SECOND if swapped else Order.POSITIVE_FIRST
    asked = render_images(pair, order, COMPACT_IMAGES, str.encode).prompt
    for word in (scene.answer_positive, scene.answer_negative)[:: -1 if swapped else 1]:
        asked = asked.replace(IMAGE_MARK, word, 1)
    (turn,) = example.turns
    assert turn.asked == asked
    assert not example.images
    assert f"{turn.reply}:{answer}" in turn.asked.splitlines()[:2]


def test_the_loss_is_that_of_the_replies_and_falls(scene, random_qwen25_vl, tokenizer):
    model = AutoModelForImageTextToText.from_pretrained(random_qwen25_vl, dtype=torch.float32)
    examples = [
        one_image(scene, True, "?"),
        two_images(scene, False, True, "?"),
        two_words(scene, True, True, COMPACT_IMAGES),
    ]
    assert share_right(model, tokenizer, examples) == 0
    losses = [float(sft_loss(model, tokenizer, [example]).detach()) for example in examples]
    counts = [
        sum(len(tokenizer.encode(turn.reply)) + 1 for turn in example.turns) for example in examples
    ]
    both = sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)
    before = float(sft_loss(model, tokenizer, examples).detach())
    assert before == pytest.approx(both, rel=1e-4)

    config = dataclasses.replace(VLWarmupConfig(), steps=120, one_image_steps=20, batch_size=2)
    warm_up(model, tokenizer, lambda rng: scene, config, style=COMPACT_IMAGES, format_prompt="?")
    assert float(sft_loss(model, tokenizer, examples).detach()) < before / 2

    # The loss is the mean of -log p over a reply's tokens.
    chances = chances_of_replies(model, tokenizer, examples)
    for chance, example, count in zip(chances, examples, counts, strict=True):
        loss = float(sft_loss(model, tokenizer, [example]).detach())
        assert 0 < chance < 1
        assert math.log(chance) == pytest.approx(-loss * count, rel=1e-3)
