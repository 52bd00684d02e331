"""The stages that turn data into records; the command line, the notebooks and workflows all call these.

Each stage knows from a hash of its configuration whether it has been done, keeps what it has when it is interrupted,
and can be asked for alone. A failed or stopped run is continued by running it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from . import ablations, experiments, mixtures, preliminaries, variants
from .answering import profile_reader
from .backbone import Student, is_cached, load_student, student_files
from .baselines import FLOORS, SIMILARITIES
from .config import Profile, digest, get_profile
from .data import PUBLIC_DOMAINS, Domain, domain_is_cached, fetch_all, load_domain
from .experiments import EXPERTS, fusions
from .experts import ExpertResult
from .knowledge import load_knowledge
from .pairs import PairReader
from .preliminaries import FLOOR_SEED, HINTS
from .records import Measurement, RunRecord, load_all, load_measurements, write_measurement, write_record

DEMONSTRATIONS = 3
"""Solved training sessions in a few-shot prompt; AICL shows one, in a conversation with a larger model."""
CONFLICT_BATCHES = 8
"""Of each kind of knowledge, where their gradients are compared."""
VOTERS = ("dynamic", "base")
"""What answers in the voting sweeps: the routed model, and the base expert alone."""
PARTS = ("method", "companion", "ablations")
"""Of a study: RouteDK with its baselines, the questions of the companion paper (`variants`), and what the router and
each expert are good for (`ablations`)."""
EXPLORED = 30
"""Test sessions that the router explorer shows."""


class Stage(NamedTuple):
    """One step of a study."""

    name: str
    about: str
    kind: str
    """`fetch`, `floor`, `answer`, `train`, `router`, `sample` or `explore`: what the time estimate goes by."""
    is_done: Callable[[], bool]
    run: Callable[[], object]
    part: str = "method"
    """One of `PARTS`."""
    knowledge: str = "none"
    """What a training is told beside the sessions, one of `config.KNOWLEDGE_KINDS`; makes its texts longer."""
    sessions: float = 1.0
    """Training sessions, as a multiple of the domain's."""


