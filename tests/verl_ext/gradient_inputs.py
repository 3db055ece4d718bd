"""What the gradient check feeds: episodes and pairs, of text or of images and text mixed."""

import io
import types
from dataclasses import dataclass

import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from contextrl.pairs.encode import encode, encode_prompt
from contextrl.pairs.render import EncodedPair
from contextrl.pairs.types import Order, RenderedPair
from contextrl.verl_ext.vision import extended, is_vision
from contextrl.verl_ext.vision_tokenizer import QwenVisionTokenizer

PROMPT_LENGTHS, RESPONSE_LENGTHS = [5, 7, 6, 9], [4, 6, 5, 3]
VOCAB = 1000


@dataclass
class Episode:
    prompt: torch.Tensor
    response: torch.Tensor
    advantage: torch.Tensor
    mask: torch.Tensor
    vision: object = None

    @property
    def ids(self):
        return torch.cat([self.prompt, self.response])

    @property
    def positions(self):
        if self.vision is None:
            return torch.arange(len(self.ids), device=self.ids.device)
        return extended(self.vision.positions, len(self.response))


class PlainModel:
    """The reference: transformers as it is, even after veRL has patched the model's class."""

    def __init__(self, path, device):
        self.sees = is_vision(AutoConfig.from_pretrained(path))
        kind = AutoModelForImageTextToText if self.sees else AutoModelForCausalLM
        self.module = kind.from_pretrained(
            path, dtype=torch.float32, attn_implementation="sdpa"
        ).to(device)
        for module in (self.module, getattr(self.module, "model", None)):
            if self.sees:
                module.forward = types.MethodType(type(module).forward, module)

    def logits(self, ids, vision):
        inputs = {}
        if vision is not None:
            positions = extended(vision.positions, len(ids) - vision.positions.shape[1])
            inputs = {"position_ids": positions[:, None]}
            if vision.pixel_values is not None:
                inputs |= {
                    "pixel_values": vision.pixel_values,
                    "image_grid_thw": vision.grid_thw,
                }
        return self.module(input_ids=ids[None], use_cache=False, **inputs).logits[0]


def text_inputs(rng):
    """Four episodes and four pairs of random tokens."""
    prompts = [torch.randint(5, VOCAB, (n,), generator=rng) for n in PROMPT_LENGTHS]
    episodes = _episodes(prompts, [None] * 4, VOCAB, rng)
    pairs = [
        EncodedPair(
            pair_id=str(k),
            token_ids=tuple(torch.randint(5, VOCAB, (4 + 3 * k,), generator=rng).tolist()),
            correct_ids=(10 + k, 40 + k) if k % 2 else (10 + k,),
            other_ids=(20 + k, 60 + k) if k % 2 else (20 + k,),
        )
        for k in range(4)
    ]
    return episodes, pairs


def vision_inputs(path, rng, *, one_length):
    """Episodes with one image, two images and none; two pairs of images and two of text.

    With `one_length` every sequence of a micro-batch has the same length, which veRL's own padding
    does not survive.
    """
    tokenizer = QwenVisionTokenizer.from_pretrained(path)
    sizes = (
        [(28, 28), (28, 28), (28, 28), (28, 28)]
        if one_length
        else [(28, 56), (42, 28), (70, 28), (28, 28)]
    )
    shown = [1, 1, 1, 1] if one_length else [1, 2, 0, 1]
    prompts, seen = [], []
    for k, (size, n_images) in enumerate(zip(sizes, shown, strict=True)):
        ids, vision = encode_prompt(
            "<image>" * n_images + "what is it?",
            tokenizer,
            images=[_noise(size, rng) for _ in range(n_images)],
            row_id=f"episode-{k}",
        )
        prompts.append(torch.tensor(ids))
        seen.append(vision)
    n_words = min(tokenizer.vision_token_ids | {len(tokenizer.tokenizer)})
    lengths = [5] * 4 if one_length else RESPONSE_LENGTHS
    episodes = _episodes(prompts, seen, len(tokenizer.tokenizer), rng, lengths, low=n_words + 5)
    pairs = []
    for k in range(4):
        images = () if k % 2 and not one_length else (_noise((28, 42), rng), _noise((28, 42), rng))
        prompt = "A:<image> B:<image> red?" if images else "A: red B: blue red?"
        rendered = RenderedPair(
            pair_id=f"pair-{k}",
            order=Order.POSITIVE_FIRST,
            prompt=prompt + "\nOutput A or B directly.",
            prefill="",
            correct="AB"[k // 2],
            images=images,
        )
        pairs.append(encode(rendered, tokenizer))
    return episodes, pairs


def _episodes(prompts, seen, vocab, rng, lengths=RESPONSE_LENGTHS, low=5):
    responses = [torch.randint(low, vocab, (n,), generator=rng) for n in lengths]
    advantages = [torch.randn(1, generator=rng).expand(n).clone() for n in lengths]
    masks = [(torch.rand(n, generator=rng) > 0.3).long() for n in lengths]
    for mask in masks:
        mask[0] = 1
    return [
        Episode(*each) for each in zip(prompts, responses, advantages, masks, seen, strict=True)
    ]


def _noise(size, rng):
    values = torch.randint(0, 256, (size[1], size[0], 3), generator=rng, dtype=torch.uint8)
    out = io.BytesIO()
    Image.fromarray(values.numpy()).save(out, "PNG")
    return out.getvalue()
