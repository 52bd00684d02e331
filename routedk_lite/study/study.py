"""What a study holds: its settings, data, student and folders, and the records made so far.

A study knows nothing of stages. `stages` plans them, `pipeline` runs them.
"""

from __future__ import annotations

from functools import cached_property
from itertools import chain
from pathlib import Path

from ..answers.answering import profile_reader
from ..config import Profile, get_profile
from ..data.domains import load_domain
from ..data.own import domain_name, folder_for
from ..data.sessions import PUBLIC_DOMAINS, Domain
from ..locks import launched_together
from ..student.backbone import Student, load_student
from ..student.pairs import PairReader
from ..teacher.knowledge import Knowledge, check_knowledge, load_knowledge
from ..teacher.own import check_current, has_knowledge, how_to_distil
from .measurements import Measurement, load_measurements
from .provenance import record_path
from .records import RunRecord, load_all


class Study:
    """What everything that is run for one profile, domain and seed has in common.

    Args:
        profile: a profile or its name.
        domain: a domain of `data.DOMAINS`, by default the first that the profile names; or a folder of sessions, which
            goes with every profile.
        seed: of training.
        results: folder of the records.
        work: folder of adapters and unfinished work.
        progress: show progress bars.

    Raises:
        ValueError: unknown profile or domain, or a negative seed.
        RuntimeError: this is one of several processes of `accelerate launch` or `torchrun`.
    """

    def __init__(
        self,
        profile: str | Profile,
        domain: str | Path | None = None,
        seed: int = 0,
        *,
        results: str | Path = "results",
        work: str | Path = "runs",
        progress: bool = True,
    ) -> None:
        self.profile = get_profile(profile)
        self.source = domain or self.profile.domains[0]
        """What `load_domain` takes: a name or a folder."""
        self.folder = folder_for(self.profile, self.source)
        """Of sessions of one's own; else `None`."""
        self.domain = domain_name(self.source)
        """As records, figures and folders name it."""
        self.seed = seed
        self.results, self.progress = Path(results), progress
        self.work = Path(work, self.profile.name, self.domain)
        if seed < 0:
            raise ValueError(f"seed = {seed}: must be 0 or more")
        if processes := launched_together():
            raise RuntimeError(
                f"WORLD_SIZE = {processes}: a study runs in one process; several would wait for each other for ever. "
                "Run its stages side by side instead (workflow/Snakefile), or launch a script that calls `train_expert`"
            )

    @cached_property
    def student(self) -> Student:
        """The student, loaded when the first stage needs it."""
        return load_student(self.profile)

    @cached_property
    def reader(self) -> PairReader | None:
        """Reads pairs from the student's states, where the profile decodes them. Made before any expert is put on."""
        return profile_reader(self.profile, self.student, self.split("train"))

    @cached_property
    def joint_reader(self) -> PairReader | None:
        """Likewise, from the titles of all public domains alike: the same whichever domain asks first."""
        domains = [load_domain(name, "train") for name in PUBLIC_DOMAINS]
        return profile_reader(self.profile, self.student, chain(*zip(*domains, strict=False)))

    @property
    def shipped(self) -> Path:
        """Where `export` should write the model that goes with the records; training starts from it, if it is there."""
        return record_path(self.results, self.profile.name, self.domain, f"routed-seed{self.seed}").with_suffix("")

    def split(self, name: str) -> Domain:
        """The sessions of one split of the study's domain."""
        return load_domain(self.source, name)

    @property
    def has_knowledge(self) -> bool:
        """Whether a teacher has said anything about the training sessions; about one's own perhaps not yet."""
        return self.folder is None or has_knowledge(self.folder)

    @property
    def note(self) -> str:
        """What a plan leaves out, and how it is made up for; empty if nothing is left out."""
        if self.has_knowledge:
            return ""
        return f"Left out is all that needs a teacher's knowledge of {self.domain}: {how_to_distil(self.folder)}."

    @cached_property
    def knowledge(self) -> Knowledge:
        """What a teacher knows about the training sessions.

        Raises:
            ValueError: the domain has none.
            DataError: a file is missing or malformed, or does not go with the sessions.
        """
        found = load_knowledge(self.source)
        if self.folder is not None:
            check_current(self.folder, found.provenance.get("reasoning", ""), self.split("train"))
            check_knowledge(found, self.split("train"))
        return found

    def records(self) -> list[RunRecord]:
        """What is recorded for this profile and domain."""
        return load_all(self.results, profile=self.profile.name, domain=self.domain)

    def measurements(self) -> list[Measurement]:
        """What is measured for this profile and domain."""
        return load_measurements(self.results, profile=self.profile.name, domain=self.domain)
