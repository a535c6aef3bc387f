"""Resolve a configured checkpoint to the files of a local directory."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from core.errors import ConfigError, ModelUnavailable

SETTINGS = ("*.json", "*.txt", "*.model")
_PREFERRED = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
"""File names of weights, in the order in which transformers prefers them."""
_REFUSED = (GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError)


def locate(checkpoint: str, revision: str | None, *weights: str) -> Path:
    """Find the checkpoint's directory, downloading it when it is a hub id.

    `weights` are file patterns in order of preference: the first that the hub has is downloaded, with settings
    and tokenizers.

    Raises:
        ConfigError: neither a directory nor a hub id, or the hub refuses it.
        ModelUnavailable: the hub cannot be reached and nothing is cached; or HF_HUB_OFFLINE is set and the weights
            are not there yet.
    """
    directory = Path(checkpoint).expanduser()
    if directory.is_dir():
        return directory
    if directory.is_absolute() or checkpoint.startswith((".", "~")) or checkpoint.count("/") > 1:
        raise missing(f"the checkpoint directory {checkpoint} does not exist")
    for pattern in weights:
        found = download(checkpoint, revision, *SETTINGS, pattern)
        if any(found.glob(pattern)):
            return found
    place = "in the cache" if constants.HF_HUB_OFFLINE else "on the hub"
    raise missing(f"{checkpoint} {place} has no file like {' or '.join(weights)}")


def missing(message: str) -> ConfigError | ModelUnavailable:
    """Make the error of a checkpoint that is not there.

    With HF_HUB_OFFLINE others bring the checkpoints, and may not have done so yet.
    """
    if constants.HF_HUB_OFFLINE:
        return ModelUnavailable(f"{message}; HF_HUB_OFFLINE is set, so it must be brought here")
    return ConfigError(message)


def download(checkpoint: str, revision: str | None, *patterns: str) -> Path:
    """Download the matching files of a hub id into the local cache; returns their directory.

    Raises:
        ConfigError: the hub refuses the id or the revision.
        ModelUnavailable: the hub cannot be reached and nothing is cached.
    """
    wanted = f"{checkpoint} at revision {revision}" if revision else checkpoint
    try:
        return Path(snapshot_download(checkpoint, revision=revision, allow_patterns=list(patterns)))
    except _REFUSED as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"{wanted} is no directory here, and the hub refuses it: {reason}") from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise ModelUnavailable(f"{wanted} is no directory here, and the hub cannot be reached") from error


def read_config(directory: Path, name: str = "config.json") -> dict[str, object]:
    """Read the checkpoint's own description.

    Raises:
        ConfigError: the file is missing or no JSON object.
    """
    try:
        value = json.loads((directory / name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{directory} holds no {name}: not a checkpoint of this family") from error
    except ValueError as error:
        raise ConfigError(f"{directory / name} is not valid JSON") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{directory / name} must hold a JSON object")
    return value


def version_files(directory: Path, weights: Iterable[Path]) -> tuple[Path, ...]:
    """List the files that a version's vectors depend on: its weights, and all settings and tokenizers."""
    settings = (path for pattern in SETTINGS for path in directory.glob(pattern) if not _is_index(path))
    return tuple(sorted({*weights, *settings}))


def weight_files(directory: Path, is_wanted: Callable[[str], bool] = lambda _key: True) -> tuple[Path, ...]:
    """List the weight files of a transformers checkpoint that hold tensors with a wanted key.

    Raises:
        ConfigError: there are none.
    """
    found = first_file(directory, _PREFERRED)
    if not _is_index(found):
        return (found,)
    return tuple(sorted({directory / shard for key, shard in weight_map(found).items() if is_wanted(key)}))


def weight_index(directory: Path) -> Path | None:
    """Find the index of a checkpoint in shards; None where the weights are one file."""
    found = next((directory / name for name in _PREFERRED if (directory / name).is_file()), None)
    return found if found is not None and _is_index(found) else None


def weight_map(index: Path) -> dict[str, str]:
    """Read from an index file the shard of each tensor."""
    return dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])


def first_file(directory: Path, names: Sequence[str]) -> Path:
    """Return the first of these files that is there.

    Raises:
        ConfigError: there is none.
    """
    found = next((directory / name for name in names if (directory / name).is_file()), None)
    if found is None:
        raise ConfigError(f"{directory} holds none of {', '.join(names)}")
    return found


def _is_index(path: Path) -> bool:
    return path.name.endswith(".index.json")
