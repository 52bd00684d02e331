"""The toy shop: synthetic shopping sessions in plain English whose bundles are known to the last reason.

A session is drawn by throwing products together; its bundles are then *read off* by the shop's laws, so that each
bundle can be told from the titles and the catalogue alone, and each comes with its `Why`:

- **plain**: one product in several colours or sizes. Neither rule nor reasoning is needed.
- **rule** `R1`: products of one kind are alternatives; accessories only if they are for the same device.
- **rule** `R2` and on: different kinds of things for one activity go together.
- **reasoning**: a device and the accessories that fit it, by model name (a case for the Lumo 7) or by a
  standard that only the catalogue connects with the model (a lens with the K mount).

Items in no bundle are distractors, among them accessories for a device that is not there. A bundle never lies
inside another, but bundles may overlap. Results on the toy shop support no claim about real shoppers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import accumulate, combinations
from typing import Literal, NamedTuple

from .sessions import SPLITS, Bundle, Session
from .toyproducts import (
    ACTIVITIES,
    CATALOGUE,
    FITTING,
    KINDS,
    MODELS,
    Product,
    accessory_target,
    draw_product,
    fits,
)

SIZES = {"train": 600, "validation": 120, "test": 240}
"""Sessions per split."""
SEED = 2508
"""All splits are cut, in the order of `SIZES`, from one draw with this seed."""
MIN_ITEMS, MAX_ITEMS, MAX_BUNDLE = 3, 10, 5


class Why(NamedTuple):
    """Why a set of items is a bundle."""

    kind: Literal["plain", "rule", "reasoning"]
    """What it takes to find the bundle: nothing special, a general rule, or reasoning about this session."""
    rule: str
    """Id in `RULES` of the rule that gives a `rule` bundle; empty for the other kinds."""
    reasoning: str
    """One sentence that leads to the bundle, whatever its kind. Item numbers follow the word item or items;
    other numerals (the Lumo 7, 50 mm) do not."""


class Reading(NamedTuple):
    """A bundle as the shop's laws see it."""

    bundle: Bundle
    intent: str
    why: Why


