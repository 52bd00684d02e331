"""What a teacher LLM knows about bundles: general *rules*, and *reasoning* about single sessions.

The knowledge that ships with the package was recorded once from a large general-purpose LLM (`assets/teacher/`,
provenance in every file); the toy shop knows its own. It belongs to training sessions only: a test session is
always answered from its titles alone (RouteDK, inference).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ..config import KNOWLEDGE_KINDS
from ..data.own import domain_name, own_folder
from ..data.sessions import PUBLIC_DOMAINS, Bundle, DataError, Domain, Session
from ..files import UnreadableError, asset, read_json, sha256_json
from .own import check_distilled

MASK = "some"
"""What stands for item numbers where they are hidden."""


class Rule(NamedTuple):
    """One general rule that a teacher drew from its own mistakes."""

    id: str
    kind: str
    """`alternative`, `complement`, `granularity`, `distractor`, `grouping` or `other`."""
    text: str
    """The rule itself: the only part that a student ever sees."""
    why: str
    """The mistakes behind it. Names sessions' answers, so it is for readers, not for students."""


class Reasoning(NamedTuple):
    """A teacher's thoughts on one training session. They lead to its annotated bundles, and name them."""

    text: str
    rules: tuple[str, ...]
    """Ids of the rules that it rests on."""
    noisy: bool
    """Whether the teacher found the annotation wrong or arbitrary."""


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """A teacher's knowledge of one domain."""

    domain: str
    rules: Mapping[str, Rule]
    """By id, in the teacher's order."""
    reasoning: Mapping[int, Reasoning]
    """By id of the training session."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Who said it, when, and what for."""

    @property
    def explicit(self) -> bool:
        """Whether item numbers always follow the word item; the recorded teacher uses bare numbers."""
        return self.domain == "toyshop" or self.provenance.get("items") == "explicit"

    @cached_property
    def sha256(self) -> str:
        """Hash of all that a student may be told."""
        rules = [[rule.id, rule.text] for rule in self.rules.values()]
        return sha256_json([rules, [[id_, r.text, r.rules] for id_, r in self.reasoning.items()]])

    def rules_text(self, session: Session) -> str:
        """The texts of the rules that this session's reasoning cites, one a line."""
        return "\n".join(self.rules[rule].text for rule in self._of(session).rules)

    def reasoning_text(self, session: Session) -> str:
        """The reasoning about this session."""
        return self._of(session).text

    def text(self, session: Session, kind: str) -> str:
        """All that is known about a training session, of one of `config.KNOWLEDGE_KINDS`; empty if nothing is.

        Raises:
            ValueError: unknown kind.
            KeyError: nothing was recorded for this session: it is no training session.
        """
        if kind not in KNOWLEDGE_KINDS:
            raise ValueError(f"kind = {kind!r}: choose one of {', '.join(KNOWLEDGE_KINDS)}")
        parts = []
        if kind in ("rules", "both"):
            parts.append(self.rules_text(session))
        if kind in ("reasoning", "both"):
            parts.append(self.reasoning_text(session))
        return "\n".join(part for part in parts if part)

    def _of(self, session: Session) -> Reasoning:
        if session.id not in self.reasoning:
            raise KeyError(
                f"{self.domain}: no reasoning for session {session.called}; knowledge covers training sessions"
            )
        return self.reasoning[session.id]


# --- item references in free text ---------------------------------------------------------------------------------

_BARE = re.compile(r"(?<![\w.,-])(?<!\d[.,])\d+(?![\w-]|[.,]\d)")
_AFTER_ITEM = re.compile(r"\bitems? \d+(?:, \d+)*(?:,? (?:and|or) \d+)?", re.IGNORECASE)
_AMOUNT = re.compile(r"\b(?:pack|set|box|case|lot)s? of $", re.IGNORECASE)


def item_references(text: str, n_items: int, *, explicit: bool = False) -> Iterator[tuple[int, int]]:
    """Where a text refers to items by number, as (start, end) of the digits.

    A reference is a number of its own between 1 and `n_items`: the 14 of "14k", the 9 of "9-volt", the 2.5 of
    "2.5 inch" and the 6 of "pack of 6" are none.

    Args:
        text: free text about a session.
        n_items: number of items in the session.
        explicit: numbers count only after the word item or items.
    """
    spans = [m.span() for m in _AFTER_ITEM.finditer(text)] if explicit else [(0, len(text))]
    for start, end in spans:
        for match in _BARE.finditer(text, start, end):
            amount = _AMOUNT.search(text[max(0, match.start() - 10) : match.start()])
            digits = match.group()
            if len(digits) < 10 and 1 <= int(digits) <= n_items and not amount:
                yield match.span()


