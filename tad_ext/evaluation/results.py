"""What one evaluation found: a point per decoding run, the responses behind it, and the curves through the points."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

import numpy as np

from tad_ext.data.tasks.task import Problem
from tad_ext.decoding import TOKENS_PER_FORWARD_DEFINITION
from tad_ext.evaluation.bootstrap import SweepOutcomes
from tad_ext.evaluation.metrics import (
    accuracy_percent,
    accuracy_standard_error,
    accuracy_under_parallelism,
    latency_percentiles,
    wilson_interval,
)

Count = Literal["own", "published"]
ONE_PER_STEP = "topk:1"
PRESET = "preset:"  # how the name of a run begins that decodes as a preset says
PUBLISHED_DEFINITION = "tokens of the decoded response text, special tokens left out / all forwards; sum / sum"
DEFINITIONS = {
    "accuracy": "percent of problems whose response the verifier accepts; standard_error is binomial, "
    "accuracy_interval Wilson's of 95 %",
    "tokens_per_forward": TOKENS_PER_FORWARD_DEFINITION,
    "published_tokens_per_forward": PUBLISHED_DEFINITION,
    "tokens_per_second": "response tokens / seconds spent decoding; of several processes: of one of them",
    "latency": "seconds of decoding from a response's first forward to its last, beside the others of its batch; "
    "waiting for a place in the batch is not in it. Nearest-rank percentiles over problems",
    "aup": "accuracy under parallelism (arXiv 2605.09536); the topk:1 run stands at 1.0 tokens per forward",
}


class Response(TypedDict):
    """One response, as it stands in a line of responses.jsonl."""

    id: str  #: of the problem
    policy: str  #: name of the decoding run
    correct: bool
    tokens: int  #: up to and including the first end-of-sequence token
    text_tokens: int  #: of the decoded text, special tokens left out
    forwards: int  #: while it was unfinished
    latency: float  #: seconds of decoding from its first forward to its last, beside the others of its batch
    seconds: float  #: of the run's decoding, those since the response that was finished before
    response: str


@dataclass(frozen=True)
class Point:
    """One decoding run over all problems."""

    policy: str  # its name: a policy as parse_policy reads it, "entropy:0.5", or "preset:tad"
    problems: int
    correct: int
    response_tokens: int  # up to and including the first end-of-sequence token, over all problems
    text_tokens: int  # of the decoded response text, special tokens left out
    forwards: int  # while a sequence was unfinished, over all: a batch of 8 that takes one forward counts 8
    seconds: float  # spent decoding

    @classmethod
    def of(cls, policy: str, responses: Sequence[Response]) -> "Point":
        """What the responses of a run come to, one to each problem."""
        return cls(
            policy=policy,
            problems=len(responses),
            correct=sum(one["correct"] for one in responses),
            response_tokens=sum(one["tokens"] for one in responses),
            text_tokens=sum(one["text_tokens"] for one in responses),
            forwards=sum(one["forwards"] for one in responses),
            seconds=sum(one["seconds"] for one in responses),
        )

    @property
    def accuracy(self) -> float:
        """Percent."""
        return accuracy_percent(self.correct, self.problems)

    @property
    def standard_error(self) -> float:
        """Of the accuracy, in percentage points."""
        return accuracy_standard_error(self.correct, self.problems)

    @property
    def accuracy_interval(self) -> list[float]:
        """Wilson's 95 % interval of the accuracy, in percent."""
        return list(wilson_interval(self.correct, self.problems))

    @property
    def tokens_per_forward(self) -> float:
        """As `TOKENS_PER_FORWARD_DEFINITION` says."""
        return self.response_tokens / self.forwards

    @property
    def published_tokens_per_forward(self) -> float:
        """As `PUBLISHED_DEFINITION` says."""
        return self.text_tokens / self.forwards

    @property
    def tokens_per_second(self) -> float:
        """Response tokens per second of decoding, all sequences of a batch together."""
        return self.response_tokens / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """The counts and everything derived from them, as plain JSON values."""
        derived = [name for name, value in vars(Point).items() if isinstance(value, property)]
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in derived}


