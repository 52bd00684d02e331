from dataclasses import FrozenInstanceError, dataclass, replace

import pytest

from routedk_lite.config import (
    PROFILES,
    DecodeConfig,
    PromptConfig,
    StudentConfig,
    TrainConfig,
    _later,
    digest,
    get_profile,
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
        words: int = _later(3)

    assert digest(Old()) == digest(New()) and settings(New()) == {"rank": 4}
    assert digest(New(words=5)) != digest(New()) and settings(New(words=5)) == {"rank": 4, "words": 5}


def test_answers_come_from_pairs_only_where_they_can_be_read_at_test_time():
    smol, qwen = PROFILES["smol"], PROFILES["qwen"]
    assert (PROFILES["toy"].answers, smol.answers, qwen.answers) == ("greedy", "pairs", "consensus")
    assert replace(qwen, decode=DecodeConfig()).answers == "greedy"  # the states of lines exist in training only
