"""`contextrl bench logprobs`: time and memory of a sequence's log-probabilities, three ways."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Annotated

import typer

from contextrl.scripts.console import ScriptError

WAYS = {
    "blocks": "ours",
    "tokens": "veRL without flash-attn",
    "log-softmax": "torch.log_softmax",
}


def logprobs(
    tokens: Annotated[int, typer.Option(help="Length of the sequence.")] = 2048,
    vocab: Annotated[int, typer.Option(help="Size of the vocabulary; Qwen3's if not said.")] = (
        151_936
    ),
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
) -> None:
    """Forward and backward over random logits, each way in a process of its own."""
    if dtype not in ("float32", "bfloat16"):
        raise ScriptError(f"expected --dtype float32 or bfloat16, found {dtype}")
    print(f"{'':>24} {'seconds':>8} {'x ours':>7} {'GiB beside the logits':>22}")
    ours = None
    for way, name in WAYS.items():
        command = [sys.executable, "-m", __name__, way, str(tokens), str(vocab), dtype]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ScriptError(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}")
        seconds, peak = map(float, done.stdout.split()[-2:])
        ours = ours or seconds
        print(f"{name:>24} {seconds:8.2f} {seconds / ours:7.1f} {peak:22.2f}")


def _measure(way: str, tokens: int, vocab: int, dtype: str) -> None:
    """In a process of its own, because peak memory cannot be reset."""
    import resource

    import torch
    from verl.utils.torch_functional import logprobs_from_logits_naive, logprobs_from_logits_v2

    from contextrl.verl_ext.token_logprobs import token_logprobs

    take = {
        "blocks": token_logprobs,
        "tokens": logprobs_from_logits_v2,
        "log-softmax": logprobs_from_logits_naive,
    }[way]
    torch.manual_seed(0)
    leaf = torch.randn(tokens, vocab, dtype=getattr(torch, dtype)).requires_grad_()
    labels = torch.randint(0, vocab, (tokens,))
    take(leaf[:2] * 1, labels[:2]).sum().backward()  # the first call plans its kernels
    leaf.grad = None
    logits = leaf * 1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    found = take(logits, labels)
    # Up to the logits, not to what they were made of.
    torch.autograd.grad(found.sum(), logits)
    seconds = time.perf_counter() - began
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    print(seconds, peak)


if __name__ == "__main__":
    _measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