class Study:
    """Everything that is run for one profile, domain and seed.

    Args:
        profile: a profile or its name.
        domain: a domain of `data.DOMAINS`; by default the first that the profile names.
        seed: of training.
        results: folder of the records.
        work: folder of adapters and unfinished work.
        progress: show progress bars.

    Raises:
        ValueError: unknown profile or domain, or a negative seed.
    """

    def __init__(
        self,
        profile: str | Profile,
        domain: str | None = None,
        seed: int = 0,
        *,
        results: str | Path = "results",
        work: str | Path = "runs",
        progress: bool = True,
    ) -> None:
        self.profile = get_profile(profile)
        self.domain = domain or self.profile.domains[0]
        self.seed = seed
        self.results, self.progress = Path(results), progress
        self.work = Path(work, self.profile.name, self.domain)
        if seed < 0:
            raise ValueError(f"seed = {seed}: must be 0 or more")
        if self.domain not in self.profile.domains:
            raise ValueError(
                f"domain {self.domain!r} does not go with profile {self.profile.name!r}: "
                f"choose one of {', '.join(self.profile.domains)}"
            )

    @cached_property
    def student(self) -> Student:
        """The student, loaded when the first stage needs it."""
        return load_student(self.profile)

    @cached_property
    def reader(self) -> PairReader | None:
        """Reads pairs from the student's states, where the profile decodes them. Made before any expert is put on."""
        return profile_reader(self.profile, self.student, self.split("train"))

    def split(self, name: str) -> Domain:
        """The sessions of one split of the study's domain."""
        return load_domain(self.domain, name)

    @property
    def stages(self) -> list[Stage]:
        """The stages that exist, in order."""
        source = self.profile.student
        return [
            Stage(
                "data", f"download and verify {self.domain}", "fetch",
                lambda: domain_is_cached(self.domain),
                lambda: fetch_all([self.domain], raw=False, progress=self.progress),
            ),
            Stage(
                "student", f"fetch {source.id}", "fetch", lambda: is_cached(source), lambda: student_files(source)
            ),
            *self._without_student(),
            *self._with_student(),
            *self._companion(),
            *self._ablations(),
        ]  # fmt: skip

    def _without_student(self) -> Iterator[Stage]:
        for name in FLOORS:
            config = {"floor": name, "seed": FLOOR_SEED}
            yield self._recorded_stage(
                f"floor-{name}", "bundles without reading titles", "floor", None, config, preliminaries.floor
            )
        for name in SIMILARITIES:
            # The sentence encoder must be fetched, which the toy shop's readers should not have to wait for.
            if name == "tfidf" or self.domain in PUBLIC_DOMAINS:
                yield self._recorded_stage(
                    f"cluster-{name}", "clusters of titles", "floor", None, {"similarity": name},
                    preliminaries.clustering,
                )  # fmt: skip
                if self.profile.pairs is not None:
                    config = {"similarity": name, "exact_weight": self.profile.decode.exact_weight}
                    yield self._recorded_stage(
                        f"decode-{name}", "similarities of titles, decoded as a student's pairs are", "floor", None,
                        config, preliminaries.decoded_similarity,
                    )  # fmt: skip
        yield self._recorded_stage(
            "patterns",
            "bundles from frequent patterns",
            "floor",
            None,
            {"min_support": 1},
            preliminaries.pattern_mining,
        )
        if self.domain in PUBLIC_DOMAINS:
            yield self._recorded_stage(
                "teacher", "the recorded teacher's own answers", "floor", None, {"teacher": "recorded"},
                preliminaries.teacher,
            )  # fmt: skip

    def _with_student(self) -> Iterator[Stage]:
        profile, seed = self.profile, self.seed
        asked, pairs = self._asked()
        trained = {**asked, **pairs, "train": asdict(profile.train)}
        told = {"place": profile.place, "knowledge": load_knowledge(self.domain).sha256}
        yield self._recorded_stage("zero-shot", "the student as it is", "answer", None, asked, experiments.zero_shot)
        if pairs:
            yield self._recorded_stage(
                "zero-shot-pairs", "pairs read from the student as it is", "answer", None, {**asked, **pairs},
                experiments.zero_shot_pairs,
            )  # fmt: skip
        for hints in HINTS:
            name = "few-shot" if hints == "none" else f"few-shot-{hints}"
            config = {**asked, **pairs, "demonstrations": DEMONSTRATIONS, "hints": hints, "expert": None}
            if hints == "rules":
                config |= {"knowledge": told["knowledge"]}
            about = f"{DEMONSTRATIONS} solved sessions" + (f" and {hints}" * (hints != "none")) + " in the prompt"
            yield self._recorded_stage(name, about, "answer", None, config, preliminaries.few_shot)
        for name, kind in EXPERTS.items():
            config = {**trained, "expert": name, **(told if kind != "none" else {})}
            about = f"train an expert on {kind if kind != 'none' else 'raw sessions'}, ask it alone"
            stage = self._recorded_stage(f"{name}-seed{seed}", about, "train", seed, config, experiments.expert)
            yield stage._replace(knowledge=kind)
        config = {**trained, "demonstrations": DEMONSTRATIONS, "hints": "none", "expert": "base"}
        about = f"the base expert with {DEMONSTRATIONS} solved sessions in its prompt"
        yield self._recorded_stage(f"base-few-shot-seed{seed}", about, "answer", seed, config, preliminaries.few_shot)
        config = {**trained, **told, "batches": CONFLICT_BATCHES, "other_seed": seed + 1}
        stage = self._measured_stage(
            f"conflict-seed{seed}", "how knowledge conflicts in one student", seed, config, preliminaries.conflict
        )
        yield stage._replace(knowledge="both")
        routed = self._routed()
        for name, (fusion, experts) in fusions(self).items():
            config = {**routed, "fusion_name": name, **fusion.to_json(), "experts": experts}
            kind = "router" if name.startswith(("static", "dynamic")) else "answer"
            yield self._recorded_stage(
                f"fusion-{name}-seed{seed}", f"fuse {len(experts)} experts", kind, seed, config, experiments.fusion
            )
        for name in VOTERS:
            config = {**routed, "model": name, "vote": asdict(profile.vote)}
            about = f"sample {profile.vote.n} answers, let them vote"
            yield self._recorded_stage(f"voting-{name}-seed{seed}", about, "sample", seed, config, experiments.voting)
        config = {
            **routed, "sessions": EXPLORED, "temperatures": mixtures.TEMPERATURES, "parts": mixtures.PARTS,
            "vote": asdict(profile.vote), "fusions": [fusions(self)[name][0].to_json() for name in mixtures.SHARPENED],
        }  # fmt: skip
        yield self._measured_stage(
            f"explorer-seed{seed}", "answers under changed α, for the explorer", seed, config, mixtures.explorer,
            kind="explore",
        )  # fmt: skip

    def _asked(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Settings of every run that asks a student, and of those that read pairs from it."""
        profile = self.profile
        pairs = {"pairs": asdict(profile.pairs)} if profile.pairs else {}
        return {name: asdict(getattr(profile, name)) for name in ("student", "prompt", "decode")}, pairs

    def _routed(self) -> dict[str, Any]:
        """Settings of every run that fuses experts."""
        asked, pairs = self._asked()
        told = {"place": self.profile.place, "knowledge": load_knowledge(self.domain).sha256}
        return {**asked, **pairs, "train": asdict(self.profile.train), **told, "router": asdict(self.profile.router)}

    def _companion(self) -> Iterator[Stage]:
        asked, pairs = self._asked()
        for name, variant in variants.variants(self).items():
            config = {**asked, **pairs, "train": asdict(self.profile.train), "expert": name, **asdict(variant)}
            config["knowledge"] = load_knowledge(self.domain).sha256
            stage = self._recorded_stage(
                f"{name}-seed{self.seed}", variant.about, "train", self.seed, config, variants.run_variant
            )
            share = variant.sessions * variant.domains
            yield stage._replace(part="companion", knowledge=variant.kind, sessions=share)

    def _ablations(self) -> Iterator[Stage]:
        fusion, experts = fusions(self)[ablations.FUSION]
        routed = {**self._routed(), "fusion_name": ablations.FUSION, **fusion.to_json(), "experts": experts}
        for name, settings in ablations.ablations(self).items():
            stage = self._recorded_stage(
                f"{name}-seed{self.seed}", ablations.about(settings), "answer", self.seed, {**routed, **settings},
                ablations.run_ablation,
            )  # fmt: skip
            yield stage._replace(part="ablations")

    def of_part(self, part: str) -> list[Stage]:
        """The stages of one part, after data and student.

        Raises:
            ValueError: no such part.
        """
        if part not in PARTS:
            raise ValueError(f"part = {part!r}: choose one of {', '.join(PARTS)}")
        return [stage for stage in self.stages if stage.part == part or stage.kind == "fetch"]

    def run(
        self,
        on_stage: Callable[[Stage, bool], object] = lambda stage, done: None,
        *,
        only: Sequence[str] = (),
        part: str = "method",
    ) -> list[RunRecord]:
        """Run every stage that is not done.

        Args:
            on_stage: called before each stage, with whether it is skipped because it is done.
            only: names of stages of any part, or patterns such as `fusion-*`; data and student are fetched in any case.
            part: run this part of the study, one of `PARTS`, where `only` is empty.

        Returns:
            The records of this profile and domain.

        Raises:
            ValueError: a pattern fits no stage, or there is no such part.
        """
        stages = self.stages if only else self.of_part(part)
        for pattern in only:
            if not any(fnmatch(stage.name, pattern) for stage in stages):
                raise ValueError(f"no stage {pattern!r}: choose among {', '.join(s.name for s in stages)}")
        for stage in stages:
            if only and stage.kind != "fetch" and not any(fnmatch(stage.name, pattern) for pattern in only):
                continue
            done = stage.is_done()
            on_stage(stage, done)
            if not done:
                stage.run()
        return self.records()

    def records(self) -> list[RunRecord]:
        """What is recorded for this profile and domain."""
        return [r for r in load_all(self.results) if (r.profile, r.domain) == (self.profile.name, self.domain)]

    def train_base(self) -> ExpertResult:
        """Train the base expert (raw sessions only), or find it trained."""
        return experiments.train(self, "base")

    def export(self, folder: str | Path, fusion: str = "dynamic") -> Path:
        """Write a fusion and its experts, trained now or before, for `RoutedModel.from_pretrained`.

        Args:
            folder: must not exist, or is replaced.
            fusion: name of one of the study's fusions.

        Raises:
            ValueError: no such fusion.
        """
        if fusion not in fusions(self):
            raise ValueError(f"fusion = {fusion!r}: choose among {', '.join(fusions(self))}")
        with experiments.routed(self, fusion) as (model, _):
            model.save_pretrained(folder)
        return Path(folder)

    # --- how a recorded stage works ---------------------------------------------------------------------------

    def _recorded_stage(
        self, name: str, about: str, kind: str, seed: int | None, config: Mapping[str, Any], make: Callable
    ) -> Stage:
        """A stage that is done when a record with its configuration exists, and that ends with writing it.

        `make(study, config, key)` gives the fields of the record that differ between stages.
        """

        def key() -> str:
            return digest(config, seed, self.split("train").sha256, self.split("test").sha256)

        def is_done() -> bool:
            if not domain_is_cached(self.domain):
                return False
            known = {r.run: r.config_hash for r in self.records()}
            return known.get(name) == key()

        def run() -> RunRecord:
            started = time.perf_counter()
            made = make(self, config, key())
            earlier = made.get("training", {}).get("seconds_before", 0.0)
            return write_record(
                self.results,
                profile=self.profile.name,
                test=self.split("test"),
                run=name,
                seed=seed,
                config=config,
                config_hash=key(),
                wall_seconds=time.perf_counter() - started + earlier,
                **made,
            )

        return Stage(name, about, kind, is_done, run)

    def _measured_stage(
        self, name: str, about: str, seed: int, config: Mapping[str, Any], make: Callable, kind: str = "train"
    ) -> Stage:
        """A stage that ends with a measurement of students instead of answers."""

        def key() -> str:
            return digest(config, seed, self.split("train").sha256)

        def is_done() -> bool:
            known = (
                m for m in load_measurements(self.results) if (m.profile, m.domain) == (self.profile.name, self.domain)
            )
            return domain_is_cached(self.domain) and any((m.name, m.config_hash) == (name, key()) for m in known)

        def run() -> Measurement:
            started = time.perf_counter()
            made = make(self, config, key())
            return write_measurement(
                self.results,
                profile=self.profile.name,
                train=self.split("train"),
                name=name,
                seed=seed,
                config=config,
                config_hash=key(),
                wall_seconds=time.perf_counter() - started,
                **made,
            )

        return Stage(name, about, kind, is_done, run)
