"""What every chapter begins with: one call that finds its way in a checkout, an installed package, Colab, anywhere."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import __version__
from ..config import Profile, get_profile
from ..files import own_file
from ..places import user_folder
from .recorded import HOW_TO_GET, plain, public_values, read
from .requirements import install_missing, remove_refused

if TYPE_CHECKING:
    from ..study.records import RunRecord

LARGE_GPU = 20 * 2**30
"""Bytes of memory from which on a GPU carries the paper's student in four bits."""

# Other rooms are imported where they are needed: before `install_missing` has run, what they need may be missing.


class Chapter(NamedTuple):
    """Where a chapter runs and with what."""

    profile: Profile
    """Chosen in the first cell or by `ROUTEDK_PROFILE`; `toy` by default."""
    device: str
    results: Path
    """Recorded runs: those of the checkout, or the ones that ship with the package."""
    work: Path
    """Folder for what the chapter trains."""
    has_public_data: bool
    """Whether the public domains can be loaded without the network."""

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains that can be shown here: the public ones if they are at hand, else the toy shop."""
        from ..data.sessions import PUBLIC_DOMAINS

        return PUBLIC_DOMAINS if self.has_public_data else ("toyshop",)

    def public(self, name: str, compute: Callable[[], Any], *, instead: Callable[[], Any] | None = None) -> Any:
        """Counts, scores or curves of the public sessions: computed if these are at hand, else as they were recorded.

        Args:
            name: of the record, `results/public/<name>.json`.
            compute: gives them from the sessions.
            instead: gives what is shown where there is neither, from the toy shop.

        Returns:
            See `recorded.public_values`; `None` where there is nothing, and then it says how to get the sessions.
        """
        found = public_values(self._record(name), compute, at_hand=self.has_public_data)
        return plain(instead()) if found is None and instead else found

    def differences(
        self,
        name: str,
        pairs: Mapping[str, tuple[str, str]],
        *,
        profile: str = "",
        domains: Iterable[str] = (),
        metric: str = "strict f1",
    ) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
        """Recorded runs less each other, on the public test sessions: `found.differences`, by `public`.

        Args:
            name: under which the values are recorded for those without the sessions.
            pairs: see `found.differences`.
            profile: whose runs; by default those of the student that the claims are judged by, or, where more pairs
                are recorded of it, of the smaller one before it.
            domains: in which; by default the public ones.
            metric: protocol and score.

        Returns:
            Comparison → domain → values, with their `profile`; empty where nothing is recorded.
        """
        from ..data.sessions import PUBLIC_DOMAINS
        from ..report.claims import load_claims
        from ..study.records import load_all
        from .found import differences

        def compute() -> dict[str, Any]:
            claims, known = load_claims(), load_all(self.results)
            students = (profile,) if profile else (claims.profile, claims.smaller_profile)
            found: dict[str, Any] = {}
            for student in students:
                other = differences(known, student, pairs, domains=tuple(domains) or PUBLIC_DOMAINS, metric=metric)
                found = other if len(other) > len(found) else found
                if len(found) == len(pairs):
                    break
            return found

        return self.public(name, compute) or {}

    def recorded(self, *runs: str) -> list[RunRecord]:
        """Recorded runs of one student: of the one that the claims are judged by, or of the smaller one before it.

        Args:
            runs: as in `claims.yml`, with `*` for the seeds; of the first student, every one is recorded.

        Returns:
            All of that student's runs that any of `runs` fits; none, where neither student has them all.
        """
        from ..report.claims import load_claims
        from ..study.records import load_all

        claims, known = load_claims(), load_all(self.results)
        for profile in (claims.profile, claims.smaller_profile):
            mine = [r for r in known if r.profile == profile]
            if all(any(fnmatch(r.run, run) for r in mine) for run in runs):
                return [r for r in mine if any(fnmatch(r.run, run) for run in runs)]
        return []

    def source(self, name: str) -> str:
        """Where the values of `public(name, ...)`, or those of the toy shop in their place, come from: for labels."""
        if self.has_public_data:
            return "public data, run now"
        known = read(self._record(name))
        return f"public data, recorded {known.created}" if known else "toy, run now"

    def _record(self, name: str) -> Path:
        return self.results / "public" / f"{name}.json"

    @staticmethod
    def say(found: Any, text: str):
        """Show prose about what a cell has found, and nothing where it has found nothing.

        Args:
            found: what the text speaks of. If it is a mapping, `{name}` in the text stands for its values.
            text: Markdown.
        """
        from IPython.display import Markdown

        if not found:
            return None
        return Markdown(text.format_map(found) if isinstance(found, Mapping) else text)

    def shipped(self, domain: str, seed: int = 0) -> Path | None:
        """SmolLM2's recorded experts and router of a domain, for `RoutedModel.from_pretrained`, if they are here."""
        folder = self.results / "smol" / domain / f"routed-seed{seed}"
        return folder if (folder / "routed.json").exists() else None

    def ready_to_route(self) -> tuple[str, Path] | None:
        """A domain whose shipped experts can run here, and their folder; where there is none, it says why."""
        from ..data.sessions import PUBLIC_DOMAINS
        from ..student.backbone import is_cached

        found = [(domain, folder) for domain in PUBLIC_DOMAINS if (folder := self.shipped(domain))]
        if not found:
            print("No recorded experts of SmolLM2 ship with this copy.")
        elif not (is_cached(get_profile("smol").student) and self.has_public_data):
            print("`routedk doctor` says how to get SmolLM2 and the real sessions.")
        else:
            return found[0]
        return None


