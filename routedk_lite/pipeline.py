"""The stages that turn data into records; the command line, the notebooks and workflows all call these.

Each stage knows from a hash of its configuration whether it has been done, keeps what it has when it is interrupted,
and can be asked for alone. A failed or stopped run is continued by running it again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .backbone import Student, is_cached, load_student, student_files
from .baselines import FLOORS, floor_predictions
from .config import Profile, digest, get_profile
from .data import Domain, domain_is_cached, fetch_all, load_domain
from .decoding import Answer, greedy_answers
from .experts import ExpertResult, load_expert, train_expert
from .files import sha256_folder
from .records import RunRecord, load_all, write_record

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FLOOR_SEED = 0
"""Of the floors that draw at random."""


class Stage(NamedTuple):
    """One step of a study."""

    name: str
    about: str
    kind: str
    """`fetch`, `floor`, `answer` or `train`: what the time estimate goes by."""
    is_done: Callable[[], bool]
    run: Callable[[], object]


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

    def split(self, name: str) -> Domain:
        """The sessions of one split of the study's domain."""
        return load_domain(self.domain, name)

    @property
    def base_name(self) -> str:
        """Name of the base expert's run."""
        return f"base-seed{self.seed}"

    @property
    def stages(self) -> list[Stage]:
        """The stages that exist, in order."""
        source = self.profile.student
        answering = {"prompt": asdict(self.profile.prompt), "decode": asdict(self.profile.decode)}
        zero_shot = {"student": asdict(source), **answering}
        base = {**zero_shot, "train": asdict(self.profile.train)}
        return [
            Stage(
                "data", f"download and verify {self.domain}", "fetch",
                lambda: domain_is_cached(self.domain),
                lambda: fetch_all([self.domain], raw=False, progress=self.progress),
            ),
            Stage(
                "student", f"fetch {source.id}", "fetch", lambda: is_cached(source), lambda: student_files(source)
            ),
            *(
                self._recorded_stage(f"floor-{name}", "bundles without reading titles", "floor", None,
                                     {"floor": name, "seed": FLOOR_SEED}, self._floor)
                for name in FLOORS
            ),
            self._recorded_stage("zero-shot", "the student as it is", "answer", None, zero_shot, self._zero_shot),
            self._recorded_stage(self.base_name, "train the base expert, answer the test sessions", "train", self.seed,
                                 base, self._base_expert),
        ]  # fmt: skip

    def run(self, on_stage: Callable[[Stage, bool], object] = lambda stage, done: None) -> list[RunRecord]:
        """Run every stage that is not done.

        Args:
            on_stage: called before each stage, with whether it is skipped because it is done.

        Returns:
            The records of this profile and domain.
        """
        for stage in self.stages:
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
        return train_expert(
            self.student,
            self.split("train"),
            self.work / self.base_name,
            config=self.profile.train,
            prompt=self.profile.prompt,
            validation=self.split("validation"),
            seed=self.seed,
            progress=self.progress,
        )

    # --- how a recorded stage works ---------------------------------------------------------------------------

    def _recorded_stage(
        self, name: str, about: str, kind: str, seed: int | None, config: Mapping[str, Any], make: Callable
    ) -> Stage:
        """A stage that is done when a record with its configuration exists, and that ends with writing it.

        `make(name, config, key)` gives the fields of the record that differ between stages.
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
            made = make(name, config, key())
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

    def _floor(self, name: str, config: Mapping[str, Any], key: str) -> dict[str, Any]:
        predictions = floor_predictions(config["floor"], self.split("test"), seed=FLOOR_SEED)
        return {"answers": [Answer.of_bundles(i, bundles) for i, bundles in predictions.items()]}

    def _zero_shot(self, name: str, config: Mapping[str, Any], key: str) -> dict[str, Any]:
        answers = self._answer(self.student.model, name, key)
        return {"answers": answers, "student": asdict(self.student.info)}

    def _base_expert(self, name: str, config: Mapping[str, Any], key: str) -> dict[str, Any]:
        started = time.perf_counter()
        expert = self.train_base()
        spent = time.perf_counter() - started
        model = load_expert(self.student, expert.folder)
        try:
            answers = self._answer(model, name, key)
        finally:
            model.unload()
        return {
            "answers": answers,
            "student": asdict(self.student.info),
            "adapter_sha256": {"base": sha256_folder(expert.folder)},
            "training": {
                "seconds": expert.seconds,
                "seconds_before": max(0.0, round(expert.seconds - spent, 1)),
                "tokens_per_second": expert.tokens_per_second,
                "history": expert.history,
            },
        }

    def _answer(self, model: PreTrainedModel, name: str, key: str) -> list[Answer]:
        """Greedy answers to the test sessions; those of an interrupted run are kept in a file and not made again."""
        partial = self.work / f"{name}-{key}.partial.jsonl"
        known = _read_partial(partial)
        partial.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "a", encoding="utf-8") as file:

            def keep(answers: Sequence[Answer]) -> None:
                file.writelines(json.dumps(answer.to_json()) + "\n" for answer in answers)
                file.flush()

            new = greedy_answers(
                model,
                self.student.tokenizer,
                self.split("test"),
                prompt=self.profile.prompt,
                decode=self.profile.decode,
                done={answer.id for answer in known},
                on_batch=keep,
                progress=self.progress,
            )
        return known + new


def _read_partial(path: Path) -> list[Answer]:
    """Answers of an interrupted run; a last line that was cut off is dropped from the file as well."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
        path.write_text("".join(lines), encoding="utf-8")
    return [Answer.from_json(json.loads(line)) for line in lines]
