"""One adapter that has learnt all public domains, from which a study's experts may start.

Each seed has its own, so that seeds stay independent; all domains share it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..config import TrainConfig, digest
from ..data.domains import load_domain
from ..data.sessions import PUBLIC_DOMAINS
from ..locks import locked
from ..student.experts import ExpertResult, train_expert
from ..student.starting import Start

if TYPE_CHECKING:
    from .study import Study


def joint_start(study: Study, seed: int) -> Start | None:
    """The adapter from which all experts of a seed start, whatever their domain, if the profile has one."""
    if not study.profile.train.joint_epochs:
        return None
    parts = [load_domain(name, "train").sha256 for name in PUBLIC_DOMAINS]
    profile = study.profile
    student = study.student.info
    name = digest(joint_config(study), profile.prompt, profile.pairs, seed, student.sha256, *student.packed, parts)
    return Start(name, lambda: train_joint(study, seed).folder)


def joint_config(study: Study) -> TrainConfig:
    """How that adapter is trained."""
    train = study.profile.train
    return replace(train, epochs=train.joint_epochs, learning_rate=train.joint_learning_rate, joint_epochs=0)


def train_joint(study: Study, seed: int) -> ExpertResult:
    """Train one adapter on the raw sessions of all public domains, or find it trained; all domains share it."""
    folder = study.work.parent / f"joint-seed{seed}"
    with locked(folder):
        return train_expert(
            study.student,
            [session for name in PUBLIC_DOMAINS for session in load_domain(name, "train")],
            folder,
            config=joint_config(study),
            prompt=study.profile.prompt,
            reader=study.joint_reader,
            seed=seed,
            progress=study.progress,
        )
