"""The pieces of work of a study, and any number of processes that share them.

A base's checkpoint comes first, then its trajectories of each origin, then its cells. A process takes the first piece
that is not done, that nobody has, and for which everything is there; what a killed process has left is taken up by
another one, or by the same command given again. What is done is told by the files alone.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from tad_ext.files import output_folder
from tad_ext.sharing.work import Place, Unit, work_together

from .cells import CONFIDENCE, Trajectories, cells
from .measure import Base
from .results import Result, check_same_study, file_name, read_results
from .study import Study


@dataclass(frozen=True)
class Piece:
    """Something to be made."""

    name: str  #: by which it is claimed
    make: Callable[[], Any]
    is_done: Callable[[], bool]
    is_ready: Callable[[], bool] = lambda: True
    base: int = 0  #: whose
    origin: Trajectories | None = None  #: of the trajectories that it needs


def work_on(study: Study, work: Path, results: Path, bases: Sequence[int], seeds: Sequence[int]) -> None:
    """Makes whatever is lacking, together with other processes that are given the same; returns when all is done.

    ValueError, before anything is made: `results` holds some of another setting, or another study runs in `work`.
    """
    output_folder(work)
    output_folder(results)
    check_same_study(read_results(results), study.values(), results)
    todo = pieces(study, work, results, bases, seeds)

    def open_units() -> list[Unit[Piece]]:
        # As long as a piece is not done, there is one that is ready: itself, or what it needs.
        ready = [piece for piece in todo if not piece.is_done() and piece.is_ready()]
        return [Unit(0, (piece,), group=f"{piece.name}.") for piece in ready]

    def do(units: list[Unit[Piece]]) -> None:
        for piece in (piece for unit in units for piece in unit.keys if not piece.is_done()):
            started, left = time.perf_counter(), sum(not one.is_done() for one in todo)
            print(f"\n{piece.name}, {left} of {len(todo)} left", flush=True)
            piece.make()
            print(f"{piece.name}: {time.perf_counter() - started:.0f} s", flush=True)

    work_together(work, work_digest(study), open_units, do, place=Place(), most=1)


def work_digest(study: Study) -> str:
    """What processes must agree on to share a work folder."""
    return hashlib.sha256(json.dumps(study.values()).encode()).hexdigest()[:16]


def pieces(study: Study, work: Path, results: Path, bases: Sequence[int], seeds: Sequence[int]) -> list[Piece]:
    """What there is to do, in its order: a cell of every base and seed before the next cell."""
    models = [Base(study, work, base) for base in bases]
    measured = list(_measured(study, models, results, seeds))
    wanted = {(piece.base, piece.origin) for piece in measured if not piece.is_done()}
    return [*_prepared(models, wanted), *measured]


def _prepared(models: Sequence[Base], wanted: set[tuple[int, Trajectories | None]]) -> Iterator[Piece]:
    """Checkpoints and trajectories, as far as a cell that is not there needs them."""
    for base in models:
        if any(base.seed == one for one, _ in wanted):
            yield Piece(f"base-{base.seed}", base.pretrain, base.checkpoint.exists)
    origins: tuple[Trajectories, ...] = ("privileged", "own")
    for base, origin in product(models, origins):
        if (base.seed, origin) in wanted:
            yield Piece(
                f"base-{base.seed}.trajectories-{origin}",
                partial(base.collect, origin),
                partial(base.is_collected, origin),
                base.checkpoint.exists,
            )


def _measured(study: Study, models: Sequence[Base], results: Path, seeds: Sequence[int]) -> Iterator[Piece]:
    for base in models:
        yield _result(base, results, CONFIDENCE, None, "privileged", base.confidence)
    for cell in cells(study).values():
        for base, seed in product(models, seeds if cell.trained else (None,)):
            yield _result(base, results, cell.name, seed, cell.trajectories, partial(base.measure, cell, seed))


def _result(
    base: Base, results: Path, cell: str, seed: int | None, origin: Trajectories | None, measure: Callable[[], Result]
) -> Piece:
    name = file_name(cell, base.seed, seed)

    def is_ready() -> bool:
        return base.checkpoint.exists() and (origin is None or base.is_collected(origin))

    return Piece(
        name=name.replace("/", ".").removesuffix(".json"),
        make=lambda: measure().write(results),
        is_done=(results / name).is_file,
        is_ready=is_ready,
        base=base.seed,
        origin=origin,
    )
