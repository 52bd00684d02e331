"""Experts beside those of the method: knowledge in other places, formats and quantities (companion, arXiv 2504.17220).

A variant differs from an expert of the method in what it is told and nothing else, so that the two can be compared
session by session. Where only a share of the sessions is told something, the others are trained on raw: the quantity
of knowledge changes, the quantity of sessions does not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from ..analysis.diagnostics import answer_nats
from ..config import KNOWLEDGE_KINDS, KNOWLEDGE_PLACES, KnowledgeConfig
from ..data.domains import load_domain
from ..data.formats import get_format
from ..data.sessions import PUBLIC_DOMAINS, Domain, Session
from ..student.experts import ExpertResult, load_expert, train_expert, unloaded
from ..teacher.incontext import in_context
from ..teacher.kinds import fit_kinds
from ..teacher.knowledge import Knowledge, Reasoning, load_knowledge
from ..teacher.patterns import mine_patterns, pattern_knowledge
from ..teacher.selection import STRATEGIES, accumulate_domains, accumulate_formats, difficulty_of, select
from .experiments import asked_alone, train
from .joint import joint_start

if TYPE_CHECKING:
    from .study import Study

FORMATS = ("recorded", "patterns", "patterns and recorded")
CITED = ("own", "random", "all")
_PLACES = {"prompt": "in the prompt", "masked": "in the prompt, item numbers masked", "target": "before the answer",
           "distilled": "distilled from a teacher's prompt"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What an expert is told, and where and how much of it."""

    kind: str = "reasoning"
    """A kind of `KnowledgeConfig.kind`."""
    place: str = "prompt"
    """A place of `KnowledgeConfig.place`."""
    source: str = "recorded"
    """Whose knowledge: the `recorded` teacher's, `patterns` in the form of rules, or both accumulated."""
    cited: str = "own"
    """Rules of a session: its `own` as the teacher cites them; as many `random` ones, since the teacher cited with the
    answer in view; or `all`."""
    share: float = 1.0
    """Of the training sessions that are told something."""
    strategy: str = "random"
    """How these are chosen: one of `selection.STRATEGIES`."""
    sessions: float = 1.0
    """Share of the training sessions that are trained on at all, chosen at random."""
    domains: int = 1
    """Domains whose sessions are trained on together: the study's own, and the next ones."""
    at_test: bool = False
    """Whether all rules stand in the prompt at test time too."""

    def __post_init__(self) -> None:
        allowed = {
            "kind": KNOWLEDGE_KINDS, "place": KNOWLEDGE_PLACES, "source": FORMATS, "cited": CITED,
            "strategy": STRATEGIES,
        }  # fmt: skip
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"Variant.{name} = {getattr(self, name)!r}: choose one of {', '.join(values)}")
        for name in ("share", "sessions"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"Variant.{name} = {getattr(self, name)}: choose a number above 0, at most 1")
        if not 1 <= self.domains <= len(PUBLIC_DOMAINS):
            raise ValueError(f"Variant.domains = {self.domains}: choose 1 to {len(PUBLIC_DOMAINS)}")
        if self.at_test and (self.kind, self.cited, self.place) != ("rules", "all", "prompt"):
            raise ValueError("Variant.at_test: only all rules in the prompt can stand there at test time too")
        if self.place == "distilled":
            if self.kind == "none":
                raise ValueError("Variant.kind = 'none': choose a kind whose teacher has something to tell")
            if replace(self, place="prompt") != Variant(kind=self.kind):
                raise ValueError("Variant.place = 'distilled': its teacher is an expert of the method; set kind alone")

    @property
    def about(self) -> str:
        """In words."""
        told = "raw sessions" if self.kind == "none" else f"{self.kind} {_PLACES[self.place]}"
        more = [f"of {self.source}"] * (self.source != "recorded") + [f"{self.cited} rules"] * (self.cited != "own")
        more += [f"{self.share:.0%} by {self.strategy}"] * (self.share < 1) + ["at test too"] * self.at_test
        more += [f"{self.sessions:.0%} of the sessions"] * (self.sessions < 1)
        more += [f"{self.domains} domains"] * (self.domains > 1)
        return f"train an expert on {', '.join([told, *more])}"


