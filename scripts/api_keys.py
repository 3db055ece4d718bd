"""Which key goes to which endpoint: none that the user did not mean for it."""

from __future__ import annotations

import os

from contextrl.scripts.console import ScriptError

NO_KEY = "none"
"""Servers without keys take any; an empty one would make litellm send the user's OpenAI key."""


def api_key(variable: str | None, base_url: str | None) -> str | None:
    """What `variable` holds, if one is named.

    Without a name: None for a provider's own address, where litellm reads that provider's own
    variable, and no key at all for a server that the user names.

    Raises `ScriptError` when the named variable is empty.
    """
    if variable is None:
        return NO_KEY if base_url else None
    key = os.environ.get(variable, "")
    if not key:
        raise ScriptError(
            f"expected a key in the environment variable {variable}, found none; set it"
        )
    return key
