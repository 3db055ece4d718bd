"""What veRL must know before it builds anything. One function per kind of process.

`VERL_USE_EXTERNAL_MODULES=contextrl.verl_ext.cpu` makes every process know the CPU platform before
`verl` has finished importing, so this file must not be named there: it imports more of veRL
than that.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

CPU_MODULE = "contextrl.verl_ext.cpu"


def environment(*, cpu: bool) -> Mapping[str, str]:
    """Variables that a training process and its Ray actors need set before `verl` is imported."""
    common = {
        "HYDRA_FULL_ERROR": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_DEDUP_LOGS": "0",
    }
    if not cpu:
        return common
    return common | {
        "VERL_USE_EXTERNAL_MODULES": CPU_MODULE,
        "VERL_PLATFORM": "cpu",
        # Without it Ray hides every device from an actor that asked for none.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # Ray's workers are 15 nicer than others: on a small machine sandboxes would starve them.
        "RAY_worker_niceness": "0",
    }


def register_rollout() -> None:
    """The `hf` rollout server, where it is asked for. vLLM and SGLang are veRL's own."""
    if os.environ.get("VERL_PLATFORM") == "cpu":
        from contextrl.verl_ext import rollout_hf  # noqa: F401


def register_trainer() -> None:
    """Trainer, worker and engine, in the process that runs the trainer."""
    from contextrl.verl_ext import trainer  # noqa: F401

    register_rollout()
