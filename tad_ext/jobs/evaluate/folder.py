"""What the output folder of an evaluation holds: answers that are written down, and the finished evaluation."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tad_ext.evaluation.results import Response
from tad_ext.evaluation.saved import REPORT, RESPONSES, checked_response, read_evaluation, read_report
from tad_ext.files import leftovers, remove_leftovers, successor_pattern
from tad_ext.jobs.evaluate.plan import EvaluationPlan, Key
from tad_ext.settings.kinds import shortened
from tad_ext.sharing.claims import CLAIM, Claims
from tad_ext.sharing.journal import read_journals, unbegun_journals
from tad_ext.sharing.work import Unit

PAGE, CURVE = "evaluation.md", "accuracy_curve.png"
FILES = (REPORT, RESPONSES, PAGE, CURVE)
_REPORTED = ("count", "best_accuracy", "bootstrap_samples")  # settings that change the report and no response


class EvaluationFolder:
    """The folder, as processes of one command see it. ValueError if it is another command's, see `check`."""

    def __init__(self, plan: EvaluationPlan) -> None:
        self.plan, self.path = plan, plan.output
        self.answers: dict[Key, Response] = {}
        self._sizes: dict[Path, int] = {}  # of journals, as they were when they were read
        self._numbers = {problem.id: number for number, problem in enumerate(plan.problems)}
        self._units = plan.units()
        self._check()
        self.look_again()

    def look_again(self) -> int:
        """Takes in what is written down; how many answers are new."""
        before = len(self.answers)
        for _, heading, rows in self._journals(self._has_grown):
            if heading == self.plan.identity:
                for row in rows:
                    self._take_in(row)
        if self._is_of_this_command():  # whose journals are gone
            for row in read_evaluation(self.path).responses:
                self._take_in(row)
        return len(self.answers) - before

    def open_units(self) -> list[Unit[Key]]:
        """The units of which something is not answered."""
        return [unit for unit in self._units if not all(key in self.answers for key in unit.keys)]

    def finished(self) -> dict[str, Any] | None:
        """The report of this command, if all its files are there."""
        if not all((self.path / name).is_file() for name in FILES) or not self._is_of_this_command():
            return None
        report = read_report(self.path)
        same = all(report["settings"].get(name) == self.plan.settings[name] for name in _REPORTED)
        return report if same else None

    def is_tidy(self) -> bool:
        """Whether nothing but the finished evaluation is there."""
        left = any(leftovers(self.path, pattern) for pattern in self._patterns())
        return not left and not self._journals() and not unbegun_journals(self.path)

    def is_claimed(self) -> bool:
        """Whether processes work here, or have left claims behind, which the next `Claims` to end removes."""
        return any(self.path.glob(f"{CLAIM}*")) or bool(leftovers(self.path, "claim"))

    def tidy(self) -> None:
        """Removes the journals, whose answers the finished evaluation holds, and what kills have left half written."""
        for path in (*(path for path, *_ in self._journals()), *unbegun_journals(self.path)):
            path.unlink(missing_ok=True)
        for pattern in self._patterns():
            remove_leftovers(self.path, pattern)

    def _patterns(self) -> list[str]:
        return [*FILES, successor_pattern(self.path)]

    def _has_grown(self, journal: Path) -> bool:
        try:
            size = journal.stat().st_size
        except FileNotFoundError:
            return False
        before, self._sizes[journal] = self._sizes.get(journal, 0), size
        return size > before

    def _take_in(self, row: Response) -> None:
        key = row["policy"], self._numbers.get(row["id"], -1)
        if key[0] in self.plan.runs and key[1] >= 0:
            self.answers.setdefault(key, row)

    def _check(self) -> None:
        """ValueError, naming what differs, for an evaluation of another command, finished or not.

        With `overwrite` a finished one stands until this one is, and an unfinished one is removed, unless processes
        still work on it.
        """
        finished = None
        if (self.path / REPORT).is_file():
            finished = read_report(self.path).get("identity", {})
        unfinished = [(path, heading) for path, heading, _ in self._journals() if heading != self.plan.identity]
        if self.plan.config.overwrite:
            if unfinished:
                with Claims(self.path, self.plan.work) as claims:
                    claims.take("overwrite")  # a ValueError, if processes work on something else
                    for path, _ in unfinished:
                        path.unlink(missing_ok=True)
                    claims.give_back("overwrite")
            return
        for what, identity in [
            ("a finished evaluation", finished),
            *(("an unfinished one", one) for _, one in unfinished),
        ]:
            if identity is not None and identity != self.plan.identity:
                name, found, own = next(_differences(identity, self.plan.identity))
                raise ValueError(
                    f"output: '{self.path}' holds {what} of another command, with {name} = {shortened(repr(found))}; "
                    f"this one has {shortened(repr(own))}: choose another folder or the same settings, or set overwrite"
                )

    def _journals(
        self, wanted: Callable[[Path], bool] = lambda _: True
    ) -> list[tuple[Path, Mapping[str, Any], list[Response]]]:
        return read_journals(self.path, _heading, checked_response, of="an evaluation", wanted=wanted)

    def _is_of_this_command(self) -> bool:
        return (self.path / REPORT).is_file() and read_report(self.path).get("identity") == self.plan.identity


def _heading(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"got {shortened(repr(value))}")
    return value


def _differences(found: Mapping[str, Any], own: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """What differs, by its place: ("runs.entropy:0.5.temperature", as it was found, as it is now)."""
    if prefix == "runs." and list(found) != list(own):
        yield "runs", list(found), list(own)
        return
    for name in [*own, *(name for name in found if name not in own)]:
        before, now = found.get(name), own.get(name)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from _differences(before, now, f"{prefix}{name}.")
        elif before != now:
            yield f"{prefix}{name}", before, now
