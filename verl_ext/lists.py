"""Lists, points and intervals: which brackets and which order count."""

from __future__ import annotations

import re
from collections.abc import Callable

from contextrl.verl_ext.quantities import quantity

_PREFIX = re.compile(
    r"(?:(?:([A-Za-z])|\(\s*[a-z]\s*,\s*[a-z]\s*\))\s*(?:\\in(?![A-Za-z])|=)\s*)(?=[(\[{\\]|\\\{)"
)
_NUMERIC = re.compile(r"[-+]?\s*(?:\d|\.\d|\\(?!text)|[A-Za-z]\b)")


def same_list(given: str, expected: str, same: Callable[[str, str], bool]) -> bool | None:
    """None when either is no list. In round brackets the order counts, elsewhere it does not.

    Two numbers in brackets may be an interval, whose brackets say which ends belong to it.
    """
    if _variable(given) != _variable(expected) and _variable(given) and _variable(expected):
        return None
    given, expected = _PREFIX.sub("", given, count=1), _PREFIX.sub("", expected, count=1)
    left, right = items(given), items(expected)
    if left is None or right is None:
        other = given if left is None else expected
        return False if (left or right) and quantity(other) is not None else None
    if len(left) != len(right) or (quantity(given) is None) != (quantity(expected) is None):
        return False  # 1,000 is one number, and 1,0 are two
    kinds = [_brackets(given), _brackets(expected)]
    if kinds[0] != kinds[1] and {"(]", "[)"} & set(kinds):
        return False
    numeric = len(right) == 2 and all(_NUMERIC.match(item) for item in right)
    if numeric and kinds[0] and kinds[1] and kinds[0] != kinds[1]:
        return False
    names = [[name_of(item) for item in each] for each in (left, right)]
    if len(set(names[0])) > 1 and sorted(names[0]) == sorted(names[1]):
        pairs = list(zip(names[0], left, strict=True)), list(zip(names[1], right, strict=True))
        left, right = ([item for _, item in sorted(each)] for each in pairs)
    ordered = "(" in (kinds[0][:1], kinds[1][:1]) or any(len(set(each)) > 1 for each in names)
    if ordered:
        return all(map(same, left, right))
    rest = list(right)
    for item in left:
        found = next((other for other in rest if item == other), None) or next(
            (other for other in rest if same(item, other)), None
        )
        if found is None:
            return False
        rest.remove(found)
    return True


def items(text: str) -> list[str] | None:
    """The items of `[1, 2]`, `1, 2 and 3` or `\\pm 2`; None for what is no list."""
    inner = re.sub(r"^[\(\[\{]|^\\\{|[\)\]\}]$|\\\}$", "", text)
    signs = re.fullmatch(r"(?:[a-z]\s*=\s*)?\\pm\s*(.+)", inner)
    if signs is not None:
        inner = f"{signs[1]}, -{signs[1]}"
    depth, parts, start = 0, [], 0
    for found in re.finditer(r"[()\[\]{}]|,\s*(?:and\s+)?|;\s*|\s+(?:and|or)\s+", inner):
        if found[0] in "([{":
            depth += 1
            if depth > 1:
                return None
        elif found[0] in ")]}":
            depth -= 1
        elif depth == 0:
            parts.append(inner[start : found.start()].strip())
            start = found.end()
        if depth < 0:
            return None
    parts.append(inner[start:].strip())
    return parts if len(parts) > 1 and all(parts) and depth == 0 else None


def _brackets(text: str) -> str:
    """`[)` of `[1, 2)`; empty without both."""
    text = text.replace("\\{", "{").replace("\\}", "}")
    ends = text[:1] + text[-1:]
    return ends if re.fullmatch(r"[(\[{][)\]}]", ends) else ""


def name_of(item: str) -> str:
    """`x` of `x = 3`; empty without one."""
    found = re.match(r"([^=<>]{1,30}?)\s*=(?!=)", item)
    return found[1].strip() if found else ""


def _variable(text: str) -> str:
    found = _PREFIX.match(text)
    return (found[1] or "") if found else ""
