import json
import re
from dataclasses import FrozenInstanceError, asdict, dataclass, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk_lite.checked import later
from routedk_lite.config import (
    PROFILES,
    DecodeConfig,
    KnowledgeConfig,
    OptimizerConfig,
    PairConfig,
    Profile,
    PromptConfig,
    RouterConfig,
    StudentConfig,
    TrainConfig,
    VoteConfig,
    digest,
    get_profile,
    known_profiles,
    settings,
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainConfig(r=0), r"TrainConfig\.r = 0: must be an integer ≥ 1"),
        (lambda: TrainConfig(epochs=1.5), r"TrainConfig\.epochs = 1\.5"),
        (lambda: TrainConfig(lora_dropout=1.0), r"lora_dropout = 1\.0: must be in \[0, 1\)"),
        (lambda: TrainConfig(learning_rate=0.0), "learning_rate"),
        (lambda: DecodeConfig(batch_size=0), "batch_size"),
        (lambda: PromptConfig(max_title_words=0), "max_title_words"),
        (lambda: StudentConfig(source="disk", id="x"), "'disk'.*one of package, gguf, wheel, hub"),
        (lambda: StudentConfig(source="hub", id=""), "id = ''"),
        (lambda: StudentConfig(source="hub", id="x", dtype="int8"), "'int8'.*bfloat16"),
        (lambda: StudentConfig(source="wheel", id="x", file="x.gguf", file_sha256="abc"), "file_sha256"),
        (lambda: StudentConfig(source="gguf", id="x", file="x.gguf", file_sha256="G" * 64), "file_sha256 = 'GGG"),
        (lambda: TrainConfig(epochs="3"), r"TrainConfig\.epochs = '3': must be an integer"),
        (lambda: TrainConfig(epochs=True), r"TrainConfig\.epochs = True: must be an integer"),
        (lambda: TrainConfig(epochs=10**5000), r"TrainConfig\.epochs = a very large number: must be an integer"),
        (lambda: TrainConfig(lora_dropout=None), r"TrainConfig\.lora_dropout = None: must be a finite number"),
        (lambda: TrainConfig(learning_rate="1e-3"), r"TrainConfig\.learning_rate = '1e-3': must be a finite number"),
        (lambda: TrainConfig(permute=1), r"TrainConfig\.permute = 1: must be true or false"),
        (lambda: TrainConfig(target_modules=["a", 3]), r"\('a', 3\): must be a text or a list, each a text"),
        (lambda: RouterConfig(entropy_weight=float("nan")), r"RouterConfig\.entropy_weight = nan: must be a finite"),
        (lambda: RouterConfig(entropy_weight=float("inf")), r"RouterConfig\.entropy_weight = inf: must be a finite"),
        (lambda: PairConfig(layer=1, scale=float("inf")), r"PairConfig\.scale = inf"),
        (lambda: PairConfig(layer=1, control="item"), r"PairConfig\.control = 'item': must be session or order"),
        (lambda: VoteConfig(sizes="1, 2"), r"VoteConfig\.sizes = '1, 2': must be a list, each an integer"),
        (lambda: VoteConfig(sizes=[]), r"VoteConfig\.sizes = \(\): must be rising numbers"),
        (lambda: PromptConfig(max_title_words=2.5), r"max_title_words = 2\.5: must be an integer or None"),
        (lambda: StudentConfig(source="hub", id="\ud800"), r"StudentConfig\.id = '\\ud800': must be a text"),
        (lambda: Profile(name="x", student={"source": "hub"}), r"Profile\.student = .*: must be a StudentConfig"),
        (lambda: replace(PROFILES["toy"], pairs={}), r"Profile\.pairs = \{\}: must be a PairConfig or None"),
        (lambda: replace(PROFILES["toy"], name="../x"), r"Profile\.name = '\.\./x': must be a name that a folder"),
        (lambda: replace(PROFILES["toy"], domains=[]), r"Profile\.domains = \(\): must be one domain or more"),
        (lambda: replace(PROFILES["toy"], ties_rank=0), r"Profile\.ties_rank = 0: must be at least 1, or None"),
    ],
)
def test_a_bad_setting_names_itself_and_its_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_profiles_are_known_by_name_and_cannot_be_changed():
    assert list(PROFILES) == ["toy", "smol", "qwen", "t4", "paper"]
    assert get_profile("smol") is PROFILES["smol"]
    assert get_profile(PROFILES["toy"]) is PROFILES["toy"]
    with pytest.raises(ValueError, match="'big'.*toy, smol, qwen, t4, paper, control, qwen-1.5b"):
        get_profile("big")
    with pytest.raises(FrozenInstanceError):
        PROFILES["toy"].name = "other"


