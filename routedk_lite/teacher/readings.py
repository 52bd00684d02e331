"""Rules of the recorded teacher, and of the toy shop's, as conditions that can be held against annotated sessions.

A rule is a sentence, and code cannot weigh a sentence. Each reading here takes the part of a rule that can be told from
titles, and says what it is compared with. Another reader may read otherwise: that is why they stand here to be seen.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ..data.sessions import Session
from ..data.toyproducts import ACTIVITIES, FITTING, MODELS, kind_in_title
from ..statistics import Interval, bootstrap_interval
from .evidence import Condition, Item
from .kinds import KindExtractor
from .knowledge import Rule


class Reading(NamedTuple):
    """What a rule says of pairs of products."""

    rule: str
    """Id of the rule."""
    claim: str
    """The comparison in a few words: what the rule joins, against what."""
    favoured: Condition
    others: Condition | None = None
    """`None`: all pairs that are not favoured."""

    @property
    def name(self) -> str:
        """For figures."""
        return f"{self.rule}: {self.claim}"


# --- conditions ---------------------------------------------------------------------------------------------------


def same_kind(a: Item, b: Item) -> bool:
    """Both titles name the same kind of product."""
    return a.kind is not None and a.kind == b.kind


def same_brand(a: Item, b: Item) -> bool:
    """Both titles begin with the same word."""
    return a.brand == b.brand


def both_of(kinds: Iterable[str]) -> Condition:
    """Two different kinds of a group."""
    group = frozenset(kinds)
    return lambda a, b: a.kind in group and b.kind in group and a.kind != b.kind


def one_of(kinds: Iterable[str]) -> Condition:
    """One product of a group, and one that is not."""
    group = frozenset(kinds)
    return lambda a, b: (a.kind in group) != (b.kind in group)


def _words(title: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z][a-z0-9]{2,}", title.lower()))


def rare_word(sessions: Iterable[Session], *, at_most: int = 20) -> Condition:
    """Both titles have a word that so few titles of these sessions have: a device family, a line, a standard."""
    found = Counter(word for session in sessions for title in session.titles for word in _words(title))
    return lambda a, b: any(found[word] <= at_most for word in _words(a.title) & _words(b.title))


_WEARER = re.compile(r"\b(women|girl|boy|baby|maternity|men)")


def _wearers(a: Item, b: Item) -> tuple[str, str] | None:
    """Who wears two products of one kind, where both titles say so."""
    found = [_WEARER.search(item.title.lower()) for item in (a, b)]
    return (found[0][1], found[1][1]) if same_kind(a, b) and all(found) else None


def _same_wearer(a: Item, b: Item) -> bool:
    return (found := _wearers(a, b)) is not None and found[0] == found[1]


def _other_wearer(a: Item, b: Item) -> bool:
    return (found := _wearers(a, b)) is not None and found[0] != found[1]


def _kind_not_brand(a: Item, b: Item) -> bool:
    return same_kind(a, b) and not same_brand(a, b)


def _brand_not_kind(a: Item, b: Item) -> bool:
    return same_brand(a, b) and not same_kind(a, b)


# --- the public domains -------------------------------------------------------------------------------------------

CONNECTORS = ("cable", "adapter", "adaptor", "converter", "splitter", "cord", "connector", "wire", "extender")
PROTECTION = ("case", "sleeve", "bag", "cover", "skin", "screen protector", "film", "backpack", "briefcase")
COMPUTER_PARTS = ("motherboard", "processor", "graphic card", "cooler", "cpu cooler", "fan", "power supply", "memory",
                  "solid state drive", "drive", "ram", "enclosure")  # fmt: skip
DEVICES = ("camera", "digital slr camera", "camcorder", "tablet", "hdtv", "player", "monitor")
ACCESSORIES = ("case", "card", "memory", "battery", "li-ion battery", "charger", "mount", "control", "lens", "filter",
               "protection plan", "tripod", "lens hood", "bag")  # fmt: skip
SCREENS = ("hdtv", "receiver", "player", "monitor", "projector")
FOOTWEAR = ("boot", "sandal", "shoe", "pump", "sneaker", "running shoe", "flat", "slipper", "bootie", "ballet flat",
            "flip flop", "oxford", "clog", "loafer", "mule", "mary jane", "slip-on")  # fmt: skip
PIECES = {"necklace": "neck", "pendant": "neck", "choker necklace": "neck", "chain": "neck", "ring": "finger",
          "earring": "ear", "stud earring": "ear", "hoop earring": "ear", "bracelet": "arm", "bangle": "arm",
          "charm": "charm"}  # fmt: skip
COSTUME = ("costume", "wig", "mask", "wing")
SNACKS = ("bar", "cookie", "snack", "chip", "cracker", "stick", "almond", "jerky", "nut", "cashew", "popcorn", "walnut",
          "pecan", "pistachios", "trail mix", "raisin", "crisp", "biscuit", "seaweed", "granola")  # fmt: skip
PASTA, TOMATO = ("pasta", "spaghetti", "noodle", "couscous"), "tomato"


def _piece(same: bool) -> Condition:
    return lambda a, b: a.kind in PIECES and b.kind in PIECES and (PIECES[a.kind] == PIECES[b.kind]) == same


def _fits_device(accessory: bool) -> Condition:
    """A device, and an accessory or else something that is neither."""
    wanted = set(ACCESSORIES)
    return lambda a, b: a.kind in DEVICES and b.kind not in DEVICES and (b.kind in wanted) == accessory


def _dish(tomato: bool) -> Condition:
    return lambda a, b: a.kind in PASTA and b.kind not in PASTA and (TOMATO in b.title.lower()) == tomato


def _drinks(same: bool) -> Condition:
    pair = {"coffee", "tea"}
    return lambda a, b: a.kind in pair and b.kind in pair and (a.kind == b.kind) == same


def pair_readings(domain: str, sessions: Iterable[Session]) -> tuple[Reading, ...]:
    """What the recorded rules of a public domain say of pairs, in their order; most rules say other things too.

    Args:
        domain: a public domain.
        sessions: training sessions; their titles tell which words are rare.

    Raises:
        ValueError: there are no readings for the domain.
    """
    if domain == "electronic":
        rare = rare_word(sessions)
        return (
            Reading("R2", "same kind", same_kind),
            Reading("R3", "device and accessory, or something else", _fits_device(True), _fits_device(False)),
            Reading("R6", "two computer parts, or one and another", both_of(COMPUTER_PARTS), one_of(COMPUTER_PARTS)),
            Reading("R8", "two connectors, or one and a screen", both_of(CONNECTORS),
                    lambda a, b: a.kind in CONNECTORS and b.kind in SCREENS),
            Reading("R9", "two protections, or one and another", both_of(PROTECTION), one_of(PROTECTION)),
            Reading("R10", "other kinds with a rare word, or without",
                    lambda a, b: rare(a, b) and not same_kind(a, b), lambda a, b: not same_kind(a, b)),
            Reading("R12", "kind without brand, or the reverse", _kind_not_brand, _brand_not_kind),
        )  # fmt: skip
    if domain == "clothing":
        return (
            Reading("R1", "same kind", same_kind),
            Reading("R5", "two sorts of shoes, or one and another", both_of(FOOTWEAR), one_of(FOOTWEAR)),
            Reading("R6", "one sort of jewellery, or two", _piece(True), _piece(False)),
            Reading("R7", "two costume pieces, or one and another", both_of(COSTUME), one_of(COSTUME)),
            Reading("R8", "kind without brand, or the reverse", _kind_not_brand, _brand_not_kind),
            Reading("R12", "same wearer, or another", _same_wearer, _other_wearer),
        )
    if domain == "food":
        return (
            Reading("R1", "same kind", same_kind),
            Reading("R5", "two sorts of snacks, or one and another", both_of(SNACKS), one_of(SNACKS)),
            Reading("R6", "one beverage, or coffee with tea", _drinks(True), _drinks(False)),
            Reading("R7", "kind without brand, or the reverse", _kind_not_brand, _brand_not_kind),
            Reading("R9", "pasta and tomato, or pasta and another", _dish(True), _dish(False)),
        )
    raise ValueError(f"no readings for domain {domain!r}: choose electronic, clothing or food")


# --- the toy shop's teacher ---------------------------------------------------------------------------------------


def toy_readings(rules: Mapping[str, Rule]) -> tuple[Reading, ...]:
    """What rules of `toyteacher.ToyTeacher` say of pairs, in their order; that on strays speaks of no pair."""
    found = ((rule, _toy_conditions(rule.text)) for rule in rules.values())
    return tuple(Reading(rule.id, *conditions) for rule, conditions in found if conditions)


def _toy_conditions(text: str) -> tuple[str, Condition, Condition | None] | None:
    if match := re.search(r"different kinds of things for (\w+)", text):
        kinds = set(ACTIVITIES[match[1]])
        return (f"{match[1]} things, or one and another", lambda a, b: _named(a, b) <= kinds and len(_named(a, b)) > 1,
                lambda a, b: len(_named(a, b) & kinds) == 1)  # fmt: skip
    if text.startswith("Bundle a device"):
        return "one device's name, other kinds", lambda a, b: bool(_models(a, b)) and len(_named(a, b)) > 1, None
    if text.startswith("Bundle one product"):
        return "same but for the last word", lambda a, b: _line(a) == _line(b), None
    if text.startswith("Bundle accessories"):
        return ("accessories of one kind, one device or two", lambda a, b: _accessories(a, b) and bool(_models(a, b)),
                lambda a, b: _accessories(a, b) and not _models(a, b))  # fmt: skip
    if text.startswith("Bundle products of one kind"):
        return "same kind", lambda a, b: len(_named(a, b)) == 1, None
    return None


def _named(a: Item, b: Item) -> set[str | None]:
    return {kind_in_title(a.title), kind_in_title(b.title)}


def _models(a: Item, b: Item) -> list[str]:
    return [model for model in MODELS if model in a.title and model in b.title]


def _line(a: Item) -> str:
    return a.title.rpartition(",")[0] or a.title


def _accessories(a: Item, b: Item) -> bool:
    return len(_named(a, b)) == 1 and kind_in_title(a.title) in FITTING


# --- what the teacher counted -------------------------------------------------------------------------------------


class Count(NamedTuple):
    """Something that the teacher counted in the sixty sessions that it reflected on, as the reason of a rule tells."""

    rule: str
    what: str
    told: float
    """The share."""
    n: int | None
    """Of how many; `None` where it does not say."""
    of: Callable[[Session, KindExtractor], tuple[int, int]]
    """Counts in one session: how many, of how many."""

    @property
    def name(self) -> str:
        """For figures."""
        return f"{self.rule}: {self.what}"

    @property
    def claimed(self) -> Interval:
        """The share with its Wilson interval, as if all that was counted were independent; none where n is not told."""
        if self.n is None:
            return Interval(self.told, self.told, self.told)
        from scipy.stats import binomtest

        interval = binomtest(round(self.told * self.n), self.n).proportion_ci(method="wilson")
        return Interval(self.told, interval.low, interval.high)

    def found(
        self, sessions: Iterable[Session], extractor: KindExtractor, *, generator: np.random.Generator
    ) -> Interval:
        """The same share among all sessions, with a bootstrap interval over sessions."""
        counts = np.array([self.of(session, extractor) for session in sessions], dtype=float).reshape(-1, 2)
        hits, n = counts[counts[:, 1] > 0].T
        return bootstrap_interval(hits / n, weights=n, generator=generator)


def _sizes(session: Session) -> list[int]:
    return [len(bundle) for bundle in set(session.bundles)]


def _size_in(*sizes: int) -> Callable[[Session, KindExtractor], tuple[int, int]]:
    return lambda session, _: (sum(size in sizes for size in _sizes(session)), len(_sizes(session)))


def _bundles_in(*numbers: int) -> Callable[[Session, KindExtractor], tuple[int, int]]:
    return lambda session, _: (int(len(_sizes(session)) in numbers), 1)


def _left_out(session: Session, _: KindExtractor) -> tuple[int, int]:
    return len(session) - len(frozenset().union(*session.bundles)), len(session)


def _shares_an_item(session: Session, _: KindExtractor) -> tuple[int, int]:
    return int(sum(_sizes(session)) > len(frozenset().union(*session.bundles))), 1


def _small_and_whole(session: Session, _: KindExtractor) -> tuple[int, int]:
    return int(max(_sizes(session)) == len(session)), int(len(session) <= 4)


def _one_kind(session: Session, extractor: KindExtractor) -> tuple[int, int]:
    kinds = extractor.kinds(session)
    found = [{kinds[number - 1] for number in bundle} for bundle in set(session.bundles)]
    return sum(len(kinds_in) == 1 and None not in kinds_in for kinds_in in found), len(found)


COUNTED = {
    "electronic": (
        Count("R4", "bundles of two", 50 / 83, 83, _size_in(2)),
        Count("R5", "whole, of sessions of 2 to 4", 0.5, 20, _small_and_whole),
        Count("R7", "products in no bundle", 0.31, None, _left_out),
        Count("R11", "sessions with one bundle", 42 / 60, 60, _bundles_in(1)),
        Count("R11", "sessions with two bundles", 15 / 60, 60, _bundles_in(2)),
        Count("R11", "sessions with overlap", 4 / 60, 60, _shares_an_item),
    ),
    "clothing": (
        Count("R1", "bundles of one kind", 0.75, 93, _one_kind),
        Count("R3", "bundles of two", 56 / 93, 93, _size_in(2)),
        Count("R3", "bundles of three", 25 / 93, 93, _size_in(3)),
        Count("R4", "sessions with one bundle", 33 / 60, 60, _bundles_in(1)),
        Count("R4", "sessions with two bundles", 21 / 60, 60, _bundles_in(2)),
        Count("R9", "products in no bundle", 0.36, None, _left_out),
    ),
    "food": (
        Count("R2", "sessions with one bundle", 44 / 60, 60, _bundles_in(1)),
        Count("R2", "sessions with one or two", 56 / 60, 60, _bundles_in(1, 2)),
        Count("R3", "bundles of two or three", 61 / 83, 83, _size_in(2, 3)),
        Count("R4", "products in no bundle", 0.30, None, _left_out),
        Count("R12", "sessions with overlap", 4 / 60, 60, _shares_an_item),
    ),
}
"""What the recorded rules count, by domain. Which sixty sessions they were is not recorded."""