def _listing(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def items_text(numbers: Sequence[int] | Bundle) -> str:
    """Item numbers as every text of the toy shop writes them.

    >>> items_text({5, 2, 3}), items_text([4])
    ('items 2, 3 and 5', 'item 4')
    """
    return f"item{'s' if len(numbers) > 1 else ''} {_listing([str(n) for n in sorted(numbers)])}"


def _rules() -> dict[str, str]:
    texts = [
        "Products of the same kind, by different makers or in different styles, are alternatives that one "
        "shopper compares: they make a bundle. Accessories are alternatives only if they are for the same device."
    ]
    for activity, kinds in ACTIVITIES.items():
        things = _listing([KINDS[kind]["plural"] for kind in kinds])
        texts.append(f"Different kinds of things for {activity} make a bundle: {things}.")
    return {f"R{number}": text for number, text in enumerate(texts, start=1)}


RULES = _rules()
"""The shop's general rules by id: `R1` for alternatives, then one per activity as `ACTIVITIES` orders them."""


# --- the laws: from products to bundles -----------------------------------------------------------------------


def read_bundles(products: Sequence[Product]) -> list[Reading]:
    """The bundles of a session, by the laws at the top of this module, sorted by their items."""
    readings = [*_variants(products), *_alternatives(products), *_activities(products), *_devices(products)]
    return sorted(readings, key=lambda reading: sorted(reading.bundle))


def _groups(products: Sequence[Product], key: Callable[[Product], object]) -> dict[object, dict[int, Product]]:
    """Numbered products by their key, those with a key of `None` left out."""
    groups: dict[object, dict[int, Product]] = {}
    for number, product in enumerate(products, start=1):
        if key(product) is not None:
            groups.setdefault(key(product), {})[number] = product
    return groups


def _variants(products: Sequence[Product]) -> Iterator[Reading]:
    for line, group in _groups(products, lambda p: p.line).items():
        if len(group) > 1:
            text = f"{items_text(group).capitalize()} are the same {line.title} in different {line.variants}."
            intent = f"choose among {line.variants} of the {line.title}"
            yield Reading(frozenset(group), intent, Why("plain", "", text))


def _alternatives(products: Sequence[Product]) -> Iterator[Reading]:
    for (kind, target), group in _groups(products, lambda p: (p.kind, p.target)).items():
        if len({p.line for p in group.values()}) > 1:
            name = KINDS[kind]["plural"] + (f" for the same {FITTING[kind][0]['name']}" if target else "")
            text = f"{items_text(group).capitalize()} are {name}, so they are alternatives."
            yield Reading(frozenset(group), f"compare {name}", Why("rule", "R1", text))


def _activities(products: Sequence[Product]) -> Iterator[Reading]:
    for rule, (activity, kinds) in zip(list(RULES)[1:], ACTIVITIES.items(), strict=True):
        group = {n: p for n, p in enumerate(products, start=1) if p.kind in kinds}
        if len({p.kind for p in group.values()}) > 1:
            text = f"{items_text(group).capitalize()} are different things for {activity}."
            yield Reading(frozenset(group), f"things for {activity}", Why("rule", rule, text))


def _devices(products: Sequence[Product]) -> Iterator[Reading]:
    devices = _groups(products, lambda p: p.line if p.maker in MODELS else None)
    for device, group in devices.items():
        fitting = {n: p for n, p in enumerate(products, start=1) if fits(p, device)}
        if fitting:
            bundle = frozenset(group) | frozenset(fitting)
            clauses = _listing([f"item {n} {_fit_text(accessory, device)}" for n, accessory in fitting.items()])
            text = f"{clauses}, which is {items_text(group)}, so {items_text(bundle)} go together."
            why = Why("reasoning", "", text[0].upper() + text[1:])
            yield Reading(bundle, f"equip the {device.maker}", why)
    present = {device.maker for device in devices}
    for model, group in _groups(products, lambda p: p.target if p.target in MODELS else None).items():
        if model not in present and len({p.kind for p in group.values()}) > 1:
            text = f"{items_text(group).capitalize()} are made for the same {MODELS[model]['name']}, the {model}."
            yield Reading(frozenset(group), f"equip the {model}", Why("reasoning", "", text))


def _fit_text(accessory: Product, device: Product) -> str:
    if accessory.target == device.maker:
        return f"is made for the {device.maker}"
    return f"({accessory.target}) fits the {device.maker}"


# --- the draw: from chance to products ------------------------------------------------------------------------


def _some_variants(rng: random.Random) -> list[Product]:
    first = draw_product(rng, rng.choice([kind for kind in KINDS if KINDS[kind].get("variants") != "none"]))
    chosen = rng.sample(CATALOGUE["variants"][first.variants], rng.choice([2, 2, 3]))
    return [first._replace(variant=variant) for variant in chosen]


def _some_alternatives(rng: random.Random) -> list[Product]:
    first = draw_product(rng, rng.choice(list(KINDS)))
    others = range(rng.choice([1, 1, 2]))
    return [first, *(draw_product(rng, first.kind, target=first.target) for _ in others)]


def _some_activity(rng: random.Random) -> list[Product]:
    kinds = rng.choice(list(ACTIVITIES.values()))
    return [draw_product(rng, kind) for kind in rng.sample(kinds, rng.choice([2, 3, 3, 4]))]


def _two_activities(rng: random.Random) -> list[Product]:
    """Things for two activities and one that serves both: overlapping bundles."""
    shared = [(a, b, kind) for a, b in combinations(ACTIVITIES.values(), 2) for kind in a if kind in b]
    one, other, hinge = rng.choice(shared)
    kinds = [hinge]
    for group in (one, other):
        kinds += rng.sample([kind for kind in group if kind != hinge], rng.choice([1, 1, 2]))
    return [draw_product(rng, kind) for kind in kinds]


def _some_device(rng: random.Random) -> list[Product]:
    device = draw_product(rng, rng.choice(CATALOGUE["devices"])["name"])
    accessories = _accessories(rng, device)
    return accessories if len(accessories) > 2 and rng.random() < 0.2 else [device, *accessories]


def _two_devices(rng: random.Random) -> list[Product]:
    """Two devices to compare, with accessories for one of them: overlapping bundles."""
    device = draw_product(rng, rng.choice(CATALOGUE["devices"])["name"])
    return [device, draw_product(rng, device.kind), *_accessories(rng, device)]


def _accessories(rng: random.Random, device: Product) -> list[Product]:
    """Some that fit the device and some that may not."""
    kinds = list(KINDS[device.kind]["accessories"])
    chosen = rng.sample(kinds, rng.randint(1, len(kinds)))
    fitting = [draw_product(rng, kind, target=accessory_target(kind, device.maker)) for kind in chosen]
    return [*fitting, *(draw_product(rng, rng.choice(kinds)) for _ in range(rng.choice([0, 1, 1, 2])))]


_PARTS = (_some_variants, _some_alternatives, _some_activity, _two_activities, _some_device, _two_devices)
_WEIGHTS = (5, 3, 4, 2, 9, 3)


def draw_products(rng: random.Random) -> list[Product]:
    """Throw 3 to 10 different products together, some of them related."""
    while True:
        parts = rng.choices(_PARTS, _WEIGHTS, k=rng.choice([1, 2, 2, 3]))
        products = [product for part in parts for product in part(rng)]
        products += [draw_product(rng, rng.choice(list(KINDS))) for _ in range(rng.choice([0, 1, 1, 2, 3]))]
        if MIN_ITEMS <= len(products) <= MAX_ITEMS and len(set(products)) == len(products):
            rng.shuffle(products)
            return products


def _is_clear(bundles: Sequence[Bundle]) -> bool:
    """Whether there is a bundle, none is large and none lies inside another."""
    nested = any(a <= b or b <= a for a, b in combinations(bundles, 2))
    return bool(bundles) and not nested and all(len(bundle) <= MAX_BUNDLE for bundle in bundles)


def generate(n: int, *, seed: int) -> tuple[Session, ...]:
    """Draw `n` sessions, no two of which hold the same set of titles.

    The same seed gives the same sessions everywhere, and a longer draw begins with the shorter one.

    Args:
        n: number of sessions, at least 1.
        seed: any integer.

    Raises:
        TypeError: `n` or `seed` is no integer.
        ValueError: `n` is below 1.
    """
    for name, value in (("n", n), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} is {value!r}; give an integer")
    if n < 1:
        raise ValueError(f"n is {n}; ask for at least one session")
    rng = random.Random(seed)
    seen: set[frozenset[str]] = set()
    sessions: list[Session] = []
    while len(sessions) < n:
        products = draw_products(rng)
        readings = read_bundles(products)
        titles = tuple(product.title for product in products)
        if frozenset(titles) in seen or not _is_clear([reading.bundle for reading in readings]):
            continue
        seen.add(frozenset(titles))
        session = Session(
            id=len(sessions) + 1,
            items=tuple(title.lower().replace(",", "").replace(" ", "-") for title in titles),
            titles=titles,
            bundles=tuple(reading.bundle for reading in readings),
            intents=tuple(reading.intent for reading in readings),
            why=tuple(reading.why for reading in readings),
        )
        sessions.append(session)
    return tuple(sessions)


@cache
def load(split: str) -> tuple[Session, ...]:
    """The sessions of one split; ids and sets of titles are disjoint over the splits.

    Raises:
        ValueError: unknown split.
    """
    if split not in SIZES:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    end = dict(zip(SIZES, accumulate(SIZES.values()), strict=True))[split]
    return generate(sum(SIZES.values()), seed=SEED)[end - SIZES[split] : end]