SUBSET = 0.25
"""Share of the sessions where all twelve rules are told, which makes a prompt four times as long."""

VARIANTS = {
    # Where knowledge stands.
    "rules-target": Variant(kind="rules", place="target"),
    "reasoning-masked": Variant(place="masked"),
    "reasoning-target": Variant(place="target"),
    "rules-distilled": Variant(kind="rules", place="distilled"),
    "reasoning-distilled": Variant(place="distilled"),
    # All rules at both times, with controls that see the same subset of the sessions.
    "base-subset": Variant(kind="none", sessions=SUBSET),
    "rules-subset": Variant(kind="rules", sessions=SUBSET),
    "rules-everywhere": Variant(kind="rules", cited="all", sessions=SUBSET, at_test=True),
    # Formats, alone and accumulated.
    "rules-random": Variant(kind="rules", cited="random"),
    "patterns": Variant(kind="rules", source="patterns"),
    "patterns-rules": Variant(kind="rules", source="patterns and recorded"),
    "patterns-both": Variant(kind="both", source="patterns and recorded"),
    # Quantity.
    **{
        f"reasoning-{strategy}-{round(100 * share)}": Variant(share=share, strategy=strategy)
        for strategy, share in product(STRATEGIES, (0.25, 0.5, 0.75))
    },
    "reasoning-domains-2": Variant(domains=2),
    "reasoning-domains-3": Variant(domains=3),
}
"""By name. None and all of the quantity are the experts `base` and `reasoning` of the method."""


def variants(study: Study) -> dict[str, Variant]:
    """Those that make sense for a study: only the public domains can be joined; letters leave no room before them."""
    public, free = study.domain in PUBLIC_DOMAINS, get_format(study.profile.prompt.fmt).slots is None
    return {
        name: variant
        for name, variant in VARIANTS.items()
        if (variant.domains == 1 or public) and (variant.place != "target" or free)
    }


def told_by(study: Study, variant: Variant) -> tuple[Domain | tuple[Session, ...], Knowledge]:
    """The training sessions of a variant, and what they are told."""
    domains, known = zip(*(_one_domain(study, variant, name) for name in _domains(study, variant)), strict=True)
    if variant.domains == 1:
        (sessions,), (knowledge,) = domains, known
    else:
        sessions, knowledge = accumulate_domains(domains, known)
    if variant.sessions < 1:
        sessions = select(sessions, variant.sessions, "random", seed=study.seed)
    return sessions, knowledge


def _domains(study: Study, variant: Variant) -> list[str]:
    if variant.domains == 1:
        return [study.domain]
    at = PUBLIC_DOMAINS.index(study.domain)
    return [PUBLIC_DOMAINS[(at + k) % len(PUBLIC_DOMAINS)] for k in range(variant.domains)]


def _one_domain(study: Study, variant: Variant, name: str) -> tuple[Domain, Knowledge]:
    sessions = study.split("train") if name == study.domain else load_domain(name, "train")
    knowledge = study.knowledge if name == study.domain else load_knowledge(name)
    knowledge = replace(knowledge, reasoning={s.id: knowledge.reasoning[s.id] for s in sessions})
    if variant.source != "recorded":
        extractor = fit_kinds(sessions)
        patterns = pattern_knowledge(name, sessions, mine_patterns(sessions, extractor), extractor)
        knowledge = patterns if variant.source == "patterns" else accumulate_formats(patterns, knowledge)
    if variant.cited != "own":
        knowledge = cite(knowledge, variant.cited, seed=study.seed)
    if variant.share < 1:
        knowledge = tell_only(knowledge, _chosen(study, variant, sessions))
    return sessions, knowledge


