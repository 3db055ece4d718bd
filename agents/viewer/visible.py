"""Text from a model, made safe to look at: it moves no cursor, reorders no line, hides nothing."""

from __future__ import annotations

import re

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069"
    "\ud800-\udfff\ufeff\U000e0000-\U000e007f]"
)
_CONTROL_PICTURES = 0x2400


def visible(text: str) -> str:
    """Controls and what has no width become pictures or `<U+....>`; line ends and tabs stay."""
    return _HIDDEN.sub(_shown, text.replace("\r\n", "\n"))


def _shown(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(_CONTROL_PICTURES + code) if code < 0x20 else f"<U+{code:04X}>"
