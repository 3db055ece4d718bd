"""Units of measurement as powers of base units, so that `100 cm` is `1 m` and `5 N` is no `5 J`.

A word that is no known unit counts as a unit of its own name: `5 apples` is not `5 pears`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

Powers = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Unit:
    scale: Fraction
    """How many of the base units one of it is."""
    powers: Powers
    """Of base units, sorted by name."""
    known: bool
    """Every word of it is a unit that we know."""


ONE = Unit(Fraction(1), (), True)

_PREFIXES = {
    "": 0,
    **{"T": 12, "G": 9, "M": 6, "k": 3, "h": 2, "da": 1, "d": -1, "c": -2, "m": -3},
    **{"\u03bc": -6, "u": -6, "n": -9, "p": -12, "f": -15},
    **{"giga": 9, "mega": 6, "kilo": 3, "centi": -2, "milli": -3, "micro": -6, "nano": -9},
}
# Symbol, and the words for it: take prefixes.
_SCALED = {
    "m meter metre": "1 m",
    "g gram gramme": "1/1000 kg",
    "s sec second": "1 s",
    "A amp ampere": "1 A",
    "K kelvin": "1 K",
    "mol mole": "1 mol",
    "Hz hertz": "1 s-1",
    "N newton": "1 kg m s-2",
    "Pa pascal": "1 kg m-1 s-2",
    "J joule": "1 kg m2 s-2",
    "W watt": "1 kg m2 s-3",
    "C coulomb": "1 A s",
    "V volt": "1 kg m2 s-3 A-1",
    "F farad": "1 kg-1 m-2 s4 A2",
    "\u03a9 ohm \\Omega": "1 kg m2 s-3 A-2",
    "T tesla": "1 kg s-2 A-1",
    "H henry": "1 kg m2 s-2 A-2",
    "Wb weber": "1 kg m2 s-2 A-1",
    "L l liter litre": "1/1000 m3",
    "eV": "1602176634/10000000000000000000000000000 kg m2 s-2",
    "cal calorie": "4184/1000 kg m2 s-2",
    "bar": "100000 kg m-1 s-2",
    "Wh": "3600 kg m2 s-2",
    "Nm": "1 kg m2 s-2",
    "Ns": "1 kg m s-1",
}
_PLAIN = {
    "min minute": "60 s",
    "h hr hour": "3600 s",
    "day": "86400 s",
    "week": "604800 s",
    "ft foot feet": "3048/10000 m",
    "in inch inches": "254/10000 m",
    "yd yard": "9144/10000 m",
    "mi mile": "1609344/1000 m",
    "mph": "44704/100000 m s-1",
    "kph kmph": "1000/3600 m s-1",
    "lb lbs": "45359237/100000000 kg",
    "ton tonne": "1000 kg",
    "atm": "101325 kg m-1 s-2",
    "deg degree \u00b0": "1 deg",
    "\u00b0C degC celsius": "1 degC",
    "\u00b0F degF fahrenheit": "1 degF",
    "rad radian": "1 rad",
    "% percent": "1 %",
    "$ dollar USD": "1 USD",
    "\u20ac euro EUR": "1 EUR",
    "\u00a3 GBP": "1 GBP",
    "\u00a5 yen JPY": "1 JPY",
    "M": "1000 mol m-3",
    "mM": "1 mol m-3",
    "oz ounce": "45359237/1600000000 kg",
    "Kg": "1 kg",
    "Km": "1000 m",
    "unit": "1",
}


def _table() -> dict[str, Unit]:
    table: dict[str, Unit] = {}
    for names, value in (*_SCALED.items(), *_PLAIN.items()):
        scale, *factors = value.split()
        powers = []
        for factor in factors:
            found = re.fullmatch(r"([A-Za-z%]+)(-?\d)?", factor)
            assert found is not None, factor
            powers.append((found[1], int(found[2] or 1)))
        for name in names.split():
            word = len(name) >= 3 and name.isalpha() and name.islower()
            for prefix, power in _PREFIXES.items() if names in _SCALED else [("", 0)]:
                if prefix and (not word if len(prefix) > 2 else len(name) > 3):
                    continue  # kilometer and km, not kilom and kmeter
                unit = Unit(Fraction(scale) * Fraction(10) ** power, tuple(sorted(powers)), True)
                for ending in ("", "s") if word else ("",):
                    table.setdefault(prefix + name + ending, unit)
    return table


_TABLE = _table()
_FACTOR = re.compile(r"(?P<name>[^\d^\s/*()-]+)\^?(?P<power>[-+]?\d+)?")


def read_unit(text: str) -> Unit | None:
    """`m/s^2`, `m s^{-2}`, `square meters`, `apples`; None for what is no unit."""
    text = re.sub(r"\\cdot|\u00b7|\u22c5|\*", " ", text)
    text = re.sub(r"[{}()]", "", text)
    text = re.sub(r"\b(?:square|sq\.?)\s+(\S+)", r"\1^2", text, flags=re.IGNORECASE)
    text = re.sub(r"\bcubic\s+(\S+)", r"\1^3", text, flags=re.IGNORECASE)
    text = re.sub(r"(\S+)\s+squared\b", r"\1^2", text, flags=re.IGNORECASE)
    text = re.sub(r"\s+per\s+", "/", text, flags=re.IGNORECASE)
    text = re.sub(r"(?:\u00b0|\bdegrees?\b|\bdeg\b)\s*(C|F)(?:elsius|ahrenheit)?\b", r"deg\1", text)
    text = re.sub(r"\bms\^?-1", "m s^-1", text)  # what physicists write for m/s
    total, scale, known = Counter[str](), Fraction(1), True
    for number, part in enumerate(text.split("/")):
        for factor in part.split():
            found = _FACTOR.fullmatch(factor)
            if found is None or abs(int(found["power"] or 1)) > 9:
                return None
            power = int(found["power"] or 1) * (-1 if number else 1)
            unit = _named(found["name"])
            known = known and unit.known
            scale *= unit.scale**power
            for base, base_power in unit.powers:
                total[base] += base_power * power
    return Unit(scale, tuple(sorted((k, v) for k, v in total.items() if v)), known)


def _named(name: str) -> Unit:
    """Capitals count in symbols: Nm is no nm, and M is no metre. `Meters` and `CM` are forgiven."""
    spelled = name.lower() if len(name) > 3 or (len(name) > 1 and name.isupper()) else name
    for each in (name, spelled, name.rstrip(".")):
        if each in _TABLE:
            return _TABLE[each]
    return Unit(Fraction(1), ((name.lower().rstrip("s."), 1),), False)
