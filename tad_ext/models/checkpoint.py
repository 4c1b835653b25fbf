"""The files of a checkpoint folder, read no further than their headers: what is there, and whether it is complete."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_SAMPLES, _SAMPLE_BYTES = 64, 65536


def read_config(path: str | Path) -> dict[str, Any]:
    """The fields of a folder's config.json. ValueError if there is no folder, no such file, or no JSON object in it."""
    file = Path(path) / CONFIG_FILE
    if not file.is_file():
        problem = (
            f"holds no {CONFIG_FILE}"
            if file.parent.is_dir()
            else "is no folder, nor the id of a hub repository, org/name"
        )
        raise ValueError(f"model must be a checkpoint folder, got path {str(path)!r}, which {problem}")
    return read_json(file)


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file; ValueError, with the file, if there is none in it."""
    try:
        fields = json.loads(file.read_bytes())
        if not isinstance(fields, dict):
            raise TypeError(f"it holds a {type(fields).__name__}")
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{file} is not a JSON object: {error}") from error
    return fields


def weight_files(path: str | Path) -> list[Path]:
    """The safetensors files of a checkpoint, in order of name; ValueError if there are none or one is missing."""
    path = Path(path)
    index = path / INDEX_FILE
    if (path / WEIGHTS_FILE).is_file():
        return [path / WEIGHTS_FILE]
    if not index.is_file():
        pickles = sorted(file.name for file in path.iterdir() if file.suffix in _PICKLE_SUFFIXES)
        found = f"its weights as pickle only ({listed(pickles)}), which can run code and is never loaded"
        raise ValueError(
            f"checkpoint {path} holds {found if pickles else 'no weights'}; expected {WEIGHTS_FILE} or {INDEX_FILE}"
        )
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
        outside = [name for name in names if Path(name).name != name]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{index} is not a safetensors index: {error!r}") from error
    if outside:
        raise ValueError(f"{index} names weight files outside the checkpoint's folder: {listed(outside)}")
    absent = [name for name in names if not (path / name).is_file()]
    if absent:
        raise ValueError(f"checkpoint {path} is incomplete: {INDEX_FILE} names missing files {listed(absent)}")
    return [path / name for name in names]


def stored_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight stored in a checkpoint folder, from the file headers alone."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(path):
        stored = shapes_in(file)
        twice = sorted(shapes.keys() & stored.keys())
        if twice:
            raise ValueError(f"{file} holds weights that an earlier shard holds, too: {listed(twice)}")
        shapes |= stored
    return shapes


def shapes_in(file: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight in a safetensors file, from its header; ValueError if it is not a whole one."""
    try:
        with safe_open(file, framework="pt") as weights:
            return {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is damaged or not a safetensors file: {error}") from error


def weight_differences(expected: dict[str, tuple[int, ...]], stored: dict[str, tuple[int, ...]]) -> str:
    """Names the weights that are missing, unexpected or of another shape; empty where there are none."""
    shared = expected.keys() & stored.keys()
    wrong = [f"{key} {stored[key]} instead of {expected[key]}" for key in shared if stored[key] != expected[key]]
    problems = {
        "missing weights": expected.keys() - stored.keys(),
        "unexpected weights": stored.keys() - expected.keys(),
        "weights of the wrong shape": wrong,
    }
    return "; ".join(f"{what}: {listed(sorted(keys))}" for what, keys in problems.items() if keys)


def weight_digests(path: str | Path) -> dict[str, str]:
    """16 hexadecimal digits for each weights file, by its name, that tell its content from another's.

    They are of name, size and 64 evenly spaced samples of 64 KiB, so that 16 GB take milliseconds. Fit to recognise a
    checkpoint, not to protect against forgery.
    """
    return {file.name: files_digest([file]) for file in weight_files(path)}


def bytes_fingerprint(path: str | Path) -> str:
    """What earlier versions took for the identity of a checkpoint: config.json and the weights, byte by byte."""
    return files_digest(weight_files(path), (Path(path) / CONFIG_FILE).read_bytes())


def files_digest(files: Iterable[Path], before: bytes = b"") -> str:
    """16 hexadecimal digits of some files, as `weight_digests` makes them, behind the bytes `before`."""
    digest = hashlib.sha256(before)
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as stream:
            for sample in range(_SAMPLES):
                stream.seek(max(size - _SAMPLE_BYTES, 0) * sample // (_SAMPLES - 1))
                digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def listed(names: Iterable[str], most: int = 8) -> str:
    """Names for an error message, the list cut after `most` of them."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
