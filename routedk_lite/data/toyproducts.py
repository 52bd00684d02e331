"""The goods of the toy shop: its catalogue, its products and how their titles are written."""

from __future__ import annotations

import json
import random
from functools import cache
from typing import NamedTuple

from ..files import asset

CATALOGUE = json.loads(asset("toyshop", "catalogue.json").read_text(encoding="utf-8"))
KINDS = {kind["name"]: kind for kind in CATALOGUE["kinds"] + CATALOGUE["devices"]}
"""Every kind of product by name."""
ACTIVITIES: dict[str, list[str]] = CATALOGUE["activities"]
"""The kinds of things that each activity needs."""
MODELS = {model: device for device in CATALOGUE["devices"] for model in device["models"]}
"""The device of each model name."""
FITTING = {kind: (device, by) for device in CATALOGUE["devices"] for kind, by in device["accessories"].items()}
"""For each kind of accessory its device, and by which standard (or `model`) it fits."""


class Product(NamedTuple):
    """One product; `title` is how a session shows it."""

    kind: str
    maker: str
    """Brand, or the model name of a device."""
    style: str = ""
    target: str = ""
    """What an accessory is made for: a model name or a standard."""
    variant: str = ""
    """Colour or size."""

    @property
    def title(self) -> str:
        """The title, in plain English.

        >>> Product("phone case", "Aero", "slim", target="Lumo 7", variant="blue").title
        'Aero slim phone case for Lumo 7, blue'
        """
        text = " ".join(part for part in (self.maker, self.style, self.kind) if part)
        if self.target:
            text += f" for {self.target}" if self.target in MODELS else f", {self.target}"
        return f"{text}, {self.variant}" if self.variant else text

    @property
    def line(self) -> Product:
        """The product whatever its colour or size."""
        return self._replace(variant="")

    @property
    def variants(self) -> str:
        """What its variants differ in: `colours`, `sizes` or `none`."""
        return KINDS[self.kind].get("variants", "colours")


@cache
def standards(model: str) -> frozenset[str]:
    """All that an accessory for this model may name: the model itself and its standards.

    >>> sorted(standards("Optra M3"))
    ['K mount', 'NP40', 'Optra M3']
    """
    return frozenset({model, *MODELS[model]["models"][model].values()})


def fits(accessory: Product, device: Product) -> bool:
    """Whether the accessory is made for the device."""
    return device.maker in MODELS and accessory.target in standards(device.maker)


def accessory_target(kind: str, model: str) -> str:
    """What an accessory of this kind for this model names in its title.

    >>> accessory_target("lens", "Optra M3"), accessory_target("phone case", "Lumo 7")
    ('K mount', 'Lumo 7')
    """
    device, by = FITTING[kind]
    return model if by == "model" else device["models"][model][by]


def draw_product(rng: random.Random, kind: str, *, target: str | None = None) -> Product:
    """A random product of a kind; `target` fixes what an accessory is made for."""
    entry = KINDS[kind]
    if "models" in entry:
        maker, style = rng.choice(list(entry["models"])), ""
    else:
        maker, style = rng.choice(CATALOGUE["brands"][entry["brands"]]), rng.choice(entry["styles"])
    if kind in FITTING and target is None:
        target = accessory_target(kind, rng.choice(list(FITTING[kind][0]["models"])))
    product = Product(kind, maker, style, target or "")
    variants = CATALOGUE["variants"][product.variants]
    return product._replace(variant=rng.choice(variants)) if variants else product


@cache
def kind_in_title(title: str) -> str | None:
    """The kind that a title names: the longest name in it; `None` if there is none.

    >>> kind_in_title("Aero slim phone case for Lumo 7, blue"), kind_in_title("Lumo 7 phone")
    ('phone case', 'phone')
    """
    return max((kind for kind in KINDS if kind in title.lower()), key=len, default=None)