def _chosen(study: Study, variant: Variant, sessions: Domain) -> Sequence[Session]:
    difficulty = None
    if variant.strategy == "difficulty":
        with unloaded(load_expert(study.student, train(study, "base").folder)) as model:
            nats = answer_nats(
                study.student, sessions, model=model, prompt=study.profile.prompt,
                batch_size=study.profile.train.micro_batch_size, progress=study.progress,
            )  # fmt: skip
        difficulty = difficulty_of(sessions.sessions, nats)
    return select(sessions, variant.share, variant.strategy, seed=study.seed, difficulty=difficulty)


def cite(knowledge: Knowledge, rules: str, *, seed: int = 0) -> Knowledge:
    """The same knowledge with other citations.

    Args:
        knowledge: of any domain.
        rules: `random`: each session cites as many rules as before, drawn without regard to it. `all`: every rule.
        seed: of the draw, which depends on it and the session alone.

    Raises:
        ValueError: neither of the two.
    """
    if rules not in CITED[1:]:
        raise ValueError(f"rules = {rules!r}: choose one of {', '.join(CITED[1:])}")
    ids = list(knowledge.rules)

    def cited(id_: int, entry: Reasoning) -> tuple[str, ...]:
        if rules == "all":
            return tuple(ids)
        drawn = np.random.default_rng([seed, id_]).choice(len(ids), size=len(entry.rules), replace=False)
        return tuple(ids[k] for k in sorted(drawn))

    return replace(
        knowledge, reasoning={id_: e._replace(rules=cited(id_, e)) for id_, e in knowledge.reasoning.items()}
    )


def tell_only(knowledge: Knowledge, sessions: Sequence[Session]) -> Knowledge:
    """The same knowledge of these sessions only; about all others nothing is told."""
    chosen, silent = {session.id for session in sessions}, Reasoning("", (), noisy=False)
    return replace(knowledge, reasoning={id_: e if id_ in chosen else silent for id_, e in knowledge.reasoning.items()})


# --- as a run -----------------------------------------------------------------------------------------------------


def train_variant(study: Study, name: str) -> tuple[ExpertResult, Knowledge]:
    """Train a variant, or find it trained; with what it was told."""
    variant = variants(study)[name]
    if variant.place == "distilled":
        return train(study, variant.kind, place=variant.place), study.knowledge
    sessions, knowledge = told_by(study, variant)
    longest = 1 if variant.cited == "own" else 2  # all rules take some 650 tokens
    result = train_expert(
        study.student,
        sessions,
        study.work / f"{name}-seed{study.seed}",
        config=replace(study.profile.train, max_length=longest * study.profile.train.max_length),
        prompt=study.profile.prompt,
        knowledge=knowledge if variant.kind != "none" else None,
        told=KnowledgeConfig(kind=variant.kind, place=variant.place),
        reader=study.reader,
        validation=study.split("validation"),
        start=joint_start(study, study.seed),
        seed=study.seed,
        progress=study.progress,
    )
    return result, knowledge


def run_variant(study: Study, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A variant, trained and asked alone: the fields of its record."""
    name, started = config["expert"], time.perf_counter()
    variant = variants(study)[name]
    result, knowledge = train_variant(study, name)
    spent = time.perf_counter() - started
    context, room = None, 0
    if variant.at_test:
        every = "\n".join(rule.text for rule in knowledge.rules.values())
        context = in_context(study.split("train"), study.split("test"), hints=lambda session: every)
    if variant.place == "target":  # the answer begins with knowledge: let it come to its end
        room = _longest_text(study, knowledge, variant.kind)
    return asked_alone(study, name, key, result, spent, context, more_tokens=room)


def _longest_text(study: Study, knowledge: Knowledge, kind: str) -> int:
    texts = [knowledge.text(session, kind) for session in study.split("train")]
    return math.ceil(1.1 * max(len(ids) for ids in study.student.tokenizer(texts)["input_ids"]))
