"""Image questions as a veRL agent loop: one reply a question, the features of the prompt kept.

veRL would prepare images and positions a second time for training, from the decoded text. Here the
features that the prompt was made with travel along, so rollout and training cannot differ.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any
from uuid import uuid4

import hydra
import ray
import torch
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopBase,
    AgentLoopOutput,
    DictConfigWrap,
    _agent_loop_registry,
    register,
)
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ
from verl.utils.profiler import simple_timer
from verl.utils.rollout_trace import rollout_trace_attr

from contextrl.agents.errors import PolicyError
from contextrl.pairs.errors import PairsError
from contextrl.verl_ext.errors import ConfigError, ImageTokensError
from contextrl.verl_ext.server_reply import server_reply
from contextrl.verl_ext.vision import VisionInputs, extended
from contextrl.verl_ext.vqa import Prompt, Questions

logger = logging.getLogger(__name__)

VISION = "contextrl_vision"
POSITIONS = "contextrl_positions"
NAME = "contextrl_vqa"


@register(NAME)
class VQAAgentLoop(AgentLoopBase):  # type: ignore[misc]
    """One question, one reply, graded by its row's answer."""

    async def run(
        self, sampling_params: dict[str, Any], **row: Any
    ) -> AgentLoopOutput | list[AgentLoopOutput]:
        """A row that no model could take, or whose server failed, has no output at all: veRL leaves
        it out of its batch.
        """
        questions = Questions.of_this_process(self.config)
        info, metrics = row["extra_info"], {}
        source, index = str(info["source"]), int(info["index"])
        try:
            prompt: Prompt = await self.loop.run_in_executor(None, questions.prompt, source, index)
        except (PairsError, ImageTokensError) as error:
            logger.error("left out: %s", error)
            return []
        if len(prompt.token_ids) > self.rollout_config.prompt_length:
            logger.error(
                "left out: %s: expected a prompt of at most %d tokens, found %d; raise "
                "data.max_prompt_length",
                *(info["row_id"], self.rollout_config.prompt_length, len(prompt.token_ids)),
            )
            return []
        hidden = questions.tokenizer.vision_token_ids
        try:
            with simple_timer("generate_sequences", metrics):
                output = await server_reply(
                    self.server_manager,
                    timeout_s=float(self.config.job.limits.wall_clock_s),
                    request_id=uuid4().hex,
                    prompt_ids=prompt.token_ids,
                    sampling_params={
                        **sampling_params,
                        "max_tokens": self.rollout_config.response_length,
                        "logprobs": True,
                        "stop_token_ids": sorted(hidden),
                    },
                    image_data=list(prompt.images) or None,
                    mm_processor_kwargs={
                        "min_pixels": questions.tokenizer.min_pixels,
                        "max_pixels": questions.tokenizer.max_pixels,
                    },
                )
        except PolicyError as error:  # never a reward of 0: the group goes on without it
            logger.error("left out: %s: %s", info["row_id"], error)
            return []
        ids, mask, logprobs = _without_image_tokens(output, hidden, questions.tokenizer)
        reply = questions.tokenizer.decode(ids, skip_special_tokens=True)
        with simple_timer("compute_score", metrics):
            found = await self.loop.run_in_executor(
                None,
                lambda: questions.grade(
                    questions.row(source, index),
                    reply,
                    phase=str(info["phase"]),
                    split=str(row["data_source"]),
                    train_step=int(row["global_steps"]),
                    sample=int(row["session_id"]),
                ),
            )
        step = output.extra_fields.get("global_steps") or 0
        return AgentLoopOutput(
            prompt_ids=prompt.token_ids,
            response_ids=ids,
            response_mask=mask,
            response_logprobs=logprobs,
            multi_modal_data={VISION: prompt.vision},
            reward_score=found.reward,
            num_turns=2,
            metrics={**metrics, "num_preempted": -1},
            extra_fields={
                "turn_scores": [],
                "tool_rewards": [],
                "min_global_steps": step,
                "max_global_steps": step,
                "reward_extra_info": {"acc": found.accuracy, "format": found.format},
            },
        )


def _without_image_tokens(
    output: Any, hidden: frozenset[int], tokenizer: Any
) -> tuple[list[int], list[int], list[float]]:
    """Ids, mask and log-probabilities of a reply that asks for no image.

    An image token that was sampled ends the reply: the end token takes its place, unlearned.
    """
    ids, logprobs = list(output.token_ids), list(output.log_probs)
    at = next((i for i, token in enumerate(ids) if token in hidden), None)
    if at is None:
        return ids, [1] * len(ids), logprobs
    ids, logprobs = [*ids[:at], tokenizer.eos_token_id], [*logprobs[:at], 0.0]
    return ids, [1] * at + [0], logprobs


class VQALoopWorker(AgentLoopWorkerTQ.__ray_metadata__.modified_class):  # type: ignore[misc, name-defined]
    """Hands the prompt's own features and positions on, instead of preparing them again."""

    async def _run_agent_loop(
        self,
        sampling_params: dict[str, Any],
        trajectory: dict[str, Any],
        *,
        agent_name: str,
        trace: bool = True,
        **row: Any,
    ) -> Any:
        """With one agent loop for all questions, which keeps nothing of them: veRL makes one for
        each reply, and merging its configuration takes longer than what a tiny policy says.
        """
        if agent_name != NAME:
            raise ConfigError(
                f"expected every question to be for the agent loop {NAME}, found {agent_name!r}; "
                f"write the rows with scripts/run_vl_contextrl.sh"
            )
        where = {key: trajectory[key] for key in ("step", "sample_index", "rollout_n", "validate")}
        with rollout_trace_attr(**where, name="agent_loop", trace=trace):
            output = await self._agent_loop.run(sampling_params, **row)
            return await self._agent_loop_postprocess(output, trajectory["validate"], **row)

    @cached_property
    def _agent_loop(self) -> AgentLoopBase:
        # By veRL's registry, where `agent_loop_config_path` may name a class of one's own.
        return hydra.utils.instantiate(
            config=_agent_loop_registry[NAME],
            trainer_config=DictConfigWrap(config=self.config),
            server_manager=self.llm_client,
            tokenizer=self.tokenizer,
            processor=self.processor,
            hf_model_type=self.hf_model_type,
            dataset_cls=self.dataset_cls,
            data_config=DictConfigWrap(self.config.data),
        )

    def _compute_multi_modal_inputs(self, output: Any, input_ids: Any) -> dict[str, torch.Tensor]:
        vision: VisionInputs = output.multi_modal_data[VISION]
        positions = extended(vision.positions, len(output.response_ids))
        return vision.model_inputs() | {POSITIONS: positions}

    def _compute_position_ids(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        multi_modal_inputs: dict[str, torch.Tensor],
        mm_processor_kwargs: dict[str, Any] | None = None,
    ) -> torch.Tensor:
        """[1, 4, T]."""
        return multi_modal_inputs.pop(POSITIONS)[None]


class VQALoopManager(AgentLoopManagerTQ):  # type: ignore[misc]
    """Named in `actor_rollout_ref.rollout.agent.agent_loop_manager_class`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(VQALoopWorker)
