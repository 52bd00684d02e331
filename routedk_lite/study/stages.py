"""What a study consists of: every run and measurement by name, with its settings and the function that makes it.

Nothing is run here. The settings are hashed into a record, so that a stage whose settings changed is done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from ..answers.baselines import FLOORS, SIMILARITIES
from ..config import VoteConfig, settings
from ..data.habits import HABITS
from ..data.sessions import PUBLIC_DOMAINS
from ..fusion.xlora import XLora
from . import ablations, experiments, explored, fused, fusing, mixtures, preliminaries, variants
from .fusing import fusions
from .preliminaries import FLOOR_SEED, HINTS, HINTS_WITHOUT_TEACHER

if TYPE_CHECKING:
    from .study import Study

DEMONSTRATIONS = 3
"""Solved training sessions in a few-shot prompt; AICL shows one, in a conversation with a larger model."""
CONFLICT_BATCHES = 8
"""Of each kind of knowledge, where their gradients are compared."""
VOTERS = ("dynamic", "base")
"""What answers in the voting sweeps: the routed model, and the base expert alone."""
EXPLORED = 30
"""Test sessions that the router explorer shows."""
ASKED_TEACHER = 0.5
"""What it takes to ask a teacher about its texts, in trainings on them: no pass backward (`student.soft_targets`)."""
PARTS = ("method", "companion", "ablations", "fusions")
"""Of a study: RouteDK with its baselines, the questions of the companion paper (`variants`), what the router and each
expert are good for (`ablations`, and `explored` for the explorer), and the fusions of other papers (`fusing`)."""


class Planned(NamedTuple):
    """One run or measurement of a study."""

    name: str
    about: str
    kind: str
    """`floor`, `answer`, `train`, `router`, `sample` or `explore`: what the time estimate goes by."""
    seed: int | None
    """`None` where nothing is trained."""
    config: Mapping[str, Any]
    """All settings that the result depends on."""
    make: Callable[[Study, Mapping[str, Any], str], dict[str, Any]]
    """`make(study, config, key)` gives the fields of the record, or of the measurement, that differ between stages."""
    measured: bool = False
    """Whether it ends with a measurement of students instead of answers."""
    part: str = "method"
    """One of `PARTS`."""
    knowledge: str = "none"
    """What stands beside the sessions, one of `config.KNOWLEDGE_KINDS`; makes texts longer."""
    sessions: float = 1.0
    """Training sessions, as a multiple of the domain's."""
    demonstrations: int = 0
    """Solved sessions in every question."""
    pairs: bool = True
    """Whether pairs of products are read as well, where the profile reads them."""
    after: tuple[str, ...] = ()
    """Runs of the same seed that make what it uses, beside the experts of the method."""


def planned(study: Study) -> Iterator[Planned]:
    """All runs and measurements of a study, in the order in which they need each other."""
    if study.domain == "habits":  # the positive control: two experts, what fuses them, and whose α they get
        yield from _floors(study)
        yield from _experts(study)
        yield from _fusions(study)
        yield from _taken_apart(study, lambda change: "control" in change, part="method")
        yield from _other_fusions(study)
        return
    yield from _floors(study)
    yield from _without_student(study)
    yield from _asked_only(study)
    yield from _experts(study)
    yield from _experts_beside(study)
    yield from _fusions(study)
    yield from _votes(study)
    if study.has_knowledge:
        yield from _companion(study)
        yield from _ablations(study)
        yield from _other_fusions(study)


# --- settings -----------------------------------------------------------------------------------------------------


def _asked(study: Study) -> dict[str, Any]:
    """Of every run that asks a student in words."""
    return {name: settings(getattr(study.profile, name)) for name in ("student", "prompt", "decode")}


def _read(study: Study) -> dict[str, Any]:
    """Of every run that reads bundles from a student, in words or from its states."""
    pairs = study.profile.pairs
    return {**_asked(study), **({"pairs": settings(pairs)} if pairs else {}), **_drawn(study)}


def _drawn(study: Study) -> dict[str, Any]:
    """Of every run whose answers are the consensus of samples; the first records go without, they have the default."""
    vote = study.profile.vote
    return {"vote": settings(vote)} if study.profile.answers == "consensus" and vote != VoteConfig() else {}


def _trained(study: Study) -> dict[str, Any]:
    """Of every run of an expert."""
    return {**_read(study), "train": settings(study.profile.train)}


