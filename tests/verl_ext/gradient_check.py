"""The gradient checks: the engine's gradients against plain autograd on the whole model.

A process that test_engine_gradients.py starts once and asks line by line: importing veRL takes ten
times as long as a check. Each check runs in processes of its own, a rank each, forked off this one
(spawned for a GPU), so that what veRL patches in one is not seen by the next.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from gradient_inputs import PlainModel, text_inputs, vision_inputs
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.workers.config import (
    FSDPActorConfig,
    FSDPEngineConfig,
    FSDPOptimizerConfig,
    HFModelConfig,
)
from verl.workers.engine import EngineRegistry
from verl.workers.utils.losses import ppo_loss

from contextrl.verl_ext.collate import jagged
from contextrl.verl_ext.engine import REQUEST_KEY, CARequest
from contextrl.verl_ext.image_masking import masked_patches
from contextrl.verl_ext.papo import REQUEST_KEY as PAPO_KEY
from contextrl.verl_ext.papo import PAPORequest
from contextrl.verl_ext.settings import CAConfig
from contextrl.verl_ext.settings_papo import PAPOConfig
from contextrl.verl_ext.vision import freeze_vision_tower


class FixedPairs:
    """Stands in for a pair file: the drawn index is the pair."""

    def __init__(self, config, pairs):
        self.config, self.pairs = config, pairs

    def __len__(self):
        return len(self.pairs)

    def encoded(self, draw):
        return self.pairs[draw.index]


def response_logp(model, episode, vision=None, temperature=1.0):
    """Of every word at each place of the reply."""
    logits = model.logits(episode.ids, vision or episode.vision) / temperature
    return logits.log_softmax(-1)[len(episode.prompt) - 1 : -1]


def response_logprobs(model, episode, vision=None, temperature=1.0):
    logp = response_logp(model, episode, vision, temperature)
    return logp.gather(1, episode.response[:, None])[:, 0]


def masked(vision, processor, papo, step):
    """`vision` as the reference masks it: the same patches, blackened in a loop."""
    if vision is None or vision.pixel_values is None:
        return vision
    patches = vision.pixel_values.clone()
    chosen = masked_patches(
        len(patches), ratio=papo.mask_ratio, seed=papo.seed, step=step, row_id=vision.row_id
    )
    per_colour = patches.shape[1] // 3
    for colour, (mean, std) in enumerate(
        zip(processor.image_mean, processor.image_std, strict=True)
    ):
        for patch in chosen.nonzero()[:, 0].tolist():
            patches[patch, colour * per_colour : (colour + 1) * per_colour] = (0 - mean) / std
    return dataclasses.replace(vision, pixel_values=patches)


def parse(case):
    """`lam=0 packed=1` as options."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lam", type=float, default=0.7)
    parser.add_argument("--measure", type=int, default=1)
    parser.add_argument("--micro-batch", type=int, default=1)
    parser.add_argument("--one-length", type=int, default=0)
    parser.add_argument("--freeze", type=int, default=0)
    parser.add_argument("--packed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--entropy", type=float, default=0.0)
    parser.add_argument("--nothing-sampled", type=int, default=0)
    parser.add_argument("--papo", type=float, default=0.0)
    parser.add_argument("--masked-gradient", type=int, default=0)
    return parser.parse_args([f"--{option}" for option in case.split()])


def main():
    """Requests on standard input, a JSON object a line: model, case, ranks and device."""
    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), flush=True)


def answer(model, case, ranks, device):
    """What rank 0 found; `{}` when a rank failed, which is on standard error."""
    context = multiprocessing.get_context("fork" if device == "cpu" else "spawn")
    receiving, sending = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        args = parse(case)
        args.model, args.device, args.meeting = model, device, str(Path(folder, "meeting"))
        processes = [
            context.Process(target=run_rank, args=(rank, ranks, args, sending), daemon=True)
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        try:
            for process in processes:
                process.join(300)
                if process.exitcode != 0:
                    return {}
        finally:
            for process in processes:
                process.kill()
                process.join()
        return receiving.recv()


def run_rank(rank, world, args, sending):
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world)
    )
    on_gpu = args.device == "cuda"
    dist.init_process_group(
        "nccl" if on_gpu else "cpu:gloo",
        init_method=f"file://{args.meeting}",
        rank=rank,
        world_size=world,
    )
    if on_gpu:
        torch.cuda.set_device(rank)
    found = check(args)
    if rank == 0:
        sending.send(found)
    dist.destroy_process_group()


