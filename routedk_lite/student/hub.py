"""Students and adapters from the model hub: weights, settings and tokenizers, nothing that could carry code."""

from __future__ import annotations

import re
from pathlib import Path

from ..files import DownloadError, UnreadableError, read_json

_ADAPTER = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?P<inside>(?:/[\w.-]+)*)(?:@(?P<revision>[\w./-]+))?")


def hub_folder(repo: str, revision: str | None, patterns: list[str], *, kind: str, instead: str) -> Path:
    """The folder in the hub's cache that holds files of a repository; what is not there yet is fetched.

    Args:
        repo: `owner/name`.
        revision: commit, tag or branch; `None` is the default branch.
        patterns: which files.
        kind, instead: what it is, and what to do instead: for messages.

    Raises:
        DownloadError: it is gated, not there, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except GatedRepoError as error:
        raise DownloadError(
            f"{repo} is gated: accept its licence on the hub, then log in with `hf auth login`."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise DownloadError(
            f"cannot fetch the {kind} {repo!r} (revision {revision or 'default'}): {error}. "
            f"Check the name and the network, or {instead}."
        ) from error


def cached_model(repo: str, revision: str | None, patterns: list[str]) -> Path | None:
    """The folder that `hub_folder` would give of a model without the network; `None` if not all of it is there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    # The hub's cache may have no list of all files; what a download must have brought can be told without one.
    index, weights = folder / "model.safetensors.index.json", {"model.safetensors"}
    try:
        if index.is_file():
            known = read_json(index, "an index of weights", fields={"weight_map": dict})
            weights = set(known["weight_map"].values())
    except UnreadableError:
        return None
    return folder if all((folder / name).is_file() for name in ("config.json", *weights)) else None


def adapter_folder(where: str | Path) -> tuple[Path, str]:
    """The folder of an adapter, and its name.

    Args:
        where: a folder; or, as a string that is none, an id on the hub: `owner/name`, `owner/name/folder/inside`,
            either with `@revision` behind it.

    Raises:
        DownloadError: there is neither such a folder nor such an id.
    """
    folder = Path(where)
    found = None if isinstance(where, Path) or folder.exists() else _ADAPTER.fullmatch(where)
    if found is None:
        return folder, folder.resolve().name
    inside = found["inside"].strip("/")
    patterns = [f"{inside}/adapter_*" if inside else "adapter_*"]
    instead = f"give a folder (there is none {where!r} here)"
    fetched = hub_folder(found["repo"], found["revision"], patterns, kind="adapter", instead=instead)
    return fetched / inside, (inside or found["repo"]).rpartition("/")[2]
