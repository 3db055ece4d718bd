"""A search as it is typed: plain text, or a regular expression between slashes."""

from __future__ import annotations

import re


def pattern_of(query: str) -> re.Pattern[str] | None:
    """None for an empty query and for a regular expression that is none."""
    if not query:
        return None
    written = re.fullmatch(r"/(.+)/", query, re.DOTALL)
    try:
        return re.compile(written[1] if written else re.escape(query), re.IGNORECASE)
    except re.error:
        return None
