"""A CPU as a veRL platform. veRL 0.9.1 ships none; nothing here is used where a GPU is found.

Loaded by `VERL_USE_EXTERNAL_MODULES` while `verl` itself is being imported, so this module may
import no more of veRL than its platform registry.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from typing import Any

import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry

from contextrl.verl_ext.quick_start import without_scikit_learn

without_scikit_learn()


def _cpu_module() -> types.ModuleType:
    """What veRL calls on `torch.cuda`, answered for a host without an accelerator."""
    module = types.ModuleType("contextrl_cpu_device")
    zero = [
        "max_memory_allocated",
        "max_memory_reserved",
        "memory_allocated",
        "memory_reserved",
    ]
    nothing = [
        "empty_cache",
        "ipc_collect",
        "manual_seed",
        "manual_seed_all",
        "reset_peak_memory_stats",
        "set_device",
        "set_rng_state",
        "set_rng_state_all",
        "synchronize",
    ]
    answers: dict[str, Any] = {name: lambda *_, **__: 0 for name in zero}
    answers |= {name: lambda *_, **__: None for name in nothing}
    answers |= {
        "current_device": lambda: "cpu",
        "device_count": lambda: 1,
        "get_device_name": lambda *_: "cpu",
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "get_rng_state_all": list,
        "is_available": lambda: True,
        "is_bf16_supported": lambda *_: True,
        "mem_get_info": lambda *_: (0, 0),
    }
    for name, answer in answers.items():
        setattr(module, name, answer)
    return module


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):  # type: ignore[misc]
    """One device called "cpu"; Ray counts CPUs for it."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _cpu_module()

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return not torch.cuda.is_available()

    def current_device(self) -> str:  # callers only do `tensor.to(get_device_id())`
        return "cpu"

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        return None

    def synchronize(self, device_index: int | None = None) -> None:
        return None

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        return None

    def empty_cache(self) -> None:
        return None

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CONTEXTRL_VISIBLE_CPUS"

    @contextlib.contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        return None

    def profiler_stop(self) -> None:
        return None

    def ray_resource_name(self) -> str:
        return "CPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def ray_resource_options(self, num_gpus: float) -> dict[str, Any]:
        return {"num_cpus": num_gpus}

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> Any:
        return None
