"""One way of writing each sign, and when two texts are the same but for how they are written.

What is dropped is punctuation, by name. Every other sign says something: `x > 3` is not `x < 3`,
`5!` is not `5`, and `f'` is not `f`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda"
_GREEK_AFTER_MU = "nu xi omicron pi rho finalsigma sigma tau upsilon phi chi psi omega"
# Capital Omega and mu stay as they are: units.
_LETTERS = {
    **{chr(0x3B1 + n): f"\\{name} " for n, name in enumerate(_GREEK.split())},
    **{chr(0x3BD + n): f"\\{name} " for n, name in enumerate(_GREEK_AFTER_MU.split())},
    **{"\u0393": "\\Gamma ", "\u0394": "\\Delta ", "\u0398": "\\Theta ", "\u039b": "\\Lambda "},
    **{"\u03a3": "\\Sigma ", "\u03a6": "\\Phi ", "\u03a8": "\\Psi ", "\u03d1": "\\theta "},
}
_SIGNS = {
    **{"\u2212": "-", "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-"},
    **{"\u221e": "\\infty ", "\u00b1": "\\pm ", "\u2264": "\\le ", "\u2265": "\\ge "},
    **{"\u2260": "\\ne ", "\u222a": "\\cup ", "\u2229": "\\cap ", "\u2208": "\\in "},
    **{
        "\u201c": '"',
        "\u201d": '"',
        "\u2018": "'",
        "\u2220": "angle ",
        "\u25b3": "triangle ",
        "\u25b5": "triangle ",
        "\u22a5": "\\perp ",
    },
    **{"\u2225": "\\parallel ", "\u2019": "'", "\u2032": "'", "\u00ba": "\u00b0"},
    **{"\\%": "%", "\\$": "$", "\\,": " ", "\\;": " ", "\\:": " ", "\\ ": " ", "\\!": ""},
    **{"`": "", "~": " ", "&": " and ", "\u2192": "->", "\u27f6": "->", "\u2190": "<-"},
    **{"\u21d2": "=>", "\u2194": "<->", "\u21cc": "<=>"},
}
_COMMANDS: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"\\(?:left|right)(?![A-Za-z])\.?", ""),
    (r"\\(?:long|Long)?rightarrow(?![A-Za-z])|\\to(?![A-Za-z])", "->"),
    (r"\\(?:long|Long)?leftarrow(?![A-Za-z])|\\gets(?![A-Za-z])", "<-"),
    (r"\\(?:triangle|angle)(?![A-Za-z])\s*", lambda found: found[0].strip()[1:] + " "),
    (r"\\langle(?![A-Za-z])\s*", "("),
    (r"\s*\\rangle(?![A-Za-z])", ")"),
    (r"\\q?quad(?![A-Za-z])", " "),
    (r"\\var(epsilon|theta|rho|sigma|phi)(?![A-Za-z])", r"\\\1"),
    (r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))", "\u00b0"),
    (r"(?<=\d)\s*\^\s*(?:\{\s*o\s*\}|o\b)", "\u00b0"),
    (r"(?<=\d)\s*\\mu\s*(?=[A-Za-z]\b)", " \u03bc"),
    (r"(?<!\d)(?<!\d )\u03bc\s*|\u03bc\s*(?![A-Za-z])", r"\\mu "),
    # Two capitals are the ends of a segment; over anything else the bar means something.
    (r"\\overline\s*\{\s*([A-Z])\s*([A-Z])\s*\}|\b(?:line )?segment ([A-Z]{2})\b", r"\1\2\3"),
    (r"(?:\u221a|(?<![\\A-Za-z])sqrt(?=\s*\())\s*(\d+|\w|\([^()]*\))", r"\\sqrt{\1}"),
    (r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi "),
    (r"(?<![\\A-Za-z])(sin|cos|tan|log|ln)(?=\s*(?:[(\d\\]|[A-Za-z]\b))", r"\\\1"),
    (r"(?<![\w)])\*\*([^\s*](?:[^*]*[^\s*])?)\*\*(?![\w(])", r"\1"),
    (r"(?<=[\w)])\*\*(?=[\w({-])", "^"),
    (r"\*\*", ""),
    (r"\b(?:[A-Za-z]\.){2,}(?:[A-Za-z]\b)?", lambda found: found[0].replace(".", "")),
    (r"\$([^$\s](?:[^$]*[^$\s])?)\$(?!\d)", r"\1"),
]
_REWRITES = [(re.compile(pattern), written) for pattern, written in _COMMANDS]
_LATEX_TEXT = re.compile(
    r"\\(?:text|textbf|textrm|textit|mathrm|mathbf|mathit|mbox|operatorname)\s*\{([^{}]*)\}"
)
_SUPERSCRIPTS = str.maketrans(
    "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b\u207a", "0123456789-+"
)
_AROUND = [("$$", "$$"), ("\\(", "\\)"), ("\\[", "\\]"), ("$", "$"), ('"', '"'), ("'", "'")]

_ARTICLE = re.compile(r"\b(?:a|an|the)\s+(?=\w\w)", re.IGNORECASE)
_HYPHEN = re.compile(r"\b([A-Za-z]+)-(?=([A-Za-z]+))")
_SAYS_SOMETHING = re.compile(
    r"[^\w\s.,;:?'\"()\[\]{}%!/-]|(?<=[\d)\]}])!|\b[A-Za-z]!|(?<![A-Za-z])[A-Za-z]'(?![A-Za-z])|\)'|_\{"
)
_SYNONYMS = [
    (re.compile(pattern), written)
    for pattern, written in (
        (r"\\leq?(?![A-Za-z])|\u2266", "<="),
        (r"\\geq?(?![A-Za-z])|\u2267", ">="),
        (r"\\neq?(?![A-Za-z])", "!="),
        (r"\\(?:times|cdot)(?![A-Za-z])|[\u00d7\u00b7\u22c5]", "*"),
        (r"\\[dt]frac", r"\\frac"),
        (r"\^\{(\w|-?\d+|\d?[-+])\}(?!\w)", r"^\1"),
    )
]
_TOKEN = re.compile(r"\\?[A-Za-z][A-Za-z0-9]*")
_ELEMENTS = (
    "He Li Be Ne Na Mg Al Si Cl Ar Ca Sc Ti Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Zr Nb Mo "
    "Tc Ru Rh Pd Ag Cd In Sn Sb Te Xe Cs Ba La Ce Nd Sm Eu Gd Ho Er Hf Ta Re Os Ir Pt Au Hg Tl Pb "
    "Bi Po At Rn Fr Ra Ac Th Pa Np Pu Am H B C N O F P S K V Y I W U"
)
_FORMULA = re.compile(rf"(?:(?:{_ELEMENTS.replace(' ', '|')})\d*)+")
_WORD = re.compile(r"(?=.*[aeiouyAEIOUY])[A-Za-z]{3,}")
_SHORT_WORD = re.compile(r"(?=.*[aeiouyAEIOUY])[A-Za-z]{2,}")


def plain(text: str) -> str:
    """Without what does not change an answer: mathematics' delimiters, emphasis, a final stop."""
    text = re.sub(
        r"[\u2070\u00b9\u00b2\u00b3\u2074-\u207b]+",
        lambda found: f"^{{{found[0].translate(_SUPERSCRIPTS)}}}",
        text,
    )
    text = re.sub(r"(?<=\d)(?=[\u00bc-\u00be\u2150-\u215e])", " ", text)
    text = unicodedata.normalize("NFKC", text.replace("\u00ba", "\u00b0")).replace("\u2044", "/")
    for sign, written in (_SIGNS | _LETTERS).items():
        text = text.replace(sign, written)
    text = text.replace("\\finalsigma", "\\sigma")
    text = _LATEX_TEXT.sub(r"\1", text).strip()
    for opening, closing in _AROUND:
        if (
            len(text) >= len(opening + closing)
            and text.startswith(opening)
            and text.endswith(closing)
        ):
            text = text[len(opening) : len(text) - len(closing)]
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = re.sub(r"[ \t]{2,}", " ", text).strip()
    text = text.strip("*") if text.startswith("*") else text
    return text.strip() if text.endswith("..") else text.strip().rstrip(".").strip()


