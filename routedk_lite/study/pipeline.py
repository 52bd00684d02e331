"""The stages that turn data into records; the command line, the notebooks and workflows all call these.

Each stage knows from a hash of its configuration whether it has been done, keeps what it has when it is interrupted,
and can be asked for alone. A failed or stopped run is continued by running it again.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from ..config import digest
from ..data.domains import domain_is_cached
from ..data.public import fetch_all
from ..data.sessions import PUBLIC_DOMAINS
from ..files import check_ours
from ..fusion.shipping import exported_files, write_merged, write_shipped
from ..student.backbone import is_cached, student_files
from ..student.experts import ExpertResult
from ..student.peak import forget_peak
from . import experiments, fused
from .fusing import fusions
from .measurements import Measurement, read_measurement, write_measurement
from .provenance import record_path
from .records import RunRecord, damage, read_record, write_record
from .stages import PARTS, Planned, planned
from .study import Study


class Stage(NamedTuple):
    """One step of a study."""

    name: str
    about: str
    kind: str
    """`fetch`, `floor`, `answer`, `train`, `router`, `sample` or `explore`: what the time estimate goes by."""
    is_done: Callable[[], bool]
    run: Callable[[], object]
    part: str = "method"
    """One of `stages.PARTS`."""
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
    record: Path | None = None
    """The file that it ends with."""


class Pipeline(Study):
    """A study with its stages; the arguments are those of `Study`."""

    @property
    def stages(self) -> list[Stage]:
        """The stages that exist, in order: data and student, then what `stages` plans."""
        source = self.profile.student
        needed = list(dict.fromkeys([self.source, *(PUBLIC_DOMAINS if self.profile.train.joint_epochs else ())]))
        public, own = [d for d in needed if d in PUBLIC_DOMAINS], [str(d) for d in needed if d not in PUBLIC_DOMAINS]
        about = [f"download and verify {', '.join(public)}"] if public else []
        about += [f"read {', '.join(own)}"] if own else []
        return [
            Stage(
                "data", " and ".join(about), "fetch",
                lambda: all(map(domain_is_cached, needed)),
                lambda: fetch_all(public, raw=False, progress=self.progress),
            ),
            Stage(
                "student", f"fetch {source.id}", "fetch", lambda: is_cached(source), lambda: student_files(source)
            ),
            *map(self._stage, planned(self)),
        ]  # fmt: skip

    def of_part(self, part: str) -> list[Stage]:
        """The stages of one part, after data and student.

        Raises:
            ValueError: no such part.
        """
        if part not in PARTS:
            raise ValueError(f"part = {part!r}: choose one of {', '.join(PARTS)}")
        return [stage for stage in self.stages if stage.part == part or stage.kind == "fetch"]

    def chosen(self, only: Sequence[str] = (), part: str = "method") -> list[Stage]:
        """Data and student, and the stages of any part that fit `only`; where it is empty, those of one part.

        Raises:
            ValueError: a pattern fits no stage, or there is no such part.
        """
        if not only:
            return self.of_part(part)
        stages = self.stages
        for pattern in only:
            if not any(fnmatch(stage.name, pattern) for stage in stages):
                known = ", ".join(s.name for s in stages)
                raise ValueError(f"no stage {pattern!r}: choose among {known}{f'. {self.note}' * bool(self.note)}")
        return [s for s in stages if s.kind == "fetch" or any(fnmatch(s.name, pattern) for pattern in only)]

    def before(self, stage: Stage) -> list[Stage]:
        """The stages that make what a stage uses; where several run at the same time, these should have ended.

        A stage that begins all the same trains the missing experts itself, or waits for whoever is training them.
        """
        stages = self.stages
        if stage.kind == "fetch":
            return []
        found, joint = [s for s in stages if s.kind == "fetch"], f"joint-seed{self.seed}"
        if stage.name == joint or not stage.name.endswith(f"-seed{self.seed}"):
            return found
        found += [s for s in stages if s.name == joint]
        names = [f"{name}-seed{self.seed}" for name in experiments.experts(self)]
        if stage.name in names:
            return found
        found += [s for s in stages if s.name in names]
        used = {f"{name}-seed{self.seed}" for name in stage.after}
        return found + [s for s in stages if s.name in used and s not in found]

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
            ValueError: a pattern fits no stage, or there is no such part; or a folder of sessions has the name of one
                whose records are there.
        """
        self._check_records()
        for stage in self.chosen(only, part):
            done = stage.is_done()
            on_stage(stage, done)
            if not done:
                stage.run()
        return self.records()

    def _check_records(self) -> None:
        """Records of other sessions are neither mixed with those of these ones nor replaced."""
        if self.folder is None:
            return
        made = [(r, r.split) for r in self.records()] + [(m, "train") for m in self.measurements()]
        for found, split in made:
            if found.data_sha256 != self.split(split).sha256:
                raise ValueError(
                    f"{found.path} was made from other {split} sessions than {self.folder} holds now: rename the "
                    "folder, give other folders for results and work (--results, --work), or remove "
                    f"{self.results / self.profile.name / self.domain}"
                )

    def train_base(self) -> ExpertResult:
        """Train the base expert (raw sessions only), or find it trained."""
        return experiments.train(self, "base")

    def export(self, folder: str | Path, fusion: str = "dynamic", *, merged: bool = False, force: bool = False) -> Path:
        """Write a fusion and its experts, trained now or before, for `RoutedModel.from_pretrained`.

        Args:
            folder: a new one, an empty one, or one that holds an exported model, which is replaced.
            fusion: name of one of the study's fusions.
            merged: write an ordinary model instead, its weights merged with the fused experts.
            force: replace the folder whatever it holds.

        Raises:
            ValueError: no such fusion; or α of it depends on the input, so that it cannot be merged.
            OccupiedError: the folder holds something else.
        """
        known = fusions(self)
        if fusion not in known:
            there = ", ".join(known) or f"none. {self.note}"
            raise ValueError(f"fusion = {fusion!r}: choose among {there}")
        settings, names = known[fusion]
        if merged and settings.depends_on_input:
            fixed = ", ".join(name for name, (one, _) in known.items() if not one.depends_on_input)
            raise ValueError(f"fusion = {fusion!r}: α depends on the input, it cannot be merged: choose among {fixed}")
        check_ours(Path(folder), exported_files(Path(folder), merged=merged), force=force)
        with fused.routed(self, fusion) as (model, result):
            if merged:
                write_merged(model, self.student.tokenizer, folder, force=force)
                return Path(folder)
            experts = [experiments.expert_folder(self, name, self.seed) for name in names]
            write_shipped(model, Path(folder), experts, result and result.folder, force=force)
        return Path(folder)

    # --- how a stage works --------------------------------------------------------------------------------------

    def _stage(self, plan: Planned) -> Stage:
        """A stage that is done when a record with its settings exists, and that ends with writing it."""
        splits = ("train",) if plan.measured else ("train", "test")
        if self.folder is not None:  # decoders and thresholds are fitted on it; that of a public domain never changes
            splits += ("validation",)

        def key() -> str:
            return digest(plan.config, plan.seed, *(self.split(name).sha256 for name in splits))

        record = record_path(self.results, self.profile.name, self.domain, plan.name, measured=plan.measured)

        def state() -> tuple[bool, str | None]:
            """Whether there is a record of these settings, and what is wrong with the files beside it."""
            if not record.exists() or not domain_is_cached(self.source):
                return False, None
            found = read_measurement(record) if plan.measured else read_record(record)
            return found.config_hash == key(), None if plan.measured else damage(found)

        def is_done() -> bool:
            recorded, wrong = state()
            return recorded and not wrong

        def run() -> RunRecord | Measurement:
            recorded, wrong = state()
            if recorded and wrong:
                warnings.warn(f"{wrong}: done again", stacklevel=2)
            forget_peak()
            started = time.perf_counter()
            made = plan.make(self, plan.config, key())
            training = made.get("training", {})
            earlier = made.pop("seconds_before", 0.0) + training.get("seconds_before", 0.0)
            common = {
                "profile": self.profile.name,
                "seed": plan.seed,
                "config": plan.config,
                "config_hash": key(),
                "wall_seconds": time.perf_counter() - started + earlier,
                "peak_before": max(made.pop("peak_before", 0.0), training.get("peak_mb", 0.0)),
                **made,
            }
            if plan.measured:
                return write_measurement(self.results, train=self.split("train"), name=plan.name, **common)
            return write_record(self.results, test=self.split("test"), run=plan.name, **common)

        shared = ("part", "knowledge", "sessions", "demonstrations", "pairs", "after")
        extra = {name: getattr(plan, name) for name in shared}
        return Stage(plan.name, plan.about, plan.kind, is_done, run, record=record, **extra)
