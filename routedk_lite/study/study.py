"""What a study holds: its settings, data, student and folders, and the records made so far.

A study knows nothing of stages. `stages` plans them, `pipeline` runs them.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from itertools import chain
from pathlib import Path

from ..answers.answering import profile_reader
from ..answers.partitions import LARGEST
from ..config import Profile, get_profile
from ..data.domains import load_domain
from ..data.own import domain_name, folder_for
from ..data.sessions import PUBLIC_DOMAINS, DataError, Domain, Session
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
        """Whether a teacher has spoken about all training sessions; about one's own perhaps not yet, or not of all."""
        return self.folder is None or (has_knowledge(self.folder) and not self._untold)

    @cached_property
    def _untold(self) -> list[Session]:
        """Training sessions of one's own about which a teacher that was asked has said nothing."""
        return [session for session in self.split("train") if session.id not in self._told.reasoning]

    @cached_property
    def _told(self) -> Knowledge:
        """What a teacher has said, not yet held against the sessions."""
        return load_knowledge(self.source)

    @cached_property
    def undecoded(self) -> Session | None:
        """A session of one's own with more products than a decoder of pairs takes, where nothing depends on a decoder.

        A study that decodes pairs is told which session that is; one that takes a consensus goes without. No public
        session has so many products.
        """
        own = self.folder is not None and self.profile.answers == "consensus"
        for name in ("validation", "test") if own else ():
            with suppress(DataError):  # a folder may lack a split that is not needed
                for session in self.split(name):
                    if len(session) > LARGEST:
                        return session
        return None

    @property
    def note(self) -> str:
        """What a plan leaves out, and how it is made up for; empty if nothing is left out."""
        parts = []
        if self.folder is not None and not has_knowledge(self.folder):
            parts.append(
                f"Left out is all that needs a teacher's knowledge of {self.domain}: {how_to_distil(self.folder)}."
            )
        elif not self.has_knowledge:
            parts.append(
                f"Left out is all that needs a teacher's knowledge of {self.domain}: its reasoning.jsonl says nothing "
                f"about {len(self._untold)} training sessions, the first of them {self._untold[0].called}. Run "
                "`routedk distill --kind reasoning` again without --limit (what was answered is not asked again), or "
                "take these sessions out of the training split and run it again."
            )
        if self.undecoded is not None:
            parts.append(
                f"Left out is decoding titles' similarities: session {self.undecoded.called} has {len(self.undecoded)} "
                f"products, a decoder takes {LARGEST}."
            )
        return " ".join(parts)

    @cached_property
    def knowledge(self) -> Knowledge:
        """What a teacher knows about the training sessions.

        Raises:
            ValueError: the domain has none.
            DataError: a file is missing or malformed, or does not go with the sessions.
        """
        found = self._told
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
