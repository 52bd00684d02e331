"""All fusions by name, and a fusion from what was saved of it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from .arrow import Arrow, GenKnowSub
from .base import Fusion
from .flow import Hard, LoraFlow
from .furina import Furina
from .fusion import Average, Dynamic, OneHot, Static, Ties
from .knots import DareTies, Knots
from .lorahub import LoraHub
from .xlora import XLora

FUSIONS: dict[str, type[Fusion]] = {
    cls.__name__: cls
    for cls in (
        *(Average, OneHot, Static, Dynamic, Ties),
        *(Arrow, GenKnowSub, Knots, DareTies, LoraFlow, LoraHub, Furina, XLora, Hard),
    )
}
"""The fusions by name."""


def fusion_from_json(data: dict[str, Any]) -> Fusion:
    """Read back what `Fusion.to_json` wrote.

    Raises:
        ValueError: no such fusion or setting.
    """
    name = data.get("fusion")
    if name not in FUSIONS:
        raise ValueError(f"unknown fusion {name!r}: choose one of {', '.join(FUSIONS)}")
    known = {f.name for f in fields(FUSIONS[name])}
    settings = {key: value for key, value in data.items() if key != "fusion"}
    if unknown := sorted(settings.keys() - known):
        raise ValueError(f"{name} has no setting {unknown[0]!r}: it has {', '.join(sorted(known)) or 'none'}")
    return FUSIONS[name](**settings)
