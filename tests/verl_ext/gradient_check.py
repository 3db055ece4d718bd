"""One rank of the gradient check: the engine's gradients against plain autograd on the whole model.

Run by torchrun from test_engine_gradients.py; prints one JSON line from rank 0.
"""

import argparse
import json
from functools import partial

import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM
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

from contextrl.pairs.render import EncodedPair
from contextrl.verl_ext.engine import REQUEST_KEY, CARequest
from contextrl.verl_ext.settings import CAConfig

PROMPT_LENGTHS, RESPONSE_LENGTHS = [5, 7, 6, 9], [4, 6, 5, 3]
VOCAB = 1000


class FixedPairs:
    """Stands in for a pair file: the drawn index is the pair."""

    def __init__(self, config, pairs):
        self.config, self.pairs = config, pairs

    def __len__(self):
        return len(self.pairs)

    def encoded(self, draw):
        return self.pairs[draw.index]


def random_episodes(rng):
    prompts = [torch.randint(5, VOCAB, (n,), generator=rng) for n in PROMPT_LENGTHS]
    responses = [torch.randint(5, VOCAB, (n,), generator=rng) for n in RESPONSE_LENGTHS]
    advantages = [torch.randn(1, generator=rng).expand(n).clone() for n in RESPONSE_LENGTHS]
    masks = [(torch.rand(n, generator=rng) > 0.3).long() for n in RESPONSE_LENGTHS]
    for mask in masks:
        mask[0] = 1
    return prompts, responses, advantages, masks


def response_logprobs(model, prompt, response):
    ids = torch.cat([prompt, response])[None]
    logp = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    return logp[len(prompt) - 1 : -1].gather(1, response[:, None])[:, 0]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--lam", type=float, default=0.7)
    parser.add_argument("--measure", type=int, default=1)
    parser.add_argument("--micro-batch", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()

    on_gpu = args.device == "cuda"
    dist.init_process_group("nccl" if on_gpu else "cpu:gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    if on_gpu:
        torch.cuda.set_device(rank)

    model_config = HFModelConfig(
        path=args.model,
        use_remove_padding=False,
        enable_gradient_checkpointing=False,
        override_config={"attn_implementation": "sdpa"},
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
            use_remove_padding=False,
        ),
        FSDPOptimizerConfig(lr=1e-3, total_training_steps=10),
        CheckpointConfig(),
    )
    engine.initialize()

    rng = torch.Generator().manual_seed(0)
    prompts, responses, advantages, masks = random_episodes(rng)
    reference = AutoModelForCausalLM.from_pretrained(
        args.model, dtype=torch.float32, attn_implementation="sdpa"
    ).to(args.device)
    move = [x.to(args.device) for x in (*prompts, *responses, *advantages, *masks)]
    prompts, responses, advantages, masks = (move[i * 4 : i * 4 + 4] for i in range(4))
    with torch.no_grad():
        old = [
            response_logprobs(reference, p, r)
            + 0.05 * torch.randn(len(r), generator=rng).to(r.device)
            for p, r in zip(prompts, responses, strict=True)
        ]
    pairs = [
        EncodedPair(
            pair_id=str(k),
            token_ids=tuple(torch.randint(5, VOCAB, (4 + 3 * k,), generator=rng).tolist()),
            correct_ids=(10 + k, 40 + k) if k % 2 else (10 + k,),
            other_ids=(20 + k, 60 + k) if k % 2 else (20 + k,),
        )
        for k in range(4)
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
    nested = lambda rows: torch.nested.as_nested_tensor(  # noqa: E731
        [rows[i] for i in mine], layout=torch.jagged
    )
    joined = [torch.cat([p, r]) for p, r in zip(prompts, responses, strict=True)]
    positions = [torch.arange(len(ids), device=ids.device) for ids in joined]
    batch = tu.get_tensordict(
        {
            "prompts": nested(prompts),
            "responses": nested(responses),
            "input_ids": nested(joined),
            "position_ids": nested(positions),
            "response_mask": nested(masks),
            "loss_mask": nested(masks),
            "old_log_probs": nested(old),
            "advantages": nested(advantages),
        },
        non_tensor_dict={
            "temperature": 1.0,
            "global_batch_size": 4,
            "use_remove_padding": False,
            "use_dynamic_bsz": False,
            "micro_batch_size_per_gpu": args.micro_batch,
            "calculate_entropy": False,
        },
    )
    tu.assign_non_tensor(
        batch, **{REQUEST_KEY: CARequest(config=ca, train_step=0, updates_per_step=1)}
    )
    actor = FSDPActorConfig(
        strategy="fsdp2",
        rollout_n=1,
        ppo_mini_batch_size=4,
        ppo_micro_batch_size_per_gpu=1,
        use_dynamic_bsz=False,
        loss_agg_mode="token-mean",
    )
    with engine.train_mode():
        engine.optimizer_zero_grad()
        output = engine.forward_backward_batch(batch, partial(ppo_loss, config=actor))
        ours = {name: p.grad.full_tensor() for name, p in engine.module.named_parameters()}
    with engine.eval_mode():
        margins = engine.ca_margins(pairs, micro_batch_size=args.micro_batch)

    def backward(loss):
        reference.zero_grad()
        loss.backward(retain_graph=True)
        grads = [p.grad.clone() for p in reference.parameters()]
        return grads, torch.nn.utils.get_total_norm(grads).item()

    n_tokens = sum(mask.sum() for mask in masks)
    grpo = 0.0
    for p, r, o, a, m in zip(prompts, responses, old, advantages, masks, strict=True):
        ratio = (response_logprobs(reference, p, r) - o).exp()
        grpo += (torch.maximum(-a * ratio, -a * ratio.clamp(0.8, 1.2)) * m).sum() / n_tokens
    expected_margins = []
    contrast = 0.0
    for pair in pairs:
        ids = torch.tensor([pair.token_ids], device=args.device)
        logits = reference(input_ids=ids, use_cache=False).logits[0, -1]
        margin = logits[list(pair.correct_ids)].max() - logits[list(pair.other_ids)].max()
        expected_margins.append(margin.item())
        contrast -= torch.nn.functional.logsigmoid(margin.clamp(-1.0, 1.0)) / len(pairs)
    _, grpo_norm = backward(grpo)
    _, ca_norm = backward(args.lam * contrast)
    backward(grpo + args.lam * contrast)
    error = max(
        (ours[name] - p.grad).abs().max().item() / (p.grad.abs().max().item() + 1e-12)
        for name, p in reference.named_parameters()
    )
    if rank == 0:
        metrics = {k: v for k, v in output["metrics"].items() if k.startswith("ca/")}
        print(
            json.dumps(
                {
                    "relative_error": error,
                    "metrics": metrics,
                    "expected": {"ca/grad_norm": ca_norm, "ca/grad_norm_grpo": grpo_norm},
                    "margins": margins,
                    "expected_margins": expected_margins,
                }
            )
        )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