def setup(profile: str = "", domain: str = "", *, quiet: bool = False) -> Chapter:
    """Prepare a chapter, install what is missing, and print what it will run on.

    Args:
        profile: its name; by default what the environment variable `ROUTEDK_PROFILE` says, or `toy`.
        domain: on which the chapter trains and asks, one of the profile's or a folder of sessions; by default what
            `ROUTEDK_DOMAIN` says, or the profile's first. It becomes the first domain of `Chapter.profile`.
        quiet: print nothing.

    Raises:
        ValueError: there is no such profile or domain, or `ROUTEDK_WORK` names no folder.
        RuntimeError: torch or numpy is missing, or something else could not be installed or removed.
    """
    chosen = get_profile(profile) if profile else _profile(os.environ.get("ROUTEDK_PROFILE") or "toy")
    chosen = _with_domain(chosen, domain or os.environ.get("ROUTEDK_DOMAIN", ""))
    install_missing(["gpu"] if chosen.student.load_in_4bit else [])
    _quiet_loggers()
    remove_refused(allowed=in_colab())
    import torch

    from ..data.domains import domain_is_cached
    from ..data.sessions import PUBLIC_DOMAINS

    _quiet()
    _style()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    chapter = Chapter(
        profile=chosen,
        device=device,
        results=own_file("results"),
        work=user_folder(os.environ.get("ROUTEDK_WORK") or "runs", "ROUTEDK_WORK"),
        has_public_data=bool(os.environ.get("ROUTEDK_MIRROR")) or all(map(domain_is_cached, PUBLIC_DOMAINS)),
    )
    if not quiet:
        print(f"routedk-lite {__version__} · torch {torch.__version__} · {_machine(device)}")
        print(f"profile {chosen.name}: {chosen.student.id} ({chosen.needs}); domain {chosen.domains[0]}")
        if device == "cpu" and chosen.student.load_in_4bit:
            print(_without_gpu())
        elif in_colab():
            print(_on_colab(device, chosen.name))
        if not chapter.has_public_data:
            print(
                "The public sessions are not on this machine: the toy shop and what is recorded of them stand in. "
                f"{HOW_TO_GET}."
            )
    return chapter


def _profile(name: str) -> Profile:
    try:
        return get_profile(name)
    except ValueError as error:
        raise ValueError(f"ROUTEDK_PROFILE: {error}") from error


def _with_domain(profile: Profile, domain: str) -> Profile:
    """The profile with that domain as its first; as it is where none is given."""
    from ..data.own import folder_for

    if not domain:
        return profile
    folder = folder_for(profile, domain)
    first = domain if folder is None else str(folder)
    return replace(profile, domains=(first, *(name for name in profile.domains if name != first)))


def in_colab() -> bool:
    """Whether this kernel runs on Google Colab."""
    return find_spec("google") is not None and find_spec("google.colab") is not None


def _machine(device: str) -> str:
    """The hardware in words, with the type it computes in."""
    import torch

    from ..student.backbone import choose_dtype

    dtype = str(choose_dtype("auto", device)).removeprefix("torch.")
    if device == "cpu":
        return f"CPU, {torch.get_num_threads()} threads, {dtype} by default"
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    only_emulated = " (it only emulates bfloat16)" if dtype == "float32" else ""
    return f"{torch.cuda.get_device_name()}, {memory:.0f} GB, {dtype}{only_emulated}"


def _without_gpu() -> str:
    """What to do where a profile wants a GPU and there is none."""
    way = "Runtime → Change runtime type → T4 GPU, then run this again" if in_colab() else "run it where there is one"
    return f'This profile wants a GPU: {way}. Or set profile = "smol" (or "toy") above, which do without.'


def _on_colab(device: str, profile: str) -> str:
    """What this runtime is good for, and how to get more out of it."""
    import torch

    from ..report.doctor import missing

    if device == "cpu":
        fits = tuple(name for name in ("toy", "smol", "qwen") if not missing(get_profile(name)))
        more = "For a GPU: Runtime → Change runtime type → T4 GPU."
    elif torch.cuda.get_device_properties(0).total_memory < LARGE_GPU:
        fits, more = ("t4",), 'It is too small for profile = "paper" (8B parameters).'
    else:
        fits, more = ("paper", "t4"), ""
    if profile in fits[:1]:
        return f"This runtime suits that. {more}".strip()
    return (
        f"This runtime also suits profile = {' or '.join(repr(name) for name in fits if name != profile)} above. {more}"
    )


def table(rows: Iterable[Mapping[str, Any]], caption: str, label: str):
    """Show rows as a table that says where its numbers come from.

    Rows and columns in which every value is missing are left out; a single one that is missing is a dash.

    Args:
        rows: column name to value, one mapping per row, its name first; numbers are shown with three decimals.
        caption: what the table shows.
        label: where its numbers come from, for example `toy, run now`.
    """
    import pandas as pd

    frame = pd.DataFrame(rows).dropna(axis="columns", how="all")
    if frame.shape[1] > 1:
        frame = frame.dropna(how="all", subset=frame.columns[1:])
    look = frame.style.hide(axis="index").format(precision=3, thousands=",", na_rep="–")
    cells = "padding: 0.25em 0.6em; text-align: left; font-size: 0.92em"
    styles = {"th, td": cells, "caption": "color: inherit"}
    look.set_table_styles([{"selector": name, "props": style} for name, style in styles.items()])
    look.set_table_attributes('class="dataframe"')  # by which themes know a table, and give it their dark colours
    return look.set_caption(f"{caption} ({label})")


def _quiet_loggers() -> None:
    """Keep what libraries say when they are imported out of the pages."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _quiet() -> None:
    """Keep notes from library to library out of the pages: deprecations that others must mend, missing extras."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft")


def _style() -> None:
    """One look for all figures; colours that colour-blind readers can tell apart."""
    import seaborn as sns

    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind", rc={"figure.dpi": 110})
