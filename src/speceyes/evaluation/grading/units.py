"""Units of measure: their names, and what one of a kind is in another of its kind."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

ALIASES: Final = {
    "cm": "cm centimeter centimeters centimetre centimetres",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "m": "m meter meters metre metres",
    "km": "km kilometer kilometers kilometre kilometres",
    "in": "in inch inches ″",
    "ft": "ft foot feet ′",
    "yd": "yd yard yards",
    "mi": "mi mile miles",
    "mph": "mph",
    "km/h": "km/h kmh kph kmph",
    "m/s": "m/s",
    "m^2": "m^2 sqm",
    "cm^2": "cm^2",
    "mm^2": "mm^2",
    "km^2": "km^2",
    "m^3": "m^3",
    "cm^3": "cm^3 cc",
    "g": "g gram grams gramme grammes",
    "kg": "kg kgs kilogram kilograms kilo kilos",
    "mg": "mg milligram milligrams",
    "t": "t ton tons tonne tonnes",
    "lb": "lb lbs pound pounds",
    "oz": "oz ounce ounces",
    "l": "l liter liters litre litres",
    "cl": "cl centiliter centiliters centilitre centilitres",
    "ml": "ml milliliter milliliters millilitre millilitres",
    "s": "s sec secs second seconds",
    "ms": "ms millisecond milliseconds",
    "min": "min mins minute minutes",
    "h": "h hr hrs hour hours",
    "d": "day days",
    "wk": "wk week weeks",
    "yr": "yr yrs year years",
    "%": "% percent pct",
    "°": "° deg degree degrees",
    "°c": "°c celsius",
    "°f": "°f fahrenheit",
    "$": "$ usd dollar dollars bucks",
    "¢": "¢ cent cents",
    "€": "€ eur euro euros",
    "£": "£ gbp",
    "¥": "¥ yen yuan rmb cny",
    "px": "px pixel pixels",
    "kb": "kb",
    "mb": "mb",
    "gb": "gb",
    "w": "w watt watts",
    "kw": "kw kilowatt kilowatts",
    "mw": "megawatt megawatts",
    "v": "v volt volts",
    "mv": "mv millivolt millivolts",
    "hz": "hz hertz",
    "khz": "khz kilohertz",
    "mhz": "mhz megahertz",
    "ghz": "ghz gigahertz",
    "kcal": "kcal",
    "x": "",
}
UNIT: Final = {word: unit for unit, words in ALIASES.items() for word in words.split()}
PHRASES: Final = {
    "degrees celsius": "°c",
    "degree celsius": "°c",
    "degrees fahrenheit": "°f",
    "degrees c": "°c",
    "degrees f": "°f",
    "° c": "°c",
    "° f": "°f",
    "per cent": "%",
    "square meters": "m^2",
    "square metres": "m^2",
    "square centimeters": "cm^2",
    "square centimetres": "cm^2",
    "square kilometers": "km^2",
    "square kilometres": "km^2",
    "cubic meters": "m^3",
    "cubic metres": "m^3",
    "cubic centimeters": "cm^3",
    "cubic centimetres": "cm^3",
    "kilometers per hour": "km/h",
    "kilometres per hour": "km/h",
    "miles per hour": "mph",
    "meters per second": "m/s",
    "metres per second": "m/s",
    "pounds sterling": "£",
    "pound sterling": "£",
    "british pounds": "£",
    "us dollars": "$",
    "u.s. dollars": "$",
}

_RATES: Final = {"mi/h": "mph"}


def unit_of(word: str) -> str | None:
    """The unit of a word, a rate such as "miles/hour" included; None where it is none.

    Example:
        >>> unit_of("Miles/hour"), unit_of("metres"), unit_of("cats")
        ('mph', 'm', None)
    """
    word = word.casefold()
    known = UNIT.get(word)
    above, slash, below = word.partition("/")
    if known or not slash:
        return known or None
    one, other = UNIT.get(above), UNIT.get(below)
    rate = f"{one}/{other}" if one and other else None
    return _RATES.get(rate or "", rate)


_KINDS: Final = {
    "length": {
        "mm": "1/1000", "cm": "1/100", "m": "1", "km": "1000",
        "in": "0.0254", "ft": "0.3048", "yd": "0.9144", "mi": "1609.344",
    },
    "area": {"mm^2": "1/1000000", "cm^2": "1/10000", "m^2": "1", "km^2": "1000000"},
    "volume": {"ml": "1/1000", "cm^3": "1/1000", "cl": "1/100", "l": "1", "m^3": "1000"},
    "mass": {
        "mg": "1/1000000", "g": "1/1000", "kg": "1", "t": "1000",
        "oz": "0.028349523125", "lb": "0.45359237",
    },
    "time": {"ms": "1/1000", "s": "1", "min": "60", "h": "3600", "d": "86400", "wk": "604800"},
    "speed": {"m/s": "1", "km/h": "5/18", "mph": "0.44704"},
    "power": {"w": "1", "kw": "1000", "mw": "1000000"},
    "voltage": {"mv": "1/1000", "v": "1"},
    "frequency": {"hz": "1", "khz": "1000", "mhz": "1000000", "ghz": "1000000000"},
    "money": {"¢": "1/100", "$": "1"},
}  # fmt: skip
"""Units by kind, in the first of them that is 1. A ton is taken for a tonne; kilobytes, degrees and
currencies have no one factor, and are left as they are.
"""
_FACTORS: Final = {
    unit: (kind, Fraction(factor))
    for kind, units in _KINDS.items()
    for unit, factor in units.items()
}


def in_base(value: Fraction, unit: str) -> tuple[str, Fraction] | None:
    """A quantity as (kind, value in the kind's base unit); None where its unit has no kind.

    Example:
        >>> in_base(Fraction(30), "mm") == in_base(Fraction(3), "cm")
        True
    """
    found = _FACTORS.get(unit)
    return found and (found[0], value * found[1])
