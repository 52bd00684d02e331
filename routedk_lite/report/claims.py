"""The claims of the papers as data: what is claimed, which chapter and which runs test it, and by what margin.

They stand in `claims.yml` at the root of the repository, beside the records. What becomes of a claim is computed from
these two (`verdicts`); a new record needs no change of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..config import known_profiles
from ..data.sessions import PUBLIC_DOMAINS, TOY_DOMAINS
from ..files import own_file
from .frozen import Frozen

METRICS = (
    "strict f1",
    "strict exact_match",
    "strict precision",
    "strict recall",
    "official precision",
    "official recall",
    "alpha",
)
TESTS = ("greater", "not worse", "varies")
NEEDS = ("all", "any")


class ClaimError(ValueError):
    """A claim is malformed, or cites what does not exist."""


@dataclass(frozen=True, kw_only=True)
class Paper:
    """One of the papers that claims are taken from."""

    key: str
    """In the bibliography."""
    name: str
    arxiv: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """a − b, session by session."""

    label: str
    a: str
    """Run, or a pattern that fits one run per seed."""
    b: tuple[str, ...] = ()
    """Likewise; several stand for their mean."""
    metric: str = "strict f1"
    """One of `METRICS`. `alpha`: an expert's mean weight over all layers, with the test `varies` only."""
    test: str = "greater"
    """`greater`: a is above b. `not worse`: a is at most `margin` below b. `varies`: a differs between sessions with
    many and with few products, in either direction."""
    margin: float = 0.0
    """`greater`, `varies`: a difference smaller than this would not be what the claim is about."""
    voters: tuple[int, int] | None = None
    """Numbers of sampled answers that vote, for a and for b."""
    expert: str = ""
    """Whose weight, for the metric `alpha`."""
    decides: bool = True
    """Whether the verdict rests on it; if not, it is shown beside."""

    @property
    def runs(self) -> tuple[str, ...]:
        """All that it rests on."""
        return (self.a, *self.b)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of a paper, in our words."""

    id: str
    title: str
    paper: str = ""
    """A key of `Claims.papers`; none for a control, which is ours."""
    statement: str
    where: str = ""
    """Part of the paper that makes it, as far as known."""
    reports: str = ""
    """What the paper reports: numbers or an order, or `unknown`."""
    source: str = ""
    """Where `reports` is known from."""
    chapter: str
    """The chapter that tests it, as the table of contents names it."""
    domains: tuple[str, ...] = PUBLIC_DOMAINS
    needs: str = "all"
    """Whether `all` of the deciding comparisons must hold, or `any` of them is enough."""
    comparisons: tuple[Comparison, ...] = ()
    recorded: tuple[str, ...] = ()
    """Domains in which every run that it rests on is said to be recorded."""
    costs: tuple[str, ...] = ()
    """Of a claim about cost: runs whose cost a session is set against that of asking the teacher."""
    note: str = ""
    """How our test differs from the paper's, or what else a reader should know."""

    @property
    def runs(self) -> tuple[str, ...]:
        """Runs and patterns that it rests on, each once."""
        return tuple(dict.fromkeys(run for comparison in self.comparisons for run in comparison.runs))


@dataclass(frozen=True, kw_only=True)
class Claims:
    """All claims, with the papers and the profile whose records judge them."""

    profile: str
    papers: Mapping[str, Paper]
    claims: tuple[Claim, ...]
    frozen: Frozen | None = None
    """The recipe that is not to change until the grid is whole."""
    smaller_profile: str = ""
    """Whose records judge the same claims on a page of their own."""
    control_profile: str = ""
    """Whose records judge the controls."""
    controls: tuple[Claim, ...] = ()
    """What must hold if our instruments work. They are judged by the same rule."""

    def __iter__(self):
        return iter(self.claims)

    def __len__(self) -> int:
        return len(self.claims)

    def __getitem__(self, id_: str) -> Claim:
        found = [claim for claim in self.claims if claim.id == id_]
        if not found:
            raise KeyError(f"no claim {id_!r}: there are {', '.join(claim.id for claim in self.claims)}")
        return found[0]


