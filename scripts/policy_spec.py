"""What `--policy` names: a script, an endpoint, or a model on this disk."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import typer

from contextrl.agents.prompting import PromptSet
from contextrl.agents.types import Policy
from contextrl.envs.types import Task
from contextrl.scripts.console import ScriptError

PolicyOf = Callable[[Task], Policy]
"""The policy that plays a task: one for all of them, or a script for each."""


@contextlib.contextmanager
def open_policy(
    spec: str,
    *,
    model: str,
    prompts: PromptSet,
    api_key_env: str | None,
    max_context_tokens: int,
    temperature: float,
    seed: int,
) -> Iterator[PolicyOf]:
    """Imports only what the named kind needs. A wrong `spec` is a usage error."""
    kind, _, where = spec.partition(":")
    if spec == "scripted":
        from contextrl.agents.scripted import ScriptedPolicy, solution_script

        yield lambda task: ScriptedPolicy(solution_script(task, prompts))
    elif spec == "scripted:looking":
        from contextrl.agents.looking import looking_script
        from contextrl.agents.scripted import ScriptedPolicy

        yield lambda task: ScriptedPolicy(looking_script(task, prompts), name="looking")
    elif kind == "endpoint" and where:
        from contextrl.agents.chat import ChatPolicy, Endpoint
        from contextrl.scripts.api_keys import api_key

        if not model:
            raise typer.BadParameter("--policy endpoint:URL needs --model NAME")
        chat = ChatPolicy(
            Endpoint(
                base_url=where,
                model=model,
                api_key=api_key(api_key_env, where) or "",
                extra={"temperature": temperature},
            )
        )
        yield lambda task: chat
    elif kind == "local" and where:
        if not (Path(where) / "config.json").is_file():
            raise ScriptError(f"expected a model folder with config.json, found none at {where}")
        from contextrl.agents.tokens import TokenPolicy
        from contextrl.verl_ext.local_server import LocalTokenServer

        server = LocalTokenServer.from_pretrained(
            where, max_context_tokens=max_context_tokens, temperature=temperature, seed=seed
        )
        with contextlib.closing(server):
            tokens = TokenPolicy(where, server, server.tokenizer)
            yield lambda task: tokens
    else:
        raise typer.BadParameter(
            "--policy: expected scripted, scripted:looking, endpoint:URL or local:PATH, "
            f"found {spec!r}"
        )
