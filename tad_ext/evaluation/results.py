"""What one evaluation found: a point per decoding run, and the curve through them."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from tad_ext.decoding import TOKENS_PER_FORWARD_DEFINITION
from tad_ext.evaluation.metrics import accuracy_percent, accuracy_standard_error, accuracy_under_parallelism

ONE_PER_STEP = "topk:1"
PUBLISHED_DEFINITION = "tokens of the decoded response text, special tokens left out / all forwards; sum / sum"


@dataclass(frozen=True)
class Point:
    """One decoding run over all problems."""

    policy: str  # as parse_policy reads it: "entropy:0.5"
    problems: int
    correct: int
    response_tokens: int  # up to and including the first end-of-sequence token, over all problems
    text_tokens: int  # of the decoded response text, special tokens left out
    forwards: int  # while a sequence was unfinished, over all: a batch of 8 that takes one forward counts 8
    seconds: float  # spent decoding

    @property
    def accuracy(self) -> float:
        """Percent."""
        return accuracy_percent(self.correct, self.problems)

    @property
    def standard_error(self) -> float:
        """Of the accuracy, in percentage points."""
        return accuracy_standard_error(self.correct, self.problems)

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
    count: str = "own"  # or "published": which tokens per forward the curve, AUP and pictures go by
    responses: list[dict[str, Any]] = field(default_factory=list, repr=False)  # one per problem and policy

    def point(self, policy: str) -> Point:
        """The run of that policy. KeyError if there was none."""
        points = {point.policy: point for point in self.points}
        if policy not in points:
            raise KeyError(f"no run with policy {policy}; there are {', '.join(points)}")
        return points[policy]

    def tokens_per_forward(self, point: Point) -> float:
        """Of one of the runs, by this evaluation's count."""
        return point.published_tokens_per_forward if self.count == "published" else point.tokens_per_forward

    def curve(self) -> list[tuple[float, float]]:
        """(tokens per forward, accuracy) of each run, the one-token-per-step run at 1.0 as published; sorted."""
        return sorted(
            (1.0 if point.policy == ONE_PER_STEP else self.tokens_per_forward(point), point.accuracy)
            for point in self.points
        )

    def best_accuracy(self) -> float:
        """Of this evaluation's own points, in percent."""
        return max(point.accuracy for point in self.points)

    def aup(self, best_accuracy: float | None = None) -> float:
        """Accuracy under parallelism, 0 without a right answer; `best_accuracy` (y_max) is by default its own best."""
        best = self.best_accuracy() if best_accuracy is None else best_accuracy
        never_right = best_accuracy is None and best == 0.0
        return 0.0 if never_right else accuracy_under_parallelism(self.curve(), best)

    def to_json(self, best_accuracy: float | None = None, *, best_accuracy_from: str = "given") -> dict[str, Any]:
        """Everything but the responses, with the definitions of the counts, as plain JSON values.

        `best_accuracy_from` says where `best_accuracy` came from, the y_max of AUP; default: this evaluation's own.
        """
        return {
            "name": self.name,
            "task": self.task,
            "problems": self.points[0].problems,
            "definitions": {
                "accuracy": "percent of problems whose response the verifier accepts; standard_error is binomial",
                "tokens_per_forward": TOKENS_PER_FORWARD_DEFINITION,
                "published_tokens_per_forward": PUBLISHED_DEFINITION,
                "tokens_per_second": "response tokens / seconds spent decoding",
                "aup": "accuracy under parallelism (arXiv 2605.09536); the topk:1 run stands at 1.0 tokens per forward",
            },
            "count": self.count,
            "points": [point.to_json() for point in self.points],
            "aup": self.aup(best_accuracy),
            "best_accuracy": self.best_accuracy() if best_accuracy is None else best_accuracy,
            "best_accuracy_from": "this run's own points" if best_accuracy is None else best_accuracy_from,
        }
