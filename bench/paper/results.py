"""A measured cell as it is kept: one JSON file, small enough for a repository, with every problem's outcome in it.

Intervals that are paired over problems need the outcome of each problem under each policy: right or wrong, response
tokens, forwards. Those are bytes, compressed with a problem's own side by side, as these are most alike.
"""

import base64
import bz2
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tad_ext.evaluation import Evaluation

from ..results import read_json, write_json

OUTCOMES = ("correct", "tokens", "forwards")


@dataclass(frozen=True)
class Result:
    """What one cell of one base (and, if it was trained, of one training seed) came to."""

    cell: str
    base: int
    seed: int | None  #: of the training; None: the cell is not trained
    study: dict[str, Any]  #: the setting, as `Study.values` has it
    policies: list[str]
    outcomes: str  #: of each problem: `packed` arrays
    problems: int
    trajectories: dict[str, Any] | None  #: where they came from, decoded and kept
    decay: dict[str, Any] | None  #: of the cell "confidence": both curves
    seconds: dict[str, float]
    machine: dict[str, Any]

    @property
    def file_name(self) -> str:
        """Its place in a folder of results."""
        return file_name(self.cell, self.base, self.seed)

    def arrays(self) -> dict[str, np.ndarray]:
        """(policies, problems) int64 each: correct (0 or 1), tokens of the response, forwards."""
        return unpacked(self.outcomes, len(self.policies), self.problems)

    def write(self, folder: Path) -> None:
        path = folder / self.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(self))


def file_name(cell: str, base: int, seed: int | None) -> str:
    """Of a result, within the folder of all results."""
    return f"base-{base}/{cell}{'' if seed is None else f'.seed-{seed}'}.json"


def packed(evaluation: Evaluation, problems: int) -> str:
    """The outcomes of an evaluation's problems, policy by policy and in the problems' order, as text."""
    rows = [[int(one[name]) for one in evaluation.responses] for name in OUTCOMES]
    by_problem = np.array(rows, dtype=np.uint8).reshape(len(OUTCOMES), -1, problems).transpose(2, 1, 0)
    return base64.b85encode(bz2.compress(by_problem.tobytes())).decode()


def unpacked(text: str, policies: int, problems: int) -> dict[str, np.ndarray]:
    """The inverse: (policies, problems) int64 by name. ValueError for a text that does not hold so many."""
    values = np.frombuffer(bz2.decompress(base64.b85decode(text)), dtype=np.uint8)
    if values.size != len(OUTCOMES) * policies * problems:
        raise ValueError(f"outcomes hold {values.size} values, expected {len(OUTCOMES)} x {policies} x {problems}")
    arrays = values.reshape(problems, policies, len(OUTCOMES)).transpose(2, 1, 0).astype(np.int64)
    return dict(zip(OUTCOMES, arrays, strict=True))


def read_results(folder: Path) -> list[Result]:
    """All results below a folder. ValueError, naming the file, for one of another form, or of another setting."""
    results: list[Result] = []
    for path in sorted(folder.glob("base-*/*.json")):
        try:
            results.append(Result(**read_json(path)))
        except TypeError as error:
            raise ValueError(f"{path} is no result of bench.paper: {error}") from error
    if results:
        check_same_study(results, results[0].study, folder)
    return results


def check_same_study(results: Iterable[Result], study: dict[str, Any], folder: Path) -> None:
    """ValueError, naming file and value, unless all results were measured in this setting."""
    for result in results:
        for name in {**result.study, **study}:
            if result.study.get(name) != study.get(name):
                raise ValueError(
                    f"{folder / result.file_name} was measured with {name} = {result.study.get(name)!r}, expected "
                    f"{study.get(name)!r}: results of one setting"
                )


def of_cell(results: Sequence[Result], cell: str) -> dict[tuple[int, int | None], Result]:
    """A cell's results by base and training seed."""
    return {(one.base, one.seed): one for one in results if one.cell == cell}
