"""What every call through litellm shares: the late import, patience, and one line for a refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from contextrl.pairs.errors import JudgeError
from contextrl.pairs.patience import Patience

T = TypeVar("T")


def load_litellm() -> Any:
    """Raises `JudgeError` when it is not installed."""
    try:
        import litellm
    except ImportError as error:
        raise JudgeError(
            "expected the package `litellm` to reach an endpoint, found none; "
            "run: pip install 'contextrl[mine]'"
        ) from error
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    return litellm


def call_litellm(litellm: Any, once: Callable[[], T], model: str, patience: Patience) -> T:
    """What `once` returns.

    Raises:
        EndpointBusyError: every try failed with something that may pass.
        JudgeError: the endpoint refuses.
    """
    errors = litellm.exceptions
    passing = (
        errors.RateLimitError,
        errors.Timeout,
        errors.APIConnectionError,
        errors.InternalServerError,
        errors.ServiceUnavailableError,
        errors.BadGatewayError,
    )
    try:
        return patience.call(once, passing, model)
    except JudgeError:
        raise
    except Exception as error:  # litellm has no root class for what it raises
        if type(error).__module__.split(".")[0] not in {"litellm", "openai"}:
            raise
        said = " ".join(str(error).split())[:200]
        raise JudgeError(f"{model}: the endpoint refuses: {said}") from error
