"""How much a student is told: a share of the sessions, several domains, several formats of knowledge.

The companion paper (arXiv 2504.17220) varies the quantity of distilled knowledge in these three ways. It names its
four strategies of choosing sessions (random, length, diversity, difficulty) but what is known of it here does not say
how each is computed: the definitions below are ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..data.sessions import Domain, Session
from .knowledge import Knowledge, Reasoning

if TYPE_CHECKING:
    import numpy as np

STRATEGIES = ("random", "length", "diversity", "difficulty")
_STRIDE = 1_000_000
"""Between the session ids of accumulated domains."""


def select(
    sessions: Iterable[Session],
    share: float,
    strategy: str,
    *,
    seed: int = 0,
    difficulty: Mapping[int, float] | None = None,
) -> tuple[Session, ...]:
    """A share of the sessions, in their old order. A larger share contains every smaller one of the same seed.

    Args:
        sessions: training sessions.
        share: 0 to 1; their number is rounded to the nearest whole one, halves upwards.
        strategy: `random`; `length`, sessions of most products first; `diversity`, each next session as far as can be
            from all before it (farthest point, Gonzalez 1985, on the cosine of the titles' TF-IDF vectors, which
            brings odd and rather short sessions to the front); `difficulty`, those with the highest values first.
        seed: of the order of `random`, of the first session of `diversity`, and of ties.
        difficulty: session id → how hard a session is; `difficulty_of` makes it from the loss of the base student.

    Raises:
        ValueError: a share outside 0 to 1, an unknown strategy, a difficulty that is missing or not finite, or a
            session id that stands there twice.
    """
    import numpy as np

    sessions = tuple(sessions)
    if not 0 <= share <= 1:
        raise ValueError(f"share = {share}: choose 0 (none) to 1 (all sessions)")
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy = {strategy!r}: choose one of {', '.join(STRATEGIES)}")
    _check_ids(sessions)
    order = np.random.default_rng(seed).permutation(len(sessions))
    if strategy == "length":
        order = sorted(order, key=lambda i: -len(sessions[i]))
    elif strategy == "difficulty":
        values = [_difficulty(session, difficulty) for session in sessions]
        order = sorted(order, key=lambda i: -values[i])
    elif strategy == "diversity" and len(sessions) > 1:
        order = _farthest_first(_title_vectors(sessions), order)
    chosen = {int(i) for i in order[: math.floor(share * len(sessions) + 0.5)]}
    return tuple(session for i, session in enumerate(sessions) if i in chosen)


def difficulty_of(sessions: Sequence[Session], nats: Iterable[float]) -> dict[int, float]:
    """How hard each session is: nats of its annotated answer per item, or long sessions would count as hard ones.

    Args:
        sessions: the sessions.
        nats: of each one's answer under the base student, from `diagnostics.answer_nats`.

    Raises:
        ValueError: not one value per session.
    """
    nats = [float(value) for value in nats]
    if len(nats) != len(sessions):
        raise ValueError(f"nats holds {len(nats)} values for {len(sessions)} sessions; give one per session")
    return {session.id: value / len(session) for session, value in zip(sessions, nats, strict=True)}


def _check_ids(sessions: Sequence[Session]) -> None:
    seen: set[int] = set()
    for session in sessions:
        if session.id in seen:
            raise ValueError(f"session {session.called} stands there twice; join domains with accumulate_domains")
        seen.add(session.id)


def _difficulty(session: Session, difficulty: Mapping[int, float] | None) -> float:
    value = (difficulty or {}).get(session.id)
    if value is None or not math.isfinite(value):
        raise ValueError(f"difficulty of session {session.called} is {value}: give a finite number for every session")
    return float(value)


def _title_vectors(sessions: Sequence[Session]) -> np.ndarray:
    """TF-IDF vectors (log term frequency) of each session's titles, at unit length.

    Shapes:
        → (sessions, words)
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [" ".join(session.titles) for session in sessions]
    return TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\S+").fit_transform(texts).toarray()


def _farthest_first(vectors: np.ndarray, order: np.ndarray) -> list[int]:
    """Every place, each as far as can be from the nearest one before it; the first of `order` leads and breaks ties."""
    import numpy as np

    left = list(order[1:])
    chosen = [order[0]]
    nearest = vectors[left] @ vectors[order[0]]  # cosine of the most similar session chosen so far
    while left:
        at = int(np.argmin(nearest))
        chosen.append(left.pop(at))
        nearest = np.maximum(np.delete(nearest, at), vectors[left] @ vectors[chosen[-1]])
    return chosen


