"""What the tests share: a switch between skipping and failing, a tiny student, the data mirror."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # several processes share the cores; torch is not imported yet
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

# The time of one example says more about the machine than about the code.
settings.register_profile("routedk", deadline=None)
settings.load_profile("routedk")

ROOT = Path(__file__).resolve().parent.parent
"""The repository's root."""


def require(condition: object, reason: str) -> None:
    """Go on if `condition` holds; otherwise skip the test, or fail it where the environment says CI=true."""
    if condition:
        return
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(f"needed in CI: {reason}", pytrace=False)
    pytest.skip(reason)


def load_script(name: str, folder: str = "scripts") -> ModuleType:
    """A script of the repository as a module."""
    path = ROOT / folder / f"{name}.py"
    require(path.exists(), f"{folder}/{name}.py comes with the repository only")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bare_decimals(text: str) -> list[str]:
    """Return the decimals in prose: outside code, formulas, tables, addresses, versions and paper ids."""
    hidden = (
        r"(?s)```.*?```|~~~.*?~~~|<!--.*?-->|\$\$.*?\$\$",
        r"`[^`\n]+`|\$[^$\n]+\$|https?://\S+|\]\([^)]*\)",
        r"(?m)^\s*\|.*$",
        r"\d+(?:\.\w+){2,}|\b\d{4}\.\d{5}(?:v\d+)?\b|(?:Python|version|License) v?\d+\.\d+",
    )
    for pattern in hidden:
        text = re.sub(pattern, " ", text)
    return re.findall(r"(?<![\w.])\d*[.]\d+", text)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium without a window."""
    sync_api = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    require(path, "needs Chromium or Chrome on the PATH, or its path in CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def explorer_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up records of the toy shop, from which an explorer can be made."""
    from explored import make_results

    return make_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def explorer(explorer_results: Path) -> Any:
    """The explorer of these records."""
    from routedk_lite.book.explorer.static import RouterExplorer

    return RouterExplorer.from_results(explorer_results, "toy", "toyshop")


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens explorers as one page in the browser."""
    from explored import visiting

    with visiting(browser, tmp_path) as open_page:
        yield open_page


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the public data: the one that `ROUTEDK_MIRROR` names, or what was fetched before."""
    from routedk_lite.data.public import cached_mirror

    value = os.environ.get("ROUTEDK_MIRROR", "")
    if value and Path(value).is_dir():
        return Path(value).resolve()
    found = cached_mirror(tmp_path_factory.mktemp("mirror"))
    require(found, "needs the public data: routedk data fetch, or a folder with them in ROUTEDK_MIRROR")
    return found


@pytest.fixture(scope="session")
def smol_student() -> Any:
    """The configuration of the smol student, which is in the cache, or is fetched in CI."""
    from routedk_lite.config import get_profile
    from routedk_lite.student.backbone import is_cached, student_files

    student = get_profile("smol").student
    reachable = is_cached(student) or os.environ.get("CI")
    require(reachable, "the smol student is not in the cache: routedk run --profile smol --only student")
    student_files(student)
    return student


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of two layers (hidden size 32) and a tokenizer of single bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(special + letters)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", padding_side="left"
    )
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny_llama")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_profile(tiny_llama: Path):
    """The toy profile with the random Llama as its student, and so little training that a test can wait for it."""
    from dataclasses import replace

    from routedk_lite.config import DecodeConfig, StudentConfig, get_profile

    toy = get_profile("toy")
    return replace(
        toy,
        student=StudentConfig(source="hub", id=str(tiny_llama), dtype="float32"),
        train=replace(toy.train, r=2, epochs=2, micro_batch_size=4, learning_rate=1e-2, max_length=1024),
        decode=DecodeConfig(batch_size=8, max_new_tokens=8),
    )


@pytest.fixture(scope="module")
def three_experts(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of experts of the tiny model."""
    from adapted import make_adapter

    top = tmp_path_factory.mktemp("experts")
    return [make_adapter(tiny_llama, top / f"e{i}", r=2, targets=["q_proj", "down_proj"], seed=i + 1) for i in range(3)]


@pytest.fixture
def bare_study(tiny_profile: Any, tiny_student: Any) -> SimpleNamespace:
    """What the functions of the explorer ask of a study, without its stages."""
    return SimpleNamespace(profile=tiny_profile, student=tiny_student, reader=None, seed=0, progress=False)


@pytest.fixture
def tiny_student(tiny_profile):
    """The random Llama, loaded afresh."""
    from routedk_lite.student.backbone import load_student

    return load_student(tiny_profile, device="cpu")


@pytest.fixture
def sessions():
    """Twelve small sessions of different lengths."""
    from routedk_lite.data.sessions import Session

    def make(number: int) -> Session:
        n = 2 + number % 4
        return Session(
            id=number,
            items=tuple(f"p{number}-{i}" for i in range(n)),
            titles=tuple(f"thing {chr(97 + (number + i) % 26)}" for i in range(n)),
            bundles=(frozenset({1, 2}),) if number % 2 else (frozenset({1, n}),),
        )

    return tuple(make(number) for number in range(12))


@pytest.fixture(scope="session")
def folders(tiny_llama, tmp_path_factory):
    """Three experts that differ in rank, scale and target modules; one of them rsLoRA."""
    from adapted import make_adapter

    targets = ("all-linear", ["q_proj", "v_proj", "down_proj"], ["q_proj", "k_proj", "gate_proj"])
    top = tmp_path_factory.mktemp("experts")
    return [
        make_adapter(tiny_llama, top / f"expert{i}", r=2 + i, targets=targets[i], seed=i + 1, use_rslora=i == 2)
        for i in range(3)
    ]


@pytest.fixture(scope="session")
def alike(tiny_llama, tmp_path_factory):
    """Three experts of equal shape on square modules, as PEFT's merges at one full rank need them."""
    from adapted import make_adapter

    top = tmp_path_factory.mktemp("alike")
    targets = ["q_proj", "o_proj"]
    return [make_adapter(tiny_llama, top / f"e{i}", r=4, targets=targets, seed=i + 1) for i in range(3)]


@pytest.fixture
def load(tiny_llama):
    """Loads the random Llama afresh."""
    import torch
    from transformers import AutoModelForCausalLM

    def load(**options):
        return AutoModelForCausalLM.from_pretrained(tiny_llama, **{"dtype": torch.float32} | options).eval()

    return load


# --- what only other users cannot do ------------------------------------------------------------------------------

_OVERRIDES = (1, 2)
"""Linux' capabilities to write and read whatever the permissions (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)."""


@contextmanager
def unprivileged() -> Iterator[None]:
    """In this block read-only means read-only, even where the tests run as root."""
    if os.geteuid():
        yield
        return
    libc, header = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0)
    before, changed = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    for capabilities in (before, changed):
        assert libc.capget(header, capabilities) == 0
    changed[0] &= ~sum(1 << number for number in _OVERRIDES)
    assert libc.capset(header, changed) == 0
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0