def _told(study: Study) -> dict[str, Any]:
    """Of every expert that is told something; those of the positive control are told nothing."""
    if study.domain == "habits":
        return {}
    return {"place": study.profile.place, "knowledge": study.knowledge.sha256}


def _routed(study: Study) -> dict[str, Any]:
    """Of every run that fuses experts."""
    return {**_trained(study), **_told(study), "router": settings(study.profile.router)}


# --- stages -------------------------------------------------------------------------------------------------------


def _floors(study: Study) -> Iterator[Planned]:
    for name in FLOORS:
        config = {"floor": name, "seed": FLOOR_SEED}
        yield Planned(f"floor-{name}", "bundles without reading titles", "floor", None, config, preliminaries.floor)


def _without_student(study: Study) -> Iterator[Planned]:
    public = study.domain in PUBLIC_DOMAINS
    for name in SIMILARITIES:
        # The sentence encoder must be fetched, which the toy shop's readers should not have to wait for.
        if name != "tfidf" and not public:
            continue
        config = {"similarity": name}
        yield Planned(f"cluster-{name}", "clusters of titles", "floor", None, config, preliminaries.clustering)
        if study.profile.answers in ("pairs", "consensus") and study.undecoded is None:
            about = "similarities of titles, decoded as a student's pairs are"
            config = {"similarity": name, "exact_weight": study.profile.decode.exact_weight}
            yield Planned(f"decode-{name}", about, "floor", None, config, preliminaries.decoded_similarity)
    about = "bundles from frequent patterns"
    yield Planned("patterns", about, "floor", None, {"min_support": 1}, preliminaries.pattern_mining)
    if public:
        about = "the recorded teacher's own answers"
        yield Planned("teacher", about, "floor", None, {"teacher": "recorded"}, preliminaries.teacher)


def _asked_only(study: Study) -> Iterator[Planned]:
    about, ask = "the student as it is", experiments.zero_shot
    yield Planned("zero-shot", about, "answer", None, _asked(study), ask, pairs=False)
    if study.profile.answers == "pairs":
        about = "pairs read from the student as it is"
        yield Planned("zero-shot-pairs", about, "answer", None, _read(study), experiments.zero_shot_pairs)
    for hints in HINTS if study.has_knowledge else HINTS_WITHOUT_TEACHER:
        name = "few-shot" if hints == "none" else f"few-shot-{hints}"
        config = {**_read(study), "demonstrations": DEMONSTRATIONS, "hints": hints, "expert": None}
        if hints == "rules":
            config |= {"knowledge": _told(study)["knowledge"]}
        about = f"{DEMONSTRATIONS} solved sessions" + (f" and {hints}" * (hints != "none")) + " in the prompt"
        told = {"demonstrations": DEMONSTRATIONS, "knowledge": "rules" if hints == "rules" else "none"}
        yield Planned(name, about, "answer", None, config, preliminaries.few_shot, **told)


def _experts(study: Study) -> Iterator[Planned]:
    seed, trained = study.seed, _trained(study)
    if study.profile.train.joint_epochs:
        about = "train one adapter on all domains, from which experts start, and ask it alone"
        longer = len(PUBLIC_DOMAINS) * study.profile.train.joint_epochs / study.profile.train.epochs
        config = {**trained, "expert": "joint"}
        yield Planned(f"joint-seed{seed}", about, "train", seed, config, experiments.joint, sessions=longer)
    for name, kind in experiments.experts(study).items():
        config = {**trained, "expert": name, **(_told(study) if kind != "none" else {})}
        about = f"train an expert on {kind if kind != 'none' else 'raw sessions'}, ask it alone"
        if name in HABITS:
            about = f"train an expert on bundles {name.replace('_', ' ')}, ask it alone"
        taught = kind != "none" and study.profile.place == "distilled"  # its teacher is trained for it alone
        length = {"knowledge": kind, "sessions": 2 + ASKED_TEACHER if taught else 1.0}
        yield Planned(f"{name}-seed{seed}", about, "train", seed, config, experiments.expert, **length)


def _experts_beside(study: Study) -> Iterator[Planned]:
    seed, trained = study.seed, _trained(study)
    config = {**trained, "demonstrations": DEMONSTRATIONS, "hints": "none", "expert": "base"}
    about = f"the base expert with {DEMONSTRATIONS} solved sessions in its prompt"
    yield Planned(
        f"base-few-shot-seed{seed}",
        about,
        "answer",
        seed,
        config,
        preliminaries.few_shot,
        demonstrations=DEMONSTRATIONS,
    )
    if not study.has_knowledge:
        return
    unanswered = {name: value for name, value in trained.items() if name != "vote"}
    yield Planned(
        f"conflict-seed{seed}",
        "how knowledge conflicts in one student",
        "train",
        seed,
        {**unanswered, **_told(study), "batches": CONFLICT_BATCHES, "other_seed": seed + 1},
        preliminaries.conflict,
        measured=True,
        knowledge="both",
    )


