"""What an answer costs: a student on a rented machine beside a call of the teacher, in dollars a session.

- student: seconds a session, times what so many cores and so much memory cost a second;
- teacher: tokens of the question times the price of a token read, plus tokens of the answer times that of one written.

Seconds, cores and memory come from the run records: seconds of answering or, where a record does not say them, of all
but training; memory at the peak of the whole run, a router's training included. Tokens are those of
`teacher.distillation`: the question that a live teacher is asked about each test session, and an answer of the usual
length, at four characters a token. Prices are published ones, with their sources and the day on which they were read.
Both sides are ranges: of machines from a spare one to one on demand, of teachers from the cheapest to the dearest
listed.

The student is cheaper if even its high end lies below the teacher's low end, and it is not if even its low end lies
above the teacher's high end; else that is not decided. Seeds are not waited for: what a run takes hardly depends on
them.
"""

from __future__ import annotations

from fnmatch import fnmatch
from typing import NamedTuple

from ..data.sessions import Domain
from ..study.records import RunRecord
from ..teacher.distillation import estimate
from ..teacher.endpoint import cost
from ..teacher.plans import answers_plan
from ..teacher.toy import ToyTeacher
from .claims import Claim
from .comparing import Shelf
from .findings import DOES_NOT, NOT_DECIDED, REPLICATES

READ_ON = "2026-11-29"
"""The day of all prices below."""


class CallPrice(NamedTuple):
    """What a model behind an endpoint costs, in dollars per million tokens."""

    model: str
    question: float
    answer: float
    why: str
    source: str


class MachinePrice(NamedTuple):
    """What a rented machine costs, in dollars an hour."""

    name: str
    core: float
    gigabyte: float
    """Of memory."""
    source: str


CALLS = (
    CallPrice(
        "GPT-4o mini",
        0.15,
        0.60,
        "recommended in place of GPT-3.5 Turbo",
        "https://openrouter.ai/openai/gpt-4o-mini-2024-07-18",
    ),
    CallPrice(
        "GPT-3.5 Turbo",
        0.50,
        1.50,
        "the paper's teacher, as one public summary has it; served until October 2026",
        "https://developers.openai.com/api/docs/models/gpt-3.5-turbo",
    ),
    CallPrice(
        "Claude Sonnet 4",
        3.00,
        15.00,
        "a large general model",
        "https://docs.anthropic.com/en/docs/about-claude/pricing",
    ),
)
FARGATE = "https://aws.amazon.com/fargate/pricing/"
MACHINES = (
    MachinePrice("AWS Fargate, Linux on x86, spare (70 % off)", 0.3 * 0.04048, 0.3 * 0.004445, FARGATE),
    MachinePrice("AWS Fargate, Linux on x86, on demand", 0.04048, 0.004445, FARGATE),
)


class Cost(NamedTuple):
    """One run of the student in one domain, beside the teacher."""

    pattern: str
    """Of the claim that the run fits."""
    record: RunRecord
    seconds: float
    """A session, without training."""
    low: float
    high: float
    """Dollars a session."""
    tokens: tuple[float, float]
    """Of a question to the teacher, and of its answer."""
    teacher_low: float
    teacher_high: float

    @property
    def domain(self) -> str:
        """Where it was run."""
        return self.record.domain

    @property
    def verdict(self) -> str:
        """The rule at the top of this module."""
        if self.high < self.teacher_low:
            return REPLICATES
        return DOES_NOT if self.low > self.teacher_high else NOT_DECIDED


def costs(claim: Claim, shelf: Shelf) -> tuple[Cost, ...]:
    """Every recorded run that a claim about cost names; not those on a GPU, for which no price is listed.

    An answer of the method is a vote: where a run keeps no samples, the run of its votes is priced.
    """
    priced = [record for record in shelf.records if record.student and not record.hardware.get("gpu")]
    found = []
    for domain in claim.domains:
        named = [(pattern, shelf.votes_of(domain, pattern)) for pattern in claim.costs]
        fitting = [(p, r) for p, run in named for r in priced if r.domain == domain and fnmatch(r.run, run)]
        if fitting:
            tokens = call_tokens(shelf.test(domain))
            found += [_cost(pattern, record, tokens) for pattern, record in fitting]
    return tuple(found)


def call_tokens(sessions: Domain) -> tuple[float, float]:
    """Tokens of a question about a session and of an answer of the usual length: means over the sessions."""
    found = estimate(answers_plan(sessions), ToyTeacher())
    return found.prompt_tokens / found.calls, found.answer_tokens / found.calls


def student_cost(record: RunRecord, machine: MachinePrice) -> float:
    """Dollars a session for the machine that a run took."""
    an_hour = record.hardware["cores"] * machine.core + memory_gb(record) * machine.gigabyte
    return seconds_a_session(record) / 3600 * an_hour


def memory_gb(record: RunRecord) -> float:
    """The memory that a run took at its peak, in GB of 1,024 MiB, as the prices count it; the record counts MiB."""
    return record.peak_memory_mb / 1024


def seconds_a_session(record: RunRecord) -> float:
    """What a run took a test session: answering alone where the record says it, else all but its own training."""
    if record.answer_seconds is not None:
        return record.answer_seconds / record.n_sessions
    return (record.wall_seconds - record.training.get("seconds", 0.0)) / record.n_sessions


def _cost(pattern: str, record: RunRecord, tokens: tuple[float, float]) -> Cost:
    student = [student_cost(record, machine) for machine in MACHINES]
    teacher = [cost(*tokens, call.question, call.answer) for call in CALLS]
    ends = min(student), max(student), tokens, min(teacher), max(teacher)
    return Cost(pattern, record, seconds_a_session(record), *ends)
