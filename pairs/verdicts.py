"""How a judge's verdict is read from what models write."""

from __future__ import annotations

import json
import re
from enum import StrEnum

_OBJECT = re.compile(r"\{[^{}]*\}", re.DOTALL)
_WORD = re.compile(r"\b(INVALID|VALID|UNCERTAIN)\b")


class JudgeVerdict(StrEnum):
    VALID = "VALID"
    INVALID = "INVALID"
    UNCERTAIN = "UNCERTAIN"


def read_verdict(reply: str) -> tuple[JudgeVerdict, str]:
    """The last JSON object with a verdict, else a lone verdict word; anything else is UNCERTAIN."""
    for found in reversed(_OBJECT.findall(reply)):
        try:
            said = json.loads(found)
            return JudgeVerdict(str(said["verdict"]).upper()), str(said.get("reason", ""))[:1000]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    words = set(_WORD.findall(reply))
    if len(words) == 1:
        return JudgeVerdict(words.pop()), " ".join(reply.split())[:1000]
    return JudgeVerdict.UNCERTAIN, f"reply not understood: {' '.join(reply.split())[:200]}"
