"""Our rollout loop as a veRL agent loop: veRL asks for one episode, `agents.rollout` plays it.

veRL's loop is asynchronous and its server speaks token ids; ours is a plain function in a
thread. The episode's tokens, mask and log-probabilities reach the trainer exactly as the
server produced them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopOutput, register

from contextrl.agents.tokens import ServedTokens, TokenPolicy
from contextrl.agents.types import Trajectory
from contextrl.verl_ext.episodes import Episodes


class ServerManagerTokens:
    """`TokenServer` over veRL's server manager; called from threads, runs on veRL's loop."""

    def __init__(
        self, manager: Any, sampling_params: dict[str, Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._manager = manager
        self._sampling_params = sampling_params
        self._loop = loop
        self.global_steps: list[int] = []

    def generate(
        self, prompt_ids: Sequence[int], *, max_new_tokens: int, session_id: str
    ) -> ServedTokens:
        request = self._manager.generate(
            request_id=session_id,
            prompt_ids=list(prompt_ids),
            sampling_params={
                **self._sampling_params,
                "max_tokens": max_new_tokens,
                "logprobs": True,
            },
        )
        output = asyncio.run_coroutine_threadsafe(request, self._loop).result()
        step = output.extra_fields.get("global_steps")
        if step is not None:
            self.global_steps.append(step)
        return ServedTokens(tuple(output.token_ids), tuple(output.log_probs))


@register("contextrl_swe")
class SWEAgentLoop(AgentLoopBase):  # type: ignore[misc]
    """One SWE episode in a sandbox, graded by its tests."""

    async def run(
        self, sampling_params: dict[str, Any], **row: Any
    ) -> AgentLoopOutput | list[AgentLoopOutput]:
        """An excluded episode returns no output at all: veRL leaves it out of its group."""
        episodes = Episodes.of_this_process(self.config)
        server = ServerManagerTokens(self.server_manager, sampling_params, self.loop)
        thinking = episodes.job.enable_thinking
        policy = TokenPolicy(
            "actor",
            server,
            self.tokenizer,
            template_kwargs=None if thinking is None else {"enable_thinking": thinking},
        )
        info = row["extra_info"]
        episodes.expect(info["task_id"])
        trajectory = await self.loop.run_in_executor(
            episodes.threads,
            lambda: episodes.play(
                policy,
                task_id=info["task_id"],
                phase=info["phase"],
                train_step=int(row["global_steps"]),
                sample=int(row["session_id"]),
            ),
        )
        if trajectory.excluded:
            return []
        return _output(trajectory, server.global_steps)


def _output(trajectory: Trajectory, global_steps: Sequence[int]) -> AgentLoopOutput:
    tokens, timings = trajectory.tokens, trajectory.timings
    assert tokens is not None
    assert trajectory.reward is not None
    return AgentLoopOutput(
        prompt_ids=list(tokens.prompt_ids),
        response_ids=list(tokens.response_ids),
        response_mask=list(tokens.response_mask),
        response_logprobs=list(tokens.response_logprobs),
        reward_score=trajectory.reward.score,
        num_turns=2 * len(trajectory.steps),
        metrics={
            "generate_sequences": timings.policy_s,
            "tool_calls": timings.start_s + timings.sandbox_s,
            "compute_score": timings.grading_s,
            "num_preempted": -1,
        },
        extra_fields={
            "turn_scores": [],
            "tool_rewards": [],
            "min_global_steps": min(global_steps, default=0),
            "max_global_steps": max(global_steps, default=0),
            "reward_extra_info": {},
        },
    )
