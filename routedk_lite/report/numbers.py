"""How pages spell numbers: three decimals, a true minus, and bounds that look like zero only where they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal

_NOISE = 1e-9
"""What is smaller is zero but for rounding."""


def plain(value: float) -> str:
    """Three decimals."""
    return f"{value:.3f}"


def minus(number: str) -> str:
    """A spelled number with a true minus.

    >>> minus("-3.1 %")
    '−3.1 %'
    """
    return number.replace("-", "−")


def signed(value: float) -> str:
    """Three decimals with their sign, a true minus.

    >>> signed(-0.0021), signed(0.0001)
    ('−0.002', '0.000')
    """
    text = minus(f"{value:+.3f}")
    return "0.000" if text[1:] == "0.000" else text


def bound(value: float, spelled: Callable[[float], str] = signed) -> str:
    """The end of an interval: one that is not zero never reads zero, since the side of zero is what it tells.

    >>> bound(0.0194), bound(0.00021), bound(-0.00021), bound(0.0)
    ('+0.019', '+0.0002', '−0.0002', '0.000')
    """
    text = spelled(value)
    if text.endswith("%") or any(digit in text for digit in "123456789") or not _NOISE < abs(value) < math.inf:
        return text
    sign = "−" if value < 0 else "+" if spelled(1.0).startswith("+") else ""
    return f"{sign}{Decimal(f'{abs(value):.1g}'):f}"  # one digit that is not zero


def between(low: float, high: float, spelled: Callable[[float], str] = plain, *, joint: str = ", ") -> str:
    """An interval in brackets.

    >>> between(0.0002, 0.081, signed)
    '[+0.0002, +0.081]'
    """
    return f"[{bound(low, spelled)}{joint}{bound(high, spelled)}]"


def listed(parts: Sequence[str]) -> str:
    """One, two and three.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
