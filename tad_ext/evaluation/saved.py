"""An evaluation as files: evaluation.json, its numbers, and responses.jsonl, the responses behind them."""

import json
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tad_ext.data.jsonl import read_jsonl
from tad_ext.evaluation.results import Evaluation, Point, Response
from tad_ext.files import json_lines, write_text
from tad_ext.settings.kinds import shortened

REPORT, RESPONSES = "evaluation.json", "responses.jsonl"
_RESPONSE = typing.get_type_hints(Response)
_POINT = {name: kind for name, kind in typing.get_type_hints(Point).items() if kind in (str, int, float)}


def read_report(folder: str | Path) -> dict[str, Any]:
    """What a folder's evaluation.json holds. ValueError, naming the file, if there is none, or it is something else."""
    path = Path(folder) / REPORT
    if not path.is_file():
        raise ValueError(f"'{folder}' holds no {REPORT}; expected a folder that tad evaluate has finished")
    try:
        report = json.loads(path.read_bytes())
        missing = {"name", "task", "count", "points"} - report.keys()
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not the report of an evaluation: {error}") from error
    if missing:
        raise ValueError(f"{path} is not the report of an evaluation: it has no {', '.join(sorted(missing))}")
    return report


def read_evaluation(folder: str | Path) -> Evaluation:
    """The evaluation in a folder, with its responses, by the count it was reported in.

    Raises:
        ValueError: naming the file, for no finished evaluation, one of another form, and responses that are not those
            of the report.
    """
    report, path = read_report(folder), Path(folder) / RESPONSES
    try:
        points = [Point(**_checked(_POINT, {name: one.get(name) for name in _POINT})) for one in report["points"]]
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{Path(folder) / REPORT} is not the report of an evaluation: points, {error}") from error
    if not path.is_file():
        raise ValueError(f"'{folder}' holds no {RESPONSES}, which belongs to its {REPORT}")
    responses = []
    for place, row in read_jsonl(path, argument="responses"):
        try:
            responses.append(checked_response(**row))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{place}: not a response of tad evaluate: {error}") from error
    evaluation = Evaluation(
        str(report["name"]), str(report["task"]), points, report["count"], responses,
        str(report.get("problems_digest", "")),
    )  # fmt: skip
    for point in points:
        own = evaluation.responses_of(point.policy)
        if len(own) != point.problems or Point.of(point.policy, own) != point:
            raise ValueError(f"{path}: the responses of {point.policy} are not those that {REPORT} counts")
        if len({one["id"] for one in own}) < len(own):
            raise ValueError(f"{path} answers a problem twice in the run {point.policy}")
    return evaluation


def write_responses(path: str | Path, responses: Sequence[Response]) -> None:
    """Writes responses.jsonl, atomically."""
    write_text(path, json_lines(responses))


def checked_response(**fields: Any) -> Response:
    """A response of a line's fields. TypeError, ValueError for other fields than a response's, or wrong values."""
    return Response(**_checked(_RESPONSE, fields))  # type: ignore[typeddict-item]


def _checked(kinds: Mapping[str, type], fields: Mapping[str, Any]) -> dict[str, Any]:
    if fields.keys() != kinds.keys():
        raise TypeError(f"expected the fields {', '.join(kinds)}, got {', '.join(map(str, fields))}")
    for name, kind in kinds.items():
        value = fields[name]
        is_typed = isinstance(value, int | float if kind is float else kind) and isinstance(value, bool) == (
            kind is bool
        )
        if not is_typed or (kind in (int, float) and not value >= (1 if name in ("forwards", "problems") else 0)):
            raise ValueError(f"{name} is {shortened(repr(value))}; expected {kind.__name__}")
    return dict(fields)
