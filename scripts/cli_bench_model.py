"""`contextrl bench generation | gradients | ca-memory`: engine figures on a random small Qwen3."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer

from contextrl.scripts.console import ScriptError

PROMPT_TOKENS, NEW_TOKENS = 120, 40
MEMORY_VOCAB = 151_936
"""Qwen3's, so that the logits have their real width."""


def generation(
    conversations: Annotated[int, typer.Option(help="Replies in each measurement.")] = 32,
) -> None:
    """Rollout tokens per second: continuous batching against one reply at a time."""
    import torch

    from contextrl.verl_ext.generation import GenerationEngine, SamplingParams

    torch.set_num_threads(os.cpu_count() or 1)
    model = _model(hidden_size=128, layers=4, vocab_size=2048)
    rng = torch.Generator().manual_seed(0)
    prompts = [
        torch.randint(0, 2048, (PROMPT_TOKENS,), generator=rng).tolist()
        for _ in range(conversations)
    ]
    params = SamplingParams(max_new_tokens=NEW_TOKENS)
    speeds = {}
    for workers in (1, 8, 32):
        with (
            GenerationEngine(model, max_rows=32, max_length=256) as engine,
            ThreadPoolExecutor(workers) as pool,
        ):
            # The first forward on a thread starts torch's own threads and plans its kernels.
            engine.generate(prompts[0], params, session_id="unmeasured")
            began = time.perf_counter()
            jobs = [
                pool.submit(engine.generate, prompt, params, session_id=str(n))
                for n, prompt in enumerate(prompts)
            ]
            tokens = sum(len(job.result().token_ids) for job in jobs)
            speeds[workers] = tokens / (time.perf_counter() - began)
    _generate_plainly(model, prompts[:1])
    began = time.perf_counter()
    _generate_plainly(model, prompts)
    plain = NEW_TOKENS * conversations / (time.perf_counter() - began)
    print(f"{'at once':>8} {'tok/s':>8} {'x generate()':>13}")
    print(f"{'generate':>8} {plain:8.0f} {1.0:13.2f}")
    for workers, speed in speeds.items():
        print(f"{workers:>8} {speed:8.0f} {speed / plain:13.2f}")


def _generate_plainly(model: Any, prompts: Sequence[list[int]]) -> None:
    import torch

    for prompt in prompts:
        model.generate(
            torch.tensor([prompt]),
            do_sample=True,
            min_new_tokens=NEW_TOKENS,
            max_new_tokens=NEW_TOKENS,
            pad_token_id=0,
        )


def ca_memory(
    tokens: Annotated[int, typer.Option(help="Length of the scored prompt.")] = 2048,
) -> None:
    """Added memory and time of one pair's CA pass: last-position logits against full logits."""
    print(f"{'logits':>14} {'peak GiB':>9} {'seconds':>8}")
    for mode in ("last-position", "full"):
        command = [sys.executable, "-m", __name__, mode, str(tokens)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ScriptError(f"the {mode} pass failed: {done.stderr.strip().splitlines()[-1:]}")
        print(done.stdout, end="")


def gradients(
    ranks: Annotated[list[int], typer.Option(help="Data-parallel ranks to check.")] = [1, 2],  # noqa: B006
) -> None:
    """Largest relative error of the combined step's gradients against plain autograd."""
    check = Path(__file__).parents[1] / "tests" / "verl_ext" / "test_engine_gradients.py"
    if not check.exists():
        raise ScriptError(f"expected a checkout with {check}, found an installed wheel; clone it")
    names = " or ".join(f"autograd[{n}]" for n in ranks)
    command = [sys.executable, "-m", "pytest", "-q", "-s", str(check), "-k", names]
    if subprocess.run(command, cwd=check.parents[2], check=False).returncode != 0:
        raise ScriptError("the gradients differ from plain autograd by more than 1e-5")


def _model(*, hidden_size: int, layers: int, vocab_size: int) -> Any:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            intermediate_size=3 * hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=hidden_size // 4,
            max_position_embeddings=65_536,
            tie_word_embeddings=True,
            eos_token_id=None,
        )
    ).eval()


def _measure_memory(mode: str, tokens: int) -> None:
    """In a process of its own, because peak memory cannot be reset."""
    import resource

    import torch

    from contextrl.verl_ext.ca_loss import option_margin
    from contextrl.verl_ext.last_position import last_position_logits

    model = _model(hidden_size=64, layers=1, vocab_size=MEMORY_VOCAB)
    ids = torch.randint(0, MEMORY_VOCAB, (1, tokens))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    if mode == "last-position":
        with last_position_logits(model, torch.tensor([0, tokens]), packed=False):
            logits = model(input_ids=ids, use_cache=False).logits
        margin = option_margin(logits[0].float(), torch.tensor([[5]]), torch.tensor([[6]]))
    else:
        logits = model(input_ids=ids, use_cache=False).logits
        # What a loss over full logits needs: log-probabilities of every position.
        logp = logits.log_softmax(-1)[0, -1]
        margin = logp[5] - logp[6]
    torch.nn.functional.logsigmoid(margin).sum().backward()
    seconds = time.perf_counter() - began
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    print(f"{mode:>14} {peak:9.2f} {seconds:8.2f}")


if __name__ == "__main__":
    _measure_memory(sys.argv[1], int(sys.argv[2]))