def load_claims(path: str | Path | None = None) -> Claims:
    """Read and check the claims.

    Args:
        path: a YAML file; by default this project's own.

    Raises:
        ClaimError: it cannot be read, or a field is missing, unknown or impossible.
    """
    import yaml

    path = Path(path or own_file("claims.yml"))
    try:
        content = yaml.safe_load(path.read_bytes())  # bytes: YAML may be in UTF-16, and says so
    except (OSError, yaml.YAMLError) as error:
        raise ClaimError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    parts = {
        "profile": str, "frozen": dict, "smaller_profile": str, "papers": dict, "claims": list, "control_profile": str,
        "controls": list,
    }  # fmt: skip
    if not isinstance(content, dict) or {name: type(part) for name, part in content.items()} != parts:
        raise ClaimError(
            f"{path}: must hold a profile, what is frozen, a smaller_profile, a mapping of papers, a list of claims, a "
            "control_profile and a list of controls, and nothing else"
        )
    where = path.name
    for name in ("profile", "smaller_profile", "control_profile"):
        _one_of(f"{where}, {name}", content[name], known_profiles())
    frozen = _made(Frozen, content["frozen"], f"{where}, frozen")
    _one_of(f"{where}, frozen: profile", frozen.profile, known_profiles())
    papers = {key: _made(Paper, entry, f"{where}, paper {key!r}") for key, entry in content["papers"].items()}
    claims = tuple(_claim(entry, where, papers, PUBLIC_DOMAINS) for entry in content["claims"])
    controls = tuple(_claim(entry, where, {}, TOY_DOMAINS) for entry in content["controls"])
    ids = [claim.id for claim in (*claims, *controls)]
    if twice := sorted({id_ for id_ in ids if ids.count(id_) > 1}):
        raise ClaimError(f"{where}: {', '.join(twice)} is the id of two claims")
    return Claims(
        profile=content["profile"],
        papers=papers,
        claims=claims,
        frozen=frozen,
        smaller_profile=content["smaller_profile"],
        control_profile=content["control_profile"],
        controls=controls,
    )


def _claim(entry: Any, where: str, papers: Mapping[str, Paper], domains: Sequence[str]) -> Claim:
    """A claim of one of the papers, or a control where there are none."""
    where = f"{where}, claim {entry.get('id') if isinstance(entry, dict) else entry!r}"
    claim = _made(Claim, entry, where)
    _one_of(f"{where}: paper", claim.paper, papers or ("",))
    if papers and not (claim.where and claim.reports):
        raise ClaimError(f"{where}: `where` and `reports` are missing; write 'unknown' for what is not known")
    _one_of(f"{where}: needs", claim.needs, NEEDS)
    for domain in (*claim.domains, *claim.recorded):
        _one_of(f"{where}: domain", domain, domains)
    if bool(claim.comparisons) == bool(claim.costs):
        raise ClaimError(
            f"{where}: give either comparisons, or in `costs` the runs that must be cheaper than the teacher"
        )
    made = tuple(
        _comparison(one, f"{where}, comparison {number}") for number, one in enumerate(claim.comparisons, start=1)
    )
    if made and not any(comparison.decides for comparison in made):
        raise ClaimError(f"{where}: decides = false in all comparisons: the verdict must rest on one of them")
    return Claim(**{**claim.__dict__, "comparisons": made})


def _comparison(entry: Any, where: str) -> Comparison:
    found = _made(Comparison, entry, where)
    _one_of(f"{where}: metric", found.metric, METRICS)
    _one_of(f"{where}: test", found.test, TESTS)
    if isinstance(found.margin, bool) or not isinstance(found.margin, int | float) or not 0 <= found.margin < 1:
        raise ClaimError(f"{where}: margin = {found.margin!r}: must be a number from 0 to below 1")
    varies = found.test == "varies"
    if varies != (found.metric == "alpha") or varies != bool(found.expert) or varies == bool(found.b):
        raise ClaimError(f"{where}: `varies` looks at the alpha of an expert in one run; other tests compare a with b")
    if not isinstance(found.decides, bool):
        raise ClaimError(f"{where}: decides = {found.decides!r}: must be true or false")
    sizes = found.voters
    if sizes is not None and (len(sizes) != 2 or not all(isinstance(n, int) and n >= 1 for n in sizes)):
        raise ClaimError(f"{where}: voters = {list(sizes)}: must be two numbers of answers, for a and for b")
    if sizes is not None and not found.metric.startswith("strict "):
        raise ClaimError(f"{where}: metric = {found.metric!r}: votes are counted under the strict protocol alone")
    return found


