"""The fusions of a study: those of RouteDK, and those of other papers with the same frozen experts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..data.habits import HABITS
from ..fusion.arrow import Arrow, GenKnowSub
from ..fusion.base import Fusion
from ..fusion.flow import Hard, LoraFlow
from ..fusion.furina import Furina
from ..fusion.fusion import Average, Dynamic, Static, Ties
from ..fusion.knots import DareTies, Knots
from ..fusion.lorahub import LoraHub
from ..fusion.xlora import XLora

if TYPE_CHECKING:
    from ..config import Profile
    from .study import Study

Chosen = dict[str, tuple[Fusion, tuple[str, ...]]]
"""Name of a fusion → its settings, and its experts."""


def fusions(study: Study) -> Chosen:
    """The fusions of a study by name, each with its experts; none where there is one expert alone."""
    return method(study) | others(study) | with_patterns(study)


def method(study: Study) -> Chosen:
    """The fusions that RouteDK compares."""
    if not study.has_knowledge:
        return {}
    together, dynamic = _together(study), Dynamic(normalize=study.profile.router.normalize)
    found = {
        "average": (Average(), together),
        "ties": (Ties(rank=study.profile.ties_rank), together),
        "static": (Static(), together),
        "dynamic": (dynamic, together),
    }
    return found if study.domain == "habits" else {**found, "dynamic-k2": (dynamic, ("base", "both"))}


def with_patterns(study: Study) -> Chosen:
    """RouteDK's router over a fourth expert, told patterns of items: more kinds of knowledge are an open question."""
    if not study.has_knowledge or study.domain == "habits":
        return {}
    return {"dynamic-k4": (Dynamic(normalize=study.profile.router.normalize), (*_together(study), "patterns"))}


def others(study: Study) -> Chosen:
    """Those of other papers; GenKnowSub only where the first expert is a general one."""
    if not study.has_knowledge:
        return {}
    together = _together(study)
    found = other_fusions(study.profile)
    found["dare-ties"] = replace(found["dare-ties"], seed=study.seed)  # which entries it drops is part of its chance
    if together[0] != "base":
        del found["genknowsub"]
    return {name: (fusion, together) for name, fusion in found.items()}


def other_fusions(profile: Profile) -> dict[str, Fusion]:
    """The fusions of other papers by name, as they are set for a profile; the first expert is the general one."""
    return {
        "arrow": Arrow(),
        "genknowsub": GenKnowSub(general=0),
        "knots": Knots(),
        "dare-ties": DareTies(rank=profile.ties_rank),
        "cat": Static(scope="module"),
        "lora-flow": LoraFlow(),
        "lorahub": LoraHub(),
        "furina": Furina(),
        "xlora": XLora(),
        "hard": Hard(normalize=profile.router.normalize),
    }


def _together(study: Study) -> tuple[str, ...]:
    """The experts that are fused; those of the positive control each know one habit."""
    return HABITS if study.domain == "habits" else ("base", "rules", "reasoning")
