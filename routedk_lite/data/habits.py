"""Two habits: a task that no single set of weights can do, and a router can.

All products are accessories for phones: of some kinds (cases, screen protectors, charging docks) and made for some
models. Two habits divide them in opposite ways, so that no two items that one puts together are together for the other:

- **by kind**: accessories of one kind are alternatives that a shopper compares;
- **by use**: accessories for one phone are used together.

Shoppers who *compare* look at colours, and their titles end in one ("…, blue"). Shoppers who *equip* a phone do not.
So which habit is right stands in the prompt, and only there. An expert that has learned one habit is right about one
half of the sessions, and so is any fixed mixture of the two at best: this is the positive control of input-aware
routing. What a router gains here says nothing about real shoppers; it says that our instruments would show a gain.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from itertools import accumulate, product

from .sessions import Bundle, Session
from .toyproducts import CATALOGUE, MODELS, draw_product, kind_in_title

HABITS = ("by_kind", "by_use")
SIZES = {"train": 480, "validation": 120, "test": 240}
"""Sessions per split, about half of either kind."""
SEED = 2509
PHONE = next(device for device in CATALOGUE["devices"] if device["name"] == "phone")
MOST_ITEMS = 6


def right_habit(titles: Sequence[str]) -> str:
    """The habit of the shopper who looks at these titles.

    >>> right_habit(["Aero slim phone case for Lumo 7, blue", "Brisk wooden charging dock for Lumo 7, red"])
    'by_kind'
    """
    return "by_kind" if all("," in title for title in titles) else "by_use"


def habit_bundles(titles: Sequence[str], habit: str) -> tuple[Bundle, ...]:
    """The bundles of a session under one of the `HABITS`, whoever the shopper is.

    Raises:
        ValueError: no such habit.

    >>> titles = ["Aero slim phone case for Lumo 7", "Brisk phone case for Kiro 3", "Brisk charging dock for Lumo 7"]
    >>> habit_bundles(titles, "by_kind"), habit_bundles(titles, "by_use")
    ((frozenset({1, 2}),), (frozenset({1, 3}),))
    """
    if habit not in HABITS:
        raise ValueError(f"habit = {habit!r}: choose one of {', '.join(HABITS)}")
    groups: dict[str | None, set[int]] = {}
    for number, title in enumerate(titles, start=1):
        model = next((model for model in MODELS if title.split(",")[0].endswith(f" for {model}")), None)
        groups.setdefault(kind_in_title(title) if habit == "by_kind" else model, set()).add(number)
    return tuple(sorted((frozenset(group) for group in groups.values() if len(group) > 1), key=sorted))


def _draw(rng: random.Random) -> tuple[str, ...] | None:
    """The titles of a session, or `None` where the habits would not disagree about every pair."""
    kinds = rng.sample(list(PHONE["accessories"]), rng.choice([2, 3]))
    models = rng.sample(list(PHONE["models"]), rng.choice([2, 3]))
    cells = list(product(kinds, models))
    if len(cells) > MOST_ITEMS:
        return None
    if len(cells) == MOST_ITEMS and rng.random() < 0.5:
        cells.remove(rng.choice(cells))
    compares = rng.random() < 0.5
    colours = CATALOGUE["variants"]["colours"]
    products = [draw_product(rng, kind, target=model) for kind, model in cells]
    titles = [p._replace(variant=rng.choice(colours) if compares else "").title for p in products]
    rng.shuffle(titles)
    return tuple(titles)


@cache
def load(split: str) -> tuple[Session, ...]:
    """The sessions of one split with the bundles of the shopper's own habit; no set of titles comes twice."""
    end = dict(zip(SIZES, accumulate(SIZES.values()), strict=True))[split]
    rng, seen, sessions = random.Random(SEED), set(), []
    while len(sessions) < sum(SIZES.values()):
        titles = _draw(rng)
        if titles is None or frozenset(titles) in seen:
            continue
        seen.add(frozenset(titles))
        bundles = habit_bundles(titles, right_habit(titles))
        items = tuple(title.lower().replace(",", "").replace(" ", "-") for title in titles)
        intent = "compare accessories of one kind" if right_habit(titles) == "by_kind" else "equip one phone"
        sessions.append(
            Session(id=len(sessions) + 1, items=items, titles=titles, bundles=bundles, intents=(intent,) * len(bundles))
        )
    return tuple(sessions[end - SIZES[split] : end])
