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
    script = inspect.getsource(same_rows) + inspect.cleandoc(
        """
        import inspect, json, sys
        from types import SimpleNamespace as N
        from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead as E
        from verl.workers.engine_workers import ActorRolloutRefWorker as W
        from verl.trainer.ppo.v1.trainer_base import PPOTrainer as T
        from verl.workers.rollout.base import _ROLLOUT_REGISTRY
        from verl.plugin.platform.platform_manager import get_platform
        import numpy as np
        from verl.trainer.ppo import metric_utils
        usual_bootstrap = metric_utils.bootstrap_metric
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
        from verl.utils import tensordict_utils as tu
        import asyncio
        from contextrl.verl_ext.errors import ConfigError
        worker = object.__new__(vqa_loop.VQALoopWorker)
        try:
            asyncio.run(worker._run_agent_loop({}, {}, agent_name="single_turn_agent"))
            other_loop = "taken"
        except ConfigError as error:
            other_loop = str(error)
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
            "batches": [same_rows(),
                tu.index_select_tensor_dict.__module__, tu.chunk_tensordict.__module__],
            "bootstrap": [
                "bootstrap_metric" in metric_utils.process_validation_metrics.__code__.co_names,
                metric_utils.bootstrap_metric is not usual_bootstrap,
                [each([0.0, 1.0, 0.5, 1.0, 0.25], 3, [np.max, np.min, *more])
                 for each in (usual_bootstrap, metric_utils.bootstrap_metric)
                 for more in ([], [np.mean])]],
            "other_loop": other_loop,
            "one_loop": parameters(L._run_agent_loop),
            "scikit_learn": [unasked, is_sklearn_available(), callable(sklearn.metrics.roc_curve)],
            "manager": issubclass(vqa_loop.VQALoopManager, M),
            "trainer": [hasattr(T, name) for name in (
                "_update_actor", "_validate", "_compute_metrics", "_balance_batch",
                "_build_replay_buffer", "_init_resource_pool_mgr")],
            "platform": get_platform().device_name,
            "trainers": list(TRAINER_REGISTRY),
            "updates_per_step": [
                TRAINER_REGISTRY["contextrl_sync"]._updates_per_step(N(config=N(
                    data=N(train_batch_size=rows), actor_rollout_ref=N(actor=N(
                        ppo_mini_batch_size=8, ppo_epochs=epochs)))))
                for rows, epochs in ((16, 1), (17, 1), (3, 1), (17, 2))],
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


def same_rows():
    """Runs in a process that may import veRL: our ways to cut a batch against veRL's own."""
    import torch
    from verl.utils import tensordict_utils as tu

    from contextrl.verl_ext import quick_batches
    from contextrl.verl_ext.collate import jagged

    def batch(lengths):
        columns = {
            "ids": jagged([torch.arange(n) + 100 * n for n in lengths]),
            "positions": jagged([torch.arange(4 * n).view(4, n) for n in lengths]),
            "dense": torch.arange(2 * len(lengths)).view(-1, 2),
            "images": [{"grid": torch.tensor([n])} for n in lengths],
        }
        return tu.get_tensordict(columns, {"temperature": 0.5})

    def same(one, other):
        assert set(one.keys()) == set(other.keys())
        for key in one.keys():  # noqa: SIM118
            a, b = one.get(key), other.get(key)
            if isinstance(a, torch.Tensor) and a.is_nested:
                assert a._ragged_idx == b._ragged_idx
                assert [*map(torch.Tensor.tolist, a.unbind())] == [
                    *map(torch.Tensor.tolist, b.unbind())
                ]
            elif isinstance(a, torch.Tensor):
                assert a.equal(b)
            else:
                assert str(a.tolist()) == str(b.tolist())

    usual_select, usual_chunks = quick_batches._usual_select, quick_batches._usual_chunks
    for lengths in ([3, 1, 4, 1, 5, 9], [4] * 6):
        whole = batch(lengths)
        for rows in ([5, 0, 3], [2], [1, 1], list(range(6))):
            for wanted in (rows, torch.tensor(rows)):
                same(usual_select(whole, wanted), tu.index_select_tensor_dict(whole, wanted))
        for parts in (1, 2, 3, 6):
            pieces = tu.chunk_tensordict(whole, parts)
            for one, other in zip(usual_chunks(whole, parts), pieces, strict=True):
                same(one, other)
    assert tu.index_select_tensor_dict(None, [0]) is None
    try:
        tu.chunk_tensordict(batch([1, 2, 3]), 2)
    except AssertionError:
        return "same"
    return "three rows in two parts?"


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


def test_a_question_for_another_agent_loop_is_refused_by_name(verl_facts):
    assert "found 'single_turn_agent'" in verl_facts["other_loop"]


def test_a_mini_batch_that_is_not_full_is_an_update_too(verl_facts):
    """Every one shows pairs of its own: a number too low would show some pairs twice."""
    assert verl_facts["updates_per_step"] == [2, 3, 1, 6]


def test_our_registrations_are_seen(verl_facts):
    assert verl_facts["platform"] == "cpu"
    assert "contextrl_sync" in verl_facts["trainers"]
    assert "hf" in verl_facts["rollouts"]


def test_training_processes_start_without_scikit_learn_and_can_import_it(verl_facts):
    assert verl_facts["scikit_learn"] == [True, True, True]


def test_the_bootstrap_of_a_validation_gives_verl_s_numbers(verl_facts):
    looked_up, ours, (theirs, theirs_more, quick, quick_more) = verl_facts["bootstrap"]
    assert looked_up
    assert ours
    assert quick == [pytest.approx(each, rel=1e-12) for each in theirs]
    assert quick_more == theirs_more


def test_batches_are_cut_as_verl_cuts_them(verl_facts):
    ours = "contextrl.verl_ext.quick_batches"
    assert verl_facts["batches"] == ["same", ours, ours]
