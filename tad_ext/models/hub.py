"""Checkpoints and adapters of the model hub, where a folder is asked for: ``org/name``, or ``org/name@revision``.

Weights as safetensors, configurations and tokenizers are fetched, nothing else, into huggingface_hub's own cache; from
there they are read without a network, too. A folder of that name comes first.
"""

import functools
import os
import re
import sys
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(.+))?", re.ASCII)
_FILES = ["*.safetensors", "*.json", "*.jinja", "merges.txt"]
_FOLDERS = ["*/*"]  # which are not looked into
_SNAPSHOT = re.compile(r"models--(.+?)--(.+)")


def checkpoint_folder(path: str | Path, argument: str = "model") -> Path:
    """The folder that a path or a hub id names; the first time in a process, the id's commit is printed.

    What looks like neither is returned as it is: to say that there is no such folder is up to whoever reads it. So is a
    path whose first part is a folder, but not the second.

    ValueError, naming `argument`: a repository, revision or network that is not there, or no safetensors in it.
    """
    text, folder = os.fspath(path), Path(path)
    found = _ID.fullmatch(text)
    if found is None:  # absolute where a Path drops what tells it from an id, as of "./org/name"
        return folder if str(folder) == text else folder.absolute()
    return folder if Path(text.partition("/")[0]).is_dir() else _fetched(found[1], found[2], argument)


def hub_name(folder: str | Path) -> str | None:
    """``org/name@commit`` of a folder that `checkpoint_folder` has fetched; None for others."""
    commit, parent = Path(folder).name, Path(folder).parent
    repository = _SNAPSHOT.fullmatch(parent.parent.name)
    if parent.name != "snapshots" or repository is None:
        return None
    return f"{repository[1]}/{repository[2]}@{commit}"


def hub_note(path: str | Path) -> dict[str, str]:
    """For a report on a model: {"hub": its `hub_name`}, or nothing."""
    name = hub_name(checkpoint_folder(path))
    return {} if name is None else {"hub": name}


@functools.cache
def _fetched(repository: str, revision: str | None, argument: str) -> Path:
    name = f"{repository}@{revision}" if revision else repository
    wrong = f"{argument} is {name!r}: no folder has this name, and the hub repository"
    try:
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=_FILES, ignore_patterns=_FOLDERS))
    except HFValidationError as error:
        raise ValueError(f"{wrong} cannot have it: {error}") from error
    except GatedRepoError as error:
        raise ValueError(f"{wrong} is gated: ask for access on its page, and set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise ValueError(f"{wrong} has no revision {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise ValueError(f"{wrong} is not there, or private: set HF_TOKEN then") from error
    except LocalEntryNotFoundError as error:
        raise ValueError(f"{wrong} is not in the cache, and the hub cannot be asked: {_first_line(error)}") from error
    except Exception as error:  # a proxy's, a full disk's
        raise ValueError(f"{wrong} could not be fetched: {_first_line(error)}") from error
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"{wrong} holds no weights as safetensors, and no others are loaded")
    print(f"{argument} {name} of the hub: commit {folder.name}", file=sys.stderr)
    return folder


def _first_line(error: Exception) -> str:
    return str(error.__cause__ or error).partition("\n")[0]