def test_the_t4_profile_needs_no_permission():
    assert "llama" not in PROFILES["t4"].student.id.lower()


def test_the_digest_changes_with_any_setting():
    config = TrainConfig()
    assert digest(config) == digest(TrainConfig())
    assert digest(config) != digest(replace(config, learning_rate=1e-4))
    assert digest(config, 0) != digest(config, 1)
    assert len(digest(config)) == 8


def test_a_newer_setting_changes_a_digest_only_where_it_is_set():
    @dataclass(frozen=True)
    class Old:
        rank: int = 4

    @dataclass(frozen=True)
    class New(Old):
        words: int = later(3)

    assert digest(Old()) == digest(New()) and settings(New()) == {"rank": 4}
    assert digest(New(words=5)) != digest(New()) and settings(New(words=5)) == {"rank": 4, "words": 5}


def test_recorded_pairs_keep_their_settings():
    """`smol` was recorded before controls knew of orders: its settings name none, and its digests stay."""
    assert digest(PROFILES["smol"].pairs) == digest(
        {"layer": 28, "scale": 7.0, "shift": -1.8, "orders": 2, "centre_sessions": 60}
    )
    assert PROFILES["t4"].pairs.control == PROFILES["paper"].pairs.control == "order"


def test_answers_come_from_pairs_only_where_they_can_be_read_at_test_time():
    smol, qwen = PROFILES["smol"], PROFILES["qwen"]
    assert (PROFILES["toy"].answers, smol.answers, qwen.answers) == ("greedy", "pairs", "consensus")
    assert replace(qwen, decode=DecodeConfig()).answers == "greedy"  # the states of lines exist in training only


# --- values from anywhere -----------------------------------------------------------------------------------------

NEEDED = {StudentConfig: {"source": "hub", "id": "x"}, PairConfig: {"layer": 1}}
KINDS = (
    StudentConfig, PromptConfig, KnowledgeConfig, PairConfig, OptimizerConfig, TrainConfig, RouterConfig, DecodeConfig,
    VoteConfig, Profile,
)  # fmt: skip
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.text("\ud800\0/.", max_size=3)
JSON = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_any_json_value_is_taken_or_refused_by_the_name_of_its_field(kind, data):
    needed = NEEDED.get(kind, {"name": "x", "student": PROFILES["toy"].student} if kind is Profile else {})
    names = st.sampled_from([f.name for f in fields(kind)])
    values = needed | data.draw(st.dictionaries(names, JSON, max_size=4))
    try:
        config = kind(**values)
    except ValueError as error:
        name = re.match(rf"{kind.__name__}\.(\w+) = .+: must be ", str(error), re.DOTALL)
        assert name and name[1] in {f.name for f in fields(kind)}
    else:
        assert digest(config) == digest(kind(**vars(config)))


@pytest.mark.parametrize("name", list(known_profiles()))
def test_settings_that_went_through_json_are_the_same(name):
    """JSON has lists only."""
    profile = get_profile(name)
    for part in ("student", "prompt", "train", "router", "decode", "vote"):
        config = getattr(profile, part)
        assert type(config)(**json.loads(json.dumps(asdict(config)))) == config
