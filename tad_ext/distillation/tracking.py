"""Experiment trackers, through accelerate: what each step's record holds, how fast it was, and what was measured."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import LoggerType

PROJECT = "tad-training"


def tracker_options(names: Sequence[str], folder: str) -> dict[str, Any]:
    """What an `Accelerator` is told of trackers, which may write into a folder; nothing if there are none.

    ValueError for a tracker that accelerate does not know, or whose package is not installed.
    """
    known = sorted(LOGGER_TYPE_TO_CLASS)
    registered = set(known) - set(LoggerType.list())  # by a program of one's own; they need no package
    for name in names:
        if name not in known:
            raise ValueError(f"tracker holds {name!r}; expected some of {', '.join(known)}")
        if name not in registered and name not in map(str, get_available_trackers()):
            raise ValueError(f"tracker holds {name!r}, whose package is not installed: pip install {name}")
    return {"log_with": list(names), "project_dir": folder} if names else {}


@contextmanager
def tracked(accelerator: Accelerator, settings: Mapping[str, Any]) -> Iterator[None]:
    """The accelerator's trackers, if it has any, from the beginning of the block to its end."""
    if not accelerator.log_with:
        yield
        return
    accelerator.init_trackers(PROJECT, config=_flat(settings))
    try:
        yield
    finally:
        for tracker in accelerator.trackers:  # not end_training, which would also part the ranks
            tracker.finish()


def track(accelerator: Accelerator, step: int, values: Mapping[str, Any]) -> None:
    """Tells the trackers the numbers of a step."""
    flat = _flat(values)
    accelerator.log({name: value for name, value in flat.items() if name.rpartition("/")[2] != "step"}, step=step)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"loss": 1.9, "parts": {"ce": 1.5}}` as `{"loss": 1.9, "parts/ce": 1.5}`; lists, and nothing, become text."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}/")
        elif isinstance(value, list | tuple):
            flat[prefix + name] = ", ".join(map(str, value))
        else:
            flat[prefix + name] = "none" if value is None else value
    return flat