def check(args):
    rank, world = dist.get_rank(), dist.get_world_size()
    reference = PlainModel(args.model, args.device)
    if args.freeze:
        freeze_vision_tower(reference.module)
    model_config = HFModelConfig(
        path=args.model,
        use_remove_padding=bool(args.packed),
        enable_gradient_checkpointing=False,
        override_config={"attn_implementation": "sdpa", "freeze_vision_tower": bool(args.freeze)},
        lora={"merge": False},
    )
    model_config.model_type = "language_model"
    engine = EngineRegistry.new(
        "language_model",
        "fsdp2",
        model_config,
        FSDPEngineConfig(
            strategy="fsdp2",
            mixed_precision={"param_dtype": "fp32", "reduce_dtype": "fp32"},
            use_torch_compile=False,
            use_dynamic_bsz=False,
            micro_batch_size_per_gpu=args.micro_batch,
            use_remove_padding=bool(args.packed),
        ),
        FSDPOptimizerConfig(lr=1e-3, total_training_steps=10),
        CheckpointConfig(),
    )
    engine.initialize()

    rng = torch.Generator().manual_seed(0)
    episodes, pairs = (
        vision_inputs(args.model, rng, one_length=bool(args.one_length))
        if reference.sees
        else text_inputs(rng)
    )
    for episode in episodes:
        for name in ("prompt", "response", "advantage", "mask"):
            setattr(episode, name, getattr(episode, name).to(args.device))
    if args.nothing_sampled:  # in the first micro-batch
        episodes[0].mask = torch.zeros_like(episodes[0].mask)
    with torch.no_grad():
        old = [
            response_logprobs(reference, episode, temperature=args.temperature)
            + 0.05 * torch.randn(len(episode.response), generator=rng).to(args.device)
            for episode in episodes
        ]
    ca = CAConfig(
        lam=args.lam,
        clip=1.0,
        pairs="fixed",
        pairs_per_step=4,
        micro_batch_size=args.micro_batch,
        grad_norm_every=args.measure,
    )
    engine._pairs = FixedPairs(ca, pairs)

    mine = list(range(rank, 4, world))

    def nested(rows):
        return jagged([rows[i] for i in mine])

    batch = tu.get_tensordict(
        {
            "prompts": nested([episode.prompt for episode in episodes]),
            "responses": nested([episode.response for episode in episodes]),
            "input_ids": nested([episode.ids for episode in episodes]),
            "position_ids": nested([episode.positions for episode in episodes]),
            "response_mask": nested([episode.mask for episode in episodes]),
            "loss_mask": nested([episode.mask for episode in episodes]),
            "old_log_probs": nested(old),
            "advantages": nested([episode.advantage for episode in episodes]),
            **(
                {"multi_modal_inputs": [episodes[i].vision.model_inputs() for i in mine]}
                if reference.sees
                else {}
            ),
        },
        non_tensor_dict={
            "temperature": args.temperature,
            "global_batch_size": 4,
            "use_remove_padding": bool(args.packed),
            "use_dynamic_bsz": False,
            "micro_batch_size_per_gpu": args.micro_batch,
            "calculate_entropy": args.entropy > 0,
        },
    )
    tu.assign_non_tensor(
        batch, **{REQUEST_KEY: CARequest(config=ca, train_step=0, updates_per_step=1)}
    )
    papo = PAPOConfig(
        coef=args.papo,
        entropy_coef=args.papo / 2,
        masked_entropy_coef=args.papo / 3,
        masked_gradient=bool(args.masked_gradient),
        seed=3,
    )
    if papo.active:
        tu.assign_non_tensor(batch, **{PAPO_KEY: PAPORequest(config=papo, train_step=5)})
    actor = FSDPActorConfig(
        strategy="fsdp2",
        rollout_n=1,
        ppo_mini_batch_size=4,
        ppo_micro_batch_size_per_gpu=1,
        use_dynamic_bsz=False,
        loss_agg_mode="token-mean",
        entropy_coeff=args.entropy,
    )
    n_logits = 0

    def count(_, __, logits):
        nonlocal n_logits
        n_logits += logits.shape[0] * logits.shape[1]

    engine.module.get_output_embeddings().register_forward_hook(count)
    with engine.train_mode():
        engine.optimizer_zero_grad()
        output = engine.forward_backward_batch(batch, partial(ppo_loss, config=actor))
        ours = {
            name: p.grad.full_tensor()
            for name, p in engine.module.named_parameters()
            if p.grad is not None
        }
        n_taken = n_logits
    with engine.eval_mode():
        margins = engine.ca_margins(pairs, micro_batch_size=args.micro_batch)

    def backward(loss):
        reference.module.zero_grad()
        loss.backward(retain_graph=True)
        grads = [p.grad.clone() for p in reference.module.parameters() if p.grad is not None]
        return grads, torch.nn.utils.get_total_norm(grads).item()

    n_tokens = sum(episode.mask.sum() for episode in episodes)
    grpo = 0.0
    for episode, o in zip(episodes, old, strict=True):
        a, m = episode.advantage, episode.mask
        logp = response_logp(reference, episode, temperature=args.temperature)
        ratio = (logp.gather(1, episode.response[:, None])[:, 0] - o).exp()
        grpo += (torch.maximum(-a * ratio, -a * ratio.clamp(0.8, 1.2)) * m).sum() / n_tokens
        entropy = -(logp.exp() * logp).sum(-1)
        grpo -= args.entropy * (entropy * m).sum() / n_tokens
    kl = 0.0
    for episode in episodes if papo.active else []:
        logp = response_logprobs(reference, episode)
        blind = masked(episode.vision, model_config.processor.image_processor, papo, 5)
        masked_logp = response_logprobs(reference, episode, blind)
        masked_logp = masked_logp if args.masked_gradient else masked_logp.detach()
        each = (masked_logp - logp).exp() - (masked_logp - logp) - 1
        kl += (each.detach() * episode.mask).sum().item() / n_tokens.item()
        values = (
            -papo.coef * each - papo.entropy_coef * logp - papo.masked_entropy_coef * masked_logp
        )
        grpo += (values * episode.mask).sum() / n_tokens
    expected_margins = []
    contrast = 0.0
    for pair in pairs:
        ids = torch.tensor(pair.token_ids, device=args.device)
        logits = reference.logits(ids, pair.vision)[-1]
        margin = logits[list(pair.correct_ids)].max() - logits[list(pair.other_ids)].max()
        expected_margins.append(margin.item())
        contrast -= torch.nn.functional.logsigmoid(margin.clamp(-1.0, 1.0)) / len(pairs)
    _, grpo_norm = backward(grpo)
    _, ca_norm = backward(args.lam * contrast)
    backward(grpo + args.lam * contrast)
    error = max(
        (ours[name] - p.grad).abs().max().item() / (p.grad.abs().max().item() + 1e-12)
        for name, p in reference.module.named_parameters()
        if p.grad is not None
    )
    vision_gradient = sum(
        float(p.grad.abs().sum())
        for name, p in reference.module.named_parameters()
        if "visual" in name and p.grad is not None
    )
    metrics = {k: v for k, v in output["metrics"].items() if k.startswith("ca/")}
    return {
        "relative_error": error,
        "vision_gradient": vision_gradient,
        "same_parameters": set(ours)
        == {n for n, p in reference.module.named_parameters() if p.grad is not None},
        "metrics": metrics,
        "n_logits": n_taken,
        "n_sampled": sum(int(episodes[i].mask.sum()) for i in mine),
        "kl": output["metrics"]["papo/kl"].aggregate() if papo.active else 0.0,
        "expected_kl": kl,
        "expected": {"ca/grad_norm": ca_norm, "ca/grad_norm_grpo": grpo_norm},
        "margins": margins,
        "expected_margins": expected_margins,
    }


if __name__ == "__main__":
    main()
