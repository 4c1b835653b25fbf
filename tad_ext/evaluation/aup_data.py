"""Curves as published: the YAML files of the AUP leaderboard (d3LLM, arXiv 2601.07568), read and written.

    GSM8K-CoT:              # a task
      LLaDA:                # a method
      - [1.0, 72.55]        # tokens per forward, accuracy in percent
      d3LLM-LLaDA:
      - [1.0, 74.02]
      - [9.11, 73.09]

A key `_meta` beside the tasks, which says what the methods are, is passed over. The published files call the accuracy a
share (0 to 1) in a comment, and hold percent.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tad_ext.files import write_text
from tad_ext.settings.kinds import shortened

META = "_meta"
AUPData = Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]
"""Task -> method -> its points (tokens per forward, accuracy in percent), as they stand in the file."""


class _Loader(yaml.SafeLoader):
    """Which refuses a key that is written twice: one of the two would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for key, times in Counter(str(key.value) for key, _ in node.value).items():
            if times > 1:
                raise yaml.YAMLError(f"key '{key}' is written twice, {node.start_mark}")
        return super().construct_mapping(node, deep)


def read_aup_data(path: str | Path) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """The curves in a file, task -> method -> [(tokens per forward, accuracy in percent), ...].

    Raises:
        FileNotFoundError: no such file.
        ValueError: not of this form, naming the file, the place and what was expected; so for accuracies of 1 or less
            throughout a task, which are shares rather than percent.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path} is not a file; expected a YAML file of points, task -> method -> [[1.0, 72.5]]"
        )
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8-sig"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ValueError(f"{path} is not a YAML file: {' '.join(str(error).split())}") from error
    tasks = _mapping(content, f"{path}", "tasks")
    return {task: _checked_task(methods, f"{path}, task {task!r}") for task, methods in tasks.items() if task != META}


def write_aup_data(path: str | Path, data: AUPData) -> None:
    """Writes curves in the published form, atomically. ValueError for what `read_aup_data` would refuse."""
    lines = []
    for task, methods in _mapping(data, "data", "tasks").items():
        lines.append(f"{_key(task)}:")
        for method, points in _checked_task(methods, f"task {task!r}").items():
            lines.append(f"  {_key(method)}:")
            lines += [f"  - {yaml.safe_dump(list(point), default_flow_style=True).strip()}" for point in points]
    write_text(path, "\n".join(lines) + "\n")


def _key(name: str) -> str:
    """A key as YAML writes it, in quotes where it needs them."""
    return yaml.safe_dump(name, width=math.inf, allow_unicode=True).removesuffix("...\n").strip()


def _checked_task(methods: Any, where: str) -> dict[str, list[tuple[float, float]]]:
    found = {
        method: _checked_points(points, f"{where}, method {method!r}")
        for method, points in _mapping(methods, where, "methods").items()
    }
    best = max(accuracy for points in found.values() for _, accuracy in points)
    if 0 < best <= 1:
        raise ValueError(f"{where}: the best accuracy is {best}; expected percent, not shares")
    return found


def _checked_points(points: Any, where: str) -> list[tuple[float, float]]:
    if isinstance(points, str) or not isinstance(points, Sequence) or not points:
        raise ValueError(f"{where} is {shortened(repr(points))}; expected a list of at least one point [1.0, 72.5]")
    return [_checked_point(point, where) for point in points]


def _checked_point(point: Any, where: str) -> tuple[float, float]:
    is_pair = isinstance(point, Sequence) and not isinstance(point, str) and len(point) == 2
    if not is_pair or not all(isinstance(one, int | float) and not isinstance(one, bool) for one in point):
        raise ValueError(f"{where}: a point is {shortened(repr(point))}; expected two numbers, as in [1.0, 72.5]")
    rho, accuracy = map(float, point)
    if not (math.isfinite(rho) and rho > 0):
        raise ValueError(f"{where}: tokens per forward are {rho}; expected a finite number > 0")
    if not 0 <= accuracy <= 100:
        raise ValueError(f"{where}: the accuracy is {accuracy}; expected percent, from 0 to 100")
    return rho, accuracy


def _mapping(value: Any, where: str, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{where}: expected a mapping of {what}, by their names, got {shortened(repr(value))}")
    if not value.keys() - {META}:
        raise ValueError(f"{where}: expected a mapping of {what}, got none")
    return value
