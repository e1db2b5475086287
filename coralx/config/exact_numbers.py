"""Exact numbers of a config: decimals as they are written, and fractions such as 1/3.

Rounding a share before it is multiplied changes what is decided: 0.333333 of three genomes is none.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Real
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

_FRACTION = re.compile(r"\s*([+-]?\d+)\s*/\s*(\d+)\s*", re.ASCII)

MOST_DIGITS = 18
"""Of a numerator or a denominator: more than a config needs, and few enough to be fast."""


def exact(value: Any) -> Fraction:
    """A number of a config as the fraction that was written: 0.1 is a tenth, and not the binary
    number next to it, whether it comes as a number or as text. Raises ValueError.

    Decimals have the precision of a float (17 digits), which is what a YAML file holds.
    """
    if isinstance(value, Fraction):
        return _short(value.numerator, value.denominator)
    if isinstance(value, str) and (match := _FRACTION.fullmatch(value)):
        if max(map(len, match.groups())) > 2 * MOST_DIGITS:  # int() refuses thousands of digits
            raise ValueError(_TOO_LONG)
        return _short(int(match[1]), int(match[2]))
    if isinstance(value, bool) or not isinstance(value, Real | str | Decimal):
        raise ValueError(_EXPECTED)
    if isinstance(value, Integral):
        return Fraction(int(value))
    try:
        # float32's 0.1 is another float64 than 0.1; as text both are what was written.
        number = float(value if isinstance(value, float) else str(value))
    except (ValueError, OverflowError):
        raise ValueError(_EXPECTED) from None
    if not math.isfinite(number):
        raise ValueError("expected a finite number")
    return Fraction(repr(number))  # the shortest decimal that is this float, so what was written


_EXPECTED = "expected a number, or a fraction of two whole numbers such as 1/3"
_TOO_LONG = f"a fraction's numbers have at most {MOST_DIGITS} digits"


def _short(numerator: int, denominator: int) -> Fraction:
    if denominator == 0:
        raise ValueError("a fraction cannot have the denominator 0")
    if max(abs(numerator), denominator) >= 10**MOST_DIGITS:
        raise ValueError(_TOO_LONG)
    return Fraction(numerator, denominator)


def written(value: Fraction) -> int | float | str:
    """As a config writes it: a whole number, else a decimal, else text such as 1/3. `exact` reads
    the same number back."""
    if value.denominator == 1:
        return value.numerator
    decimal = float(value)
    return decimal if Fraction(repr(decimal)) == value else f"{value.numerator}/{value.denominator}"


Exact = Annotated[
    Fraction,
    PlainValidator(exact, json_schema_input_type=float | str),
    PlainSerializer(written, return_type=int | float | str),
]
"""Give its bounds as whole numbers or floats: pydantic's messages show others as Python's repr."""