def _fusions(study: Study) -> Iterator[Planned]:
    seed, found = study.seed, fusing.method(study)
    routed = _routed(study) if found else {}
    for name, (fusion, experts) in found.items():
        config = {**routed, "fusion_name": name, **fusion.to_json(), "experts": experts}
        kind = "router" if name.startswith(("static", "dynamic")) else "answer"
        about = f"fuse {len(experts)} experts"
        yield Planned(f"fusion-{name}-seed{seed}", about, kind, seed, config, fused.fusion)


def _other_fusions(study: Study) -> Iterator[Planned]:
    seed, routed = study.seed, _routed(study)
    for name, (fusion, experts) in (fusing.others(study) | fusing.with_patterns(study)).items():
        config = {**routed, "fusion_name": name, **fusion.to_json(), "experts": experts}
        about = f"fuse {len(experts)} experts as in arXiv {fusion.source}"
        kind = "router" if fusion.learns else "answer"
        # X-LoRA reads everything twice.
        more = {"part": "fusions", "sessions": 2.0 if isinstance(fusion, XLora) else 1.0}
        more["after"] = tuple(expert for expert in experts if expert not in experiments.experts(study))
        yield Planned(f"fused-{name}-seed{seed}", about, kind, seed, config, fused.fusion, **more)


def _votes(study: Study) -> Iterator[Planned]:
    if study.profile.answers == "consensus":  # every run samples its answers, and holds their votes
        return
    seed, routed = study.seed, _routed(study) if study.has_knowledge else _trained(study)
    vote = settings(study.profile.vote)
    for name in VOTERS if study.has_knowledge else VOTERS[1:]:
        about = f"sample {study.profile.vote.n} answers, let them vote"
        config = {**routed, "model": name, "vote": vote}
        more = {"pairs": False, "after": () if name in experiments.experts(study) else (f"fusion-{name}",)}
        yield Planned(f"voting-{name}-seed{seed}", about, "sample", seed, config, fused.voting, **more)


def _companion(study: Study) -> Iterator[Planned]:
    trained, knowledge = _trained(study), study.knowledge.sha256
    for name, variant in variants.variants(study).items():
        yield Planned(
            f"{name}-seed{study.seed}",
            variant.about,
            "train",
            study.seed,
            {**trained, "expert": name, **asdict(variant), "knowledge": knowledge},
            variants.run_variant,
            part="companion",
            knowledge=variant.kind,
            sessions=variant.sessions * variant.domains + ASKED_TEACHER * (variant.place == "distilled"),
        )


def _one_router(study: Study) -> dict[str, Any]:
    """Settings of the routed model that is taken apart."""
    fusion, experts = fusions(study)[ablations.FUSION]
    return {**_routed(study), "fusion_name": ablations.FUSION, **fusion.to_json(), "experts": experts}


def _taken_apart(study: Study, wanted: Callable[[Mapping[str, Any]], bool], part: str) -> Iterator[Planned]:
    """The routed model with other weights, or with fewer experts."""
    one, seed = _one_router(study), study.seed
    for name, change in ablations.ablations(study).items():
        if wanted(change):
            about, config = ablations.about(change), {**one, **change}
            more = {"part": part, "after": (f"fusion-{ablations.FUSION}",)}
            yield Planned(f"{name}-seed{seed}", about, "answer", seed, config, ablations.run_ablation, **more)


def _ablations(study: Study) -> Iterator[Planned]:
    seed = study.seed
    yield from _taken_apart(study, lambda change: True, part="ablations")
    config = {
        **_routed(study),
        "sessions": EXPLORED,
        "temperatures": mixtures.TEMPERATURES,
        "parts": mixtures.PARTS,
        "vote": settings(study.profile.vote),
        "fusions": [fusions(study)[name][0].to_json() for name in mixtures.SHARPENED],
    }
    about, shown = "answers under changed α, for the explorer", (*explored.RUNS.values(), explored.VOTE)
    more = {"measured": True, "part": "ablations", "after": shown}
    yield Planned(f"explorer-seed{seed}", about, "explore", seed, config, explored.explorer, **more)