def same_text(given: str, expected: str) -> bool:
    """The same words or the same signs. Capitals count in formulas: `Co` is not `CO`."""
    (left, exact), (right, _) = _normal(given), _normal(expected)
    if left.lower() != right.lower() or not right:
        return False
    if len(right) == 1 and right.upper() <= "J":
        return True  # the letter of a choice
    tokens = list(zip(_TOKEN.findall(left), _TOKEN.findall(right), strict=True))
    exact = exact or "/" in right
    sentence = any(_SHORT_WORD.fullmatch(token) for token, _ in tokens)
    for one, other in tokens:
        if one != other and _capitals_count(one, other, exact, sentence):
            return False
    return True


def _without_hyphen(found: re.Match[str]) -> str:
    """`ice-cream` is two words, `kx-mg` a difference."""
    hyphenated = _WORD.fullmatch(found[1]) or _WORD.fullmatch(found[2])
    return f"{found[1]} " if hyphenated else found[0]


def _capitals_count(one: str, other: str, exact: bool, sentence: bool) -> bool:
    """`TV` may be `tv`, but `Mg` is no `mg`, and among signs `R` is no `r`."""
    if one.startswith("\\") or (_FORMULA.fullmatch(one) and _FORMULA.fullmatch(other)):
        return True
    if exact:
        return not _WORD.fullmatch(one)
    if len(one) == 1:
        return not sentence
    return not sentence and {one, other} != {one.upper(), one.lower()}


def _normal(text: str) -> tuple[str, bool]:
    """One way of writing; and whether its signs were kept, which is so unless all is punctuation.

    Brackets count where something could be grouped by them.
    """
    text = re.sub(r"_(?:\{(\w+)\}|([^\W_]+))", r"\1\2", _HYPHEN.sub(_without_hyphen, text))
    exact = bool(_SAYS_SOMETHING.search(text))
    exact = exact or bool(re.search(r"[-/]", text) and re.search(r"[(\[{]", text))
    if exact:
        for pattern, written in _SYNONYMS:
            text = pattern.sub(written, text)
    else:
        text = re.sub(r"(?<=\w)'(?=\w)", "", text)
        text = re.sub(r"[^\w\s.%/-]|_|\.(?!\d)", " ", text)
    text = " ".join(_ARTICLE.sub(" ", text).split())
    if re.fullmatch(r"[A-Za-z](?: [A-Za-z])+", text):
        text = text.replace(" ", "")  # a product: `m g h`
    return re.sub(r"\s*([^\w\s.])\s*" if exact else r"\s*([/-])\s*", r"\1", text), exact