def _made(kind: type, entry: Any, where: str):
    """A dataclass from its YAML entry; lists become tuples, a lone text where several may stand a tuple of one."""
    if not isinstance(entry, dict):
        raise ClaimError(f"{where}: {entry!r} must be a mapping of fields")
    known = {f.name: f for f in fields(kind)}
    if unknown := sorted(entry.keys() - known.keys()):
        raise ClaimError(f"{where}: unknown field {unknown[0]!r}: choose among {', '.join(known)}")
    if missing := [n for n, f in known.items() if f.default is MISSING and n not in entry]:
        raise ClaimError(f"{where}: the field {missing[0]!r} is missing")
    values = {}
    for name, value in entry.items():
        text, several = known[name].type == "str", "tuple" in known[name].type
        if text and (not isinstance(value, str) or not value.strip()):
            raise ClaimError(f"{where}: {name} = {value!r}: must be a text; write 'unknown' for what is unknown")
        if several and isinstance(value, str):
            value = [value]
        if several and not isinstance(value, list):
            raise ClaimError(f"{where}: {name} = {value!r}: must be a list")
        if "tuple[str" in known[name].type and not all(isinstance(one, str) for one in value):
            raise ClaimError(f"{where}: {name} = {value!r}: must be a list of texts")
        values[name] = tuple(value) if several else value
    return kind(**values)


def _one_of(where: str, value: Any, known: Iterable[str]) -> None:
    if value not in known:
        raise ClaimError(f"{where} = {value!r}: choose one of {', '.join(known)}")


# --- what claims cite ---------------------------------------------------------------------------------------------


def check_chapters(claims: Claims, root: str | Path) -> None:
    """Every chapter that a claim cites is there.

    Raises:
        ClaimError: one is not.
    """
    for claim in (*claims, *claims.controls):
        if not list(Path(root).glob(f"{claim.chapter}.*")):
            raise ClaimError(f"claim {claim.id!r}: chapter = {claim.chapter!r}: there is no such chapter in {root}")


def check_runs(claims: Claims, stages: Mapping[str, Sequence[str]]) -> None:
    """Every run that a claim cites is one that a study makes, so that a misspelt one is not taken for one to come.

    Args:
        claims: what is checked.
        stages: domain → names of a study's stages, for the domains of claims and of controls.

    Raises:
        ClaimError: a run is not among them.
    """
    for claim in (*claims, *claims.controls):
        for domain in claim.domains:
            for pattern in (*claim.runs, *claim.costs):
                if not any(fnmatch(name, pattern) for name in stages[domain]):
                    raise ClaimError(f"claim {claim.id!r}: run = {pattern!r}: a study of {domain} has no such stage")


def check_recorded(claims: Claims, runs: Mapping[str, Sequence[str]]) -> None:
    """Every run that a claim says is recorded, is.

    Args:
        claims: what is checked.
        runs: domain → names of its recorded runs.

    Raises:
        ClaimError: one is missing.
    """
    for claim in claims:
        for domain in claim.recorded:
            for pattern in (*claim.runs, *claim.costs):
                if not any(fnmatch(name, pattern) for name in runs.get(domain, ())):
                    raise ClaimError(
                        f"claim {claim.id!r}: recorded = {domain!r}, but the run {pattern!r} is missing in "
                        f"{claims.profile}/{domain}: run it (routedk run --profile {claims.profile} --domain {domain} "
                        f"--only '{pattern}'), or take the domain out of `recorded`"
                    )