def rewrite_references(text: str, n_items: int, write: Callable[[int], str], *, explicit: bool = False) -> str:
    """The text with every item number replaced by what `write` gives for it; other numerals stay.

    >>> rewrite_references("3 is a 9-volt charger for 1", 3, {1: "2", 2: "3", 3: "1"}.get)
    '1 is a 9-volt charger for 2'
    """
    pieces, at = [], 0
    for start, end in item_references(text, n_items, explicit=explicit):
        pieces += [text[at:start], write(int(text[start:end]))]
        at = end
    return "".join([*pieces, text[at:]])


def mask_references(text: str, n_items: int, *, explicit: bool = False) -> str:
    """The text with every list of item numbers replaced by one neutral word.

    >>> mask_references("so bundle 3, 4 and 9", 9)
    'so bundle some'
    """
    masked = rewrite_references(text, n_items, lambda n: "\0", explicit=explicit)
    return re.sub("\0(?:(?:, and |, | and | or )\0)*", MASK, masked)


# --- files --------------------------------------------------------------------------------------------------------


def load_knowledge(domain: str | Path, folder: str | Path | None = None) -> Knowledge:
    """The recorded knowledge of a public domain, the toy shop's own, or what lies in a folder.

    Args:
        domain: a domain of `data.DOMAINS`, or a folder of sessions.
        folder: holds `rules.json` and `reasoning.jsonl`, as `distillation` writes them; by default what ships with
            the package, or the folder of the sessions itself.

    Raises:
        ValueError: unknown domain.
        DataError: a file is missing or malformed; the message names file, line and field.
    """
    own = own_folder(domain)
    if folder is None and own is not None:
        check_distilled(own)
        folder = own
    if folder is not None:
        return _read_knowledge(domain_name(domain), Path(folder))
    if domain != "toyshop" and domain not in PUBLIC_DOMAINS:
        known = ", ".join((*PUBLIC_DOMAINS, "toyshop"))
        raise ValueError(f"no recorded knowledge of domain {domain!r}: choose one of {known}")
    return _recorded(domain)


@cache
def _recorded(domain: str) -> Knowledge:
    """What ships with the package never changes; a folder of one's own may."""
    return _toy_knowledge() if domain == "toyshop" else _read_knowledge(domain, asset("teacher", domain))


def load_rules(domain: str, folder: str | Path) -> tuple[dict[str, Rule], Mapping[str, str]]:
    """The rules in a folder, by id, and their provenance.

    Raises:
        DataError: the file is missing or malformed, or holds the rules of another domain.
    """
    path = Path(folder) / "rules.json"
    try:
        table = read_json(path, "a file of rules", fields={"rules": list, "domain": str})
    except FileNotFoundError as error:
        raise DataError(f"{path}: not a file of rules: there is none") from error
    except UnreadableError as error:
        raise DataError(str(error)) from error
    entries, name = table["rules"], table["domain"]
    if name != domain:
        raise DataError(f"{path}: domain is {name!r}, expected {domain!r}; choose the folder of that domain")
    rules: dict[str, Rule] = {}
    for entry in entries:
        rule = Rule(**{name: _field(entry, name, str, path) for name in Rule._fields})
        if rule.id in rules:
            raise DataError(f"{path}: rule {rule.id} stands there twice")
        rules[rule.id] = rule
    return rules, table.get("provenance", {})


def _read_knowledge(domain: str, folder: Path) -> Knowledge:
    rules, provenance = load_rules(domain, folder)
    path = folder / "reasoning.jsonl"
    reasoning: dict[int, Reasoning] = {}
    for where, entry in _lines(path):
        if "provenance" in entry:  # how items are written is a matter of the reasoning, not of the rules
            provenance = {**entry["provenance"], **provenance, "reasoning": str(entry["provenance"].get("data", ""))}
            continue
        id_ = _field(entry, "id", int, where)
        if id_ in reasoning:
            raise DataError(f"{where}: session {id_} stands there twice")
        cited = tuple(_field(entry, "rules", list, where))
        if unknown := [rule for rule in cited if rule not in rules]:
            raise DataError(f"{where}: rules names {unknown[0]!r}, which {folder / 'rules.json'} does not hold")
        reasoning[id_] = Reasoning(_field(entry, "reasoning", str, where), cited, _field(entry, "noisy", bool, where))
    return Knowledge(domain=domain, rules=rules, reasoning=reasoning, provenance=provenance)