# --- accumulation -------------------------------------------------------------------------------------------------


def accumulate_domains(
    domains: Sequence[Domain], knowledge: Sequence[Knowledge] = ()
) -> tuple[Domain, Knowledge | None]:
    """Several domains as one, with a teacher's knowledge of each.

    Ids are unique within a domain only: those of the second and later domains are shifted, and rules get their
    domain's name. The first domain keeps its session ids, so that a longer list contains a shorter one.

    Args:
        domains: the same split of each.
        knowledge: of the same domains in the same order, or nothing.

    Raises:
        ValueError: no domains, the same one twice, different splits, knowledge of others, or kinds of knowledge that
            number items differently (the toy shop's with a recorded one).
    """
    names = [domain.name for domain in domains]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"domains = {names}: give one or more, each once")
    if len({domain.split for domain in domains}) > 1:
        raise ValueError(f"domains are of the splits {[d.split for d in domains]}: give the same split of each")
    if knowledge and [k.domain for k in knowledge] != names:
        raise ValueError(f"knowledge is of {[k.domain for k in knowledge]}, domains are {names}: give the same order")
    if len({k.explicit for k in knowledge}) > 1:
        raise ValueError("knowledge of the toy shop numbers items differently: do not join it with that of others")
    joined = "+".join(names)
    sessions = [_shifted(session, place) for place, domain in enumerate(domains) for session in domain]
    whole = Domain(name=joined, split=domains[0].split, sessions=tuple(sessions))
    if not knowledge:
        return whole, None
    rules, reasoning = {}, {}
    for place, part in enumerate(knowledge):
        named = {id_: f"{part.domain}:{id_}" for id_ in part.rules}
        rules |= {named[id_]: rule._replace(id=named[id_]) for id_, rule in part.rules.items()}
        for id_, entry in part.reasoning.items():
            cited = tuple(named[rule] for rule in entry.rules)
            reasoning[_shifted_id(id_, place)] = entry._replace(rules=cited)
    return whole, Knowledge(domain=joined, rules=rules, reasoning=reasoning, provenance=_numbering(knowledge))


def _numbering(parts: Sequence[Knowledge]) -> dict[str, str]:
    """How joined texts name items, as a provenance says it; patterns name none."""
    explicit = {part.explicit for part in parts if any(entry.text for entry in part.reasoning.values())}
    return {"items": "explicit"} if explicit == {True} else {}


def _shifted(session: Session, place: int) -> Session:
    return replace(session, id=_shifted_id(session.id, place))


def _shifted_id(id_: int, place: int) -> int:
    if not 0 <= id_ < _STRIDE:
        raise ValueError(f"session {id_}: ids of accumulated domains lie in 0..{_STRIDE - 1}")
    return id_ + place * _STRIDE


def accumulate_formats(*formats: Knowledge) -> Knowledge:
    """Several formats of knowledge of one domain as one: a session cites the rules of all, and has all reasoning.

    Patterns come in the form of rules (`patterns.pattern_knowledge`). Accumulated with a teacher's knowledge, the
    kind `rules` means patterns and rules, and `both` means all three.

    Args:
        formats: in the order in which they are told.

    Raises:
        ValueError: nothing given, different domains or sessions, or a rule's id that two of them use.
    """
    if not formats:
        raise ValueError("formats is empty: give one or more kinds of knowledge")
    first = formats[0]
    rules = dict(first.rules)
    for other in formats[1:]:
        if other.domain != first.domain:
            raise ValueError(f"formats are of {first.domain} and {other.domain}: accumulate knowledge of one domain")
        if other.reasoning.keys() != first.reasoning.keys():
            odd = sorted(other.reasoning.keys() ^ first.reasoning.keys())[0]
            raise ValueError(f"session {odd} is not covered by all formats: make them for the same sessions")
        if both := sorted(other.rules.keys() & rules.keys()):
            raise ValueError(f"two formats have a rule {both[0]!r}: rename one")
        rules |= other.rules
    reasoning = {}
    for id_ in first.reasoning:
        entries = [part.reasoning[id_] for part in formats]
        text = "\n".join(entry.text for entry in entries if entry.text)
        cited = tuple(rule for entry in entries for rule in entry.rules)
        reasoning[id_] = Reasoning(text, cited, any(entry.noisy for entry in entries))
    return Knowledge(domain=first.domain, rules=rules, reasoning=reasoning, provenance=_numbering(formats))
