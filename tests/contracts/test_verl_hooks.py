"""What we rely on inside veRL 0.9.1. A new veRL that moves one of these fails here, by name."""

import inspect
import os
import subprocess
import sys

import pytest

from contextrl.verl_ext.register import environment


@pytest.fixture(scope="module")
def verl_facts():
    """veRL is imported in a process of its own, under the variables our jobs set."""
    script = inspect.cleandoc(
        """
        import inspect, json, sys
        from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead as E
        from verl.workers.engine_workers import ActorRolloutRefWorker as W
        from verl.trainer.ppo.v1.trainer_base import PPOTrainer as T
        from verl.workers.rollout.base import _ROLLOUT_REGISTRY
        from verl.plugin.platform.platform_manager import get_platform
        from contextrl.verl_ext import register
        register.register_trainer()
        from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY
        from verl.workers.engine import EngineRegistry
        from contextrl.verl_ext import engine
        from contextrl.verl_ext.token_logprobs import token_logprobs
        from verl.utils.torch_functional import logprobs_from_logits
        from verl.workers.engine.fsdp import transformer_impl
        from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ as M, AgentLoopWorkerTQ
        from contextrl.verl_ext import vqa_loop
        L = AgentLoopWorkerTQ.__ray_metadata__.modified_class
        from transformers.utils import is_sklearn_available
        unasked = "sklearn" not in sys.modules
        import sklearn.metrics
        parameters = lambda f: list(inspect.signature(f).parameters)
        print("FACTS" + json.dumps({
            "forward_backward_batch": parameters(E.forward_backward_batch),
            "gradient_sync": parameters(E._gradient_sync_context),
            "prepare_model_inputs": parameters(E.prepare_model_inputs),
            "forward_step": parameters(E.forward_step),
            "logprobs_from_logits": [parameters(logprobs_from_logits), parameters(token_logprobs)],
            "logprobs_used": [
                "logprobs_from_logits" in E.prepare_model_outputs.__code__.co_names,
                transformer_impl.logprobs_from_logits is token_logprobs],
            "actor_worker_cls": hasattr(W, "actor_worker_cls"),
            "ref_worker_cls": hasattr(W, "ref_worker_cls"),
            "build_module": parameters(E._build_module),
            "features": parameters(L._compute_multi_modal_inputs),
            "positions": parameters(L._compute_position_ids),
            "one_loop": parameters(L._run_agent_loop),
            "scikit_learn": [unasked, is_sklearn_available(), callable(sklearn.metrics.roc_curve)],
            "manager": issubclass(vqa_loop.VQALoopManager, M),
            "trainer": [hasattr(T, name) for name in (
                "_update_actor", "_validate", "_compute_metrics", "_balance_batch",
                "_build_replay_buffer", "_init_resource_pool_mgr")],
            "platform": get_platform().device_name,
            "trainers": list(TRAINER_REGISTRY),
            "rollouts": [name for name, _ in _ROLLOUT_REGISTRY],
        }))
        """
    )
    import json

    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment(cpu=True)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("FACTS"))
    return json.loads(line.removeprefix("FACTS"))


def test_engine_hooks(verl_facts):
    expected = ["self", "data", "loss_function", "forward_only"]
    assert verl_facts["forward_backward_batch"] == expected
    assert verl_facts["gradient_sync"] == ["self", "is_last_micro_batch"]
    assert verl_facts["prepare_model_inputs"] == ["self", "micro_batch"]
    assert verl_facts["forward_step"] == ["self", "micro_batch", "loss_function", "forward_only"]


def test_log_probabilities_are_taken_in_blocks_without_flash_attn(verl_facts):
    theirs, ours = verl_facts["logprobs_from_logits"]
    assert ours == theirs
    assert all(verl_facts["logprobs_used"])


def test_worker_and_trainer_hooks(verl_facts):
    assert verl_facts["actor_worker_cls"]
    assert all(verl_facts["trainer"])


def test_hooks_of_the_vision_recipe(verl_facts):
    assert verl_facts["ref_worker_cls"]
    assert verl_facts["build_module"] == ["self"]
    assert verl_facts["features"][:3] == ["self", "output", "input_ids"]
    assert {"sampling_params", "trajectory", "agent_name", "trace"} < set(verl_facts["one_loop"])
    assert verl_facts["positions"][:4] == [
        "self",
        "input_ids",
        "attention_mask",
        "multi_modal_inputs",
    ]
    assert verl_facts["manager"]


def test_our_registrations_are_seen(verl_facts):
    assert verl_facts["platform"] == "cpu"
    assert "contextrl_sync" in verl_facts["trainers"]
    assert "hf" in verl_facts["rollouts"]


def test_training_processes_start_without_scikit_learn_and_can_import_it(verl_facts):
    assert verl_facts["scikit_learn"] == [True, True, True]