@dataclass
class Evaluation:
    """All decoding runs of one model on one task."""

    name: str
    task: str
    points: list[Point]
    count: Count = "own"  # which tokens per forward the curve, AUP and pictures go by
    responses: list[Response] = field(default_factory=list, repr=False)  # run by run, in the order of the problems
    problems_digest: str = ""  # of `problems_digest`; "": not noted

    def point(self, policy: str) -> Point:
        """The run of that name. KeyError if there was none."""
        points = {point.policy: point for point in self.points}
        if policy not in points:
            raise KeyError(f"no run with policy {policy}; there are {', '.join(points)}")
        return points[policy]

    def responses_of(self, policy: str) -> list[Response]:
        """Those of one run, in the order of the problems."""
        return [one for one in self.responses if one["policy"] == policy]

    def latency(self, policy: str) -> dict[str, float] | None:
        """Percentiles of the seconds of a run's responses, see `latency_percentiles`; None without responses."""
        seconds = [one["latency"] for one in self.responses_of(policy)]
        return latency_percentiles(seconds) if seconds else None

    def tokens_per_forward(self, point: Point) -> float:
        """Of one of the runs, by this evaluation's count."""
        return point.published_tokens_per_forward if self.count == "published" else point.tokens_per_forward

    def methods(self) -> dict[str, list[Point]]:
        """The runs that make one curve, by its name: those of one policy at several values of its main parameter, or
        that of one preset, each with the one-token-per-step run, if there was one.
        """
        names = dict.fromkeys(method_of(point.policy) for point in self.points if point.policy != ONE_PER_STEP)
        return {
            name: [point for point in self.points if point.policy == ONE_PER_STEP or method_of(point.policy) == name]
            for name in names or [method_of(ONE_PER_STEP)]
        }

    def curve(self, method: str | None = None) -> list[tuple[float, float]]:
        """(tokens per forward, accuracy) of each run of a method, or of all; sorted.

        The one-token-per-step run stands at 1.0, as published. A run whose responses have no token by this evaluation's
        count has no place on a curve, and is left out.
        """
        points = self.points if method is None else self.methods()[method]
        placed = ((self._place(point), point.accuracy) for point in points)
        return sorted((rho, accuracy) for rho, accuracy in placed if rho > 0)

    def _place(self, point: Point) -> float:
        return 1.0 if point.policy == ONE_PER_STEP else self.tokens_per_forward(point)

    def best_accuracy(self) -> float:
        """Of this evaluation's own points, in percent."""
        return max(point.accuracy for point in self.points)

    def aup(self, best_accuracy: float | None = None, *, method: str | None = None) -> float:
        """Accuracy under parallelism of a method's curve, or of all points; 0 without a right answer.

        `best_accuracy` (y_max) is by default this evaluation's own best.
        """
        if best_accuracy is None:
            best_accuracy = self.best_accuracy() or None
        curve = self.curve(method)
        return accuracy_under_parallelism(curve, best_accuracy) if curve else 0.0

    def outcomes(self, method: str) -> SweepOutcomes:
        """What each problem came to in each run of a method, for the bootstrap.

        ValueError if there are no responses, or not one of every run to every problem.
        """
        points = self.methods()[method]
        tokens = "text_tokens" if self.count == "published" else "tokens"
        columns = [self.responses_of(point.policy) for point in points]
        if {len(column) for column in columns} != {points[0].problems}:
            raise ValueError(f"{self.name} has no response of every run to every problem, which intervals need")

        def table(name: str) -> np.ndarray:
            return np.array([[one[name] for one in column] for column in columns]).T  # type: ignore[literal-required]

        at_one = np.array([point.policy == ONE_PER_STEP for point in points])
        return SweepOutcomes(table("correct"), table(tokens), table("forwards"), at_one)

    def to_json(self, best_accuracy: float | None = None, *, best_accuracy_from: str = "given") -> dict[str, Any]:
        """Everything but the responses, with the definitions of the counts, as plain JSON values.

        `best_accuracy_from` says where `best_accuracy` came from, the y_max of AUP; default: this evaluation's own.
        """
        return {
            "name": self.name,
            "task": self.task,
            "problems": self.points[0].problems,
            "problems_digest": self.problems_digest,
            "definitions": DEFINITIONS,
            "count": self.count,
            "points": [point.to_json() | {"latency": self.latency(point.policy)} for point in self.points],
            "aup": self.aup(best_accuracy),
            "best_accuracy": self.best_accuracy() if best_accuracy is None else best_accuracy,
            "best_accuracy_from": "this run's own points" if best_accuracy is None else best_accuracy_from,
        }


def method_of(run: str) -> str:
    """The curve that a decoding run belongs to: "entropy:0.5" to "entropy", a preset's to one of its own.

    What else than the main parameter is set belongs to the name: "confidence:0.9,accept=above" is of the curve
    "confidence,accept=above".
    """
    if run.startswith(PRESET):
        return run
    found = re.fullmatch(r"([^:]+):(?:\w+=)?[-+.\de]+(,.*)?", run)
    return f"{found[1]}{found[2] or ''}" if found else run


def problems_digest(problems: Iterable[Problem]) -> str:
    """16 hexadecimal digits that tell other problems apart, in whatever words they are put to a model."""
    content = [(problem.id, problem.question, problem.answer) for problem in problems]
    return hashlib.sha256(json.dumps(sorted(content)).encode()).hexdigest()[:16]
