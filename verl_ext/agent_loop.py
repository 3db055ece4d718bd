"""Our rollout loop as a veRL agent loop: veRL asks for one episode, `agents.rollout` plays it.

veRL's loop is asynchronous and its server speaks token ids; ours is a plain function in a
thread. The episode's tokens, mask and log-probabilities reach the trainer exactly as the
server produced them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopOutput, register

from contextrl.agents.tokens import TokenPolicy
from contextrl.agents.types import Trajectory
from contextrl.verl_ext.episodes import Episodes
from contextrl.verl_ext.server_reply import ServerManagerTokens


@register("contextrl_swe")
class SWEAgentLoop(AgentLoopBase):  # type: ignore[misc]
    """One SWE episode in a sandbox, graded by its tests."""

    async def run(
        self, sampling_params: dict[str, Any], **row: Any
    ) -> AgentLoopOutput | list[AgentLoopOutput]:
        """An excluded episode returns no output at all: veRL leaves it out of its group."""
        episodes = Episodes.of_this_process(self.config)
        server = ServerManagerTokens(
            self.server_manager,
            sampling_params,
            self.loop,
            special_ids=self.tokenizer.all_special_ids,
            wall_clock_s=episodes.job.limits.wall_clock_s,
        )
        policy = TokenPolicy(
            "actor", server, self.tokenizer, template_kwargs=episodes.job.template_kwargs
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
