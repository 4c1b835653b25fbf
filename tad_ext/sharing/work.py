"""Work in units, done by any number of processes that know of each other by their claims in a folder alone."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from tqdm import tqdm

from tad_ext.sharing.claims import Claims

WAIT = 5.0  # seconds between two looks at what others still work on

Key = TypeVar("Key")


@dataclass(frozen=True)
class Place:
    """Of a process among those that torchrun or accelerate have started together."""

    rank: int = 0
    world_size: int = 1

    @classmethod
    def of_this_process(cls) -> "Place":
        """By the variables that torchrun and accelerate set. ValueError, naming them, if they make no sense."""
        defaults = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
        texts = {name: os.environ.get(name, default) for name, default in defaults.items()}
        if not all(map(str.isdecimal, texts.values())) or int(texts["RANK"]) >= int(texts["WORLD_SIZE"]):
            raise ValueError(f"expected integers 0 <= RANK < WORLD_SIZE in the environment, got {texts}")
        return cls(int(texts["RANK"]), int(texts["WORLD_SIZE"]))

    @property
    def is_first(self) -> bool:
        """Whether it is the one that shows progress and prints."""
        return self.rank == 0


@dataclass(frozen=True)
class Unit(Generic[Key]):
    """Pieces that one process works on."""

    start: int  #: place of the first one in the whole list
    keys: tuple[Key, ...]
    group: str = ""  #: a process takes only units of one group at a time

    @property
    def name(self) -> str:
        """By which it is claimed."""
        return f"{self.group}{self.start:08d}-{len(self.keys)}"


def units_of(keys: Sequence[Key], size: int, *, group: str = "") -> list[Unit[Key]]:
    """The list cut into units of `size`; the same for every process that has the same list."""
    return [Unit(start, tuple(keys[start : start + size]), group) for start in range(0, len(keys), size)]


def work_together(
    folder: Path,
    work: str,
    open_units: Callable[[], list[Unit[Key]]],
    do: Callable[[list[Unit[Key]]], None],
    *,
    place: Place,
    most: int | None = None,
    wait: float = WAIT,
) -> None:
    """Has all units done, by this process or by others, and returns when none is open any more.

    Args:
        folder: what is shared.
        work: says what the units are: the same for all who may share them (see `Claims`).
        open_units: what is not done, as the folder says now. A unit leaves the list once its results are in the folder.
        do: works on units that no other process has; another one may have done some of them just before.
        most: units that a process has at a time; None: its share of what is open.
        wait: seconds between two looks where others have all that is open.
    """
    told = False
    with Claims(folder, work) as claims:
        while units := open_units():
            if taken := _take(claims, units, place, most):
                do(taken)
                for unit in taken:
                    claims.give_back(unit.name)
            else:
                if place.is_first and not told:
                    tqdm.write("other processes work on what is left: waiting for them")
                told = True
                time.sleep(wait)


def _take(claims: Claims, units: Sequence[Unit[Key]], place: Place, most: int | None) -> list[Unit[Key]]:
    """Some units of a group that no other process has, beginning where no other one begins."""
    share = max(1, len(units) // place.world_size)
    most = share if most is None else min(most, share)
    first = len(units) * place.rank // place.world_size
    taken: list[Unit[Key]] = []
    for unit in [*units[first:], *units[:first]]:
        if len(taken) == most:
            break
        if (not taken or unit.group == taken[0].group) and claims.take(unit.name):
            taken.append(unit)
    return taken