def check_knowledge(knowledge: Knowledge, train: Domain, *, complete: bool = True) -> None:
    """Hold the knowledge against the sessions it is about.

    Args:
        knowledge: rules and reasoning.
        train: the training split of its domain.
        complete: every training session must be covered. One's own teacher may have been asked about fewer.

    Raises:
        DataError: it covers a session outside the training split, leaves one of them out, or a text names an item
            that its session does not have.
    """
    name = f"knowledge of {knowledge.domain}"
    if extra := sorted(knowledge.reasoning.keys() - train.by_id.keys()):
        raise DataError(f"{name}: session {extra[0]} is not in the {train.split} split; remove it")
    missing = train.by_id.keys() - knowledge.reasoning.keys()
    if complete and missing:
        raise DataError(f"{name}: no reasoning for training session {train.by_id[min(missing)].called}; record it")
    for session in (s for s in train if s.id not in missing):
        text = knowledge.reasoning[session.id].text
        known = set(item_references(text, len(session), explicit=knowledge.explicit))
        for start, end in item_references(text, _HIGHEST, explicit=knowledge.explicit):
            if (start, end) not in known:
                raise DataError(
                    f"{name}: the reasoning about session {session.called} names item {text[start:end]}, "
                    f"the session has {len(session)}"
                )


_HIGHEST = 15
"""Numbers above this are amounts (24 portions): no session has as many items."""


def teacher_answers(domain: str, folder: str | Path | None = None) -> dict[int, tuple[Bundle, ...]]:
    """The teacher's own zero-shot answers to the test sessions of a public domain, by session id.

    Args:
        domain: a public domain, or any where a folder is given.
        folder: holds `teacher_test.jsonl`; by default what ships with the package.

    Raises:
        ValueError: unknown domain.
        DataError: the file is malformed.
    """
    if folder is None and domain not in PUBLIC_DOMAINS:
        raise ValueError(f"no recorded answers for domain {domain!r}: choose one of {', '.join(PUBLIC_DOMAINS)}")
    folder = Path(folder) if folder else asset("teacher", domain)
    return {
        _field(entry, "id", int, where): _bundles(entry, where)
        for where, entry in _lines(folder / "teacher_test.jsonl")
        if "provenance" not in entry
    }


def _lines(path: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """The entries of a file of JSON lines with their places; the first is about provenance."""
    try:
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")  # JSON may hold other marks of a line's end
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: not JSON ({error})") from error
        if not isinstance(entry, dict):
            raise DataError(f"{where}: expected an object, found {line[:40]}")
        yield where, entry


def _field(entry: Mapping[str, Any], name: str, kind: type, where: object) -> Any:
    value = entry.get(name)
    if type(value) is not kind or value == "":
        raise DataError(f"{where}: {name} is {value!r}; give a {kind.__name__}{' that is not empty' * (kind is str)}")
    return value


def _bundles(entry: Mapping[str, Any], where: str) -> tuple[Bundle, ...]:
    bundles = _field(entry, "bundles", list, where)
    if wrong := [b for b in bundles if not isinstance(b, list) or not all(type(item) is int for item in b)]:
        raise DataError(f"{where}: bundles holds {str(wrong[0])[:40]}; give lists of item numbers")
    return tuple(map(frozenset, bundles))


def _toy_knowledge() -> Knowledge:
    """Rules and reasoning that follow from the toy shop's laws."""
    from ..data import toyshop

    rules = {
        id_: Rule(id_, "alternative" if id_ == "R1" else "complement", text, "one of the toy shop's laws")
        for id_, text in toyshop.RULES.items()
    }
    reasoning = {
        session.id: Reasoning(
            " ".join(why.reasoning for why in session.why),
            tuple(dict.fromkeys(why.rule for why in session.why if why.rule)),
            noisy=False,
        )
        for session in toyshop.load("train")
    }
    return Knowledge(domain="toyshop", rules=rules, reasoning=reasoning, provenance={"teacher": "the toy shop's laws"})
