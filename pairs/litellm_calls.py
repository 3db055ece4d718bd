"""What every call through litellm shares: the late import, patience, and what a failure means.

Of three kinds: what may pass is tried again, what concerns this one question is a `RefusedError`,
and what would meet every question (a wrong key, an unknown model) is a plain `JudgeError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from contextrl.pairs.errors import JudgeError, RefusedError
from contextrl.pairs.patience import Patience

T = TypeVar("T")

ONE_QUESTION = frozenset({400, 413, 422})
"""Content policy, a context that is too long, a picture that is too large or of no use."""
_ACCOUNT = ("billing_hard_limit", "insufficient_quota", "billing hard limit")
"""Sent with 400 by some, and no question's fault."""


def load_litellm(model: str, base_url: str | None) -> Any:
    """Raises `JudgeError` when it is not installed, or knows no provider for `model`."""
    try:
        import litellm
    except ImportError as error:
        raise JudgeError(
            "expected the package `litellm` to reach an endpoint, found none; "
            "run: pip install 'contextrl[mine]'"
        ) from error
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    try:
        litellm.get_llm_provider(model=model, api_base=base_url)
    except litellm.exceptions.BadRequestError as error:
        raise JudgeError(
            f"expected a model as litellm names it (openai/NAME for any OpenAI-compatible "
            f"server), found {model!r}"
        ) from error
    return litellm


def call_litellm(litellm: Any, once: Callable[[], T], model: str, patience: Patience) -> T:
    """What `once` returns.

    Raises:
        EndpointBusyError: every try failed with something that may pass.
        RefusedError: the endpoint refuses this question; another may do.
        JudgeError: the endpoint refuses every question.
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
        said = " ".join(str(error).split())[:300]
        ours = isinstance(error, errors.UnsupportedParamsError | errors.LiteLLMUnknownProvider)
        of_account = any(each in said for each in _ACCOUNT)
        if getattr(error, "status_code", None) in ONE_QUESTION and not ours and not of_account:
            raise RefusedError(f"{model}: refused: {said}") from error
        raise JudgeError(f"{model}: the endpoint refuses: {said}") from error
