"""The steps of `bench.h200`: each a process of its own, with its own log, time limit and result.

The document is written after every step, so that a step that fails or runs out of time takes nothing with it.
"""

import os
import signal
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .. import ROOT
from ..results import failed_lines, read_json, write_json

_GRACE = 8.0  # seconds from the polite signal to the other one
_LEAST_USEFUL = 5.0
_SHOWN = 30  # of the last lines that a step printed, where it did not go well

Outcome = tuple[str, str | None]  # a status and its reason


@dataclass(frozen=True)
class Step:
    """One process, whose `result` is moved into the document."""

    name: str
    command: Sequence[str]
    limit: float  # the most seconds it may take
    least: float = 0.0  # seconds that earlier steps leave it in any case
    result: Path | None = None  # it writes this file bit by bit: JSON, or the JUnit report of tests
    env: dict[str, str] = field(default_factory=dict)


class Run:
    """A series of steps with one document, one log of all that they print, and a limit for all of them together."""

    def __init__(self, output: Path, limit: float, document: dict[str, Any]) -> None:
        self.output, self.limit, self.document = output, limit, document
        self.log, self.started = output / "h200.log", time.monotonic()

    @property
    def all_well(self) -> bool:
        """No step failed, was stopped, or had no time."""
        return all(step["status"] in ("ok", "skipped") for step in self.document["steps"].values())

    def record(self, step: Step, status: str, reason: str | None = None, **more: Any) -> None:
        """What has become of a step."""
        self.document["steps"][step.name] = {"status": status, **({"reason": reason} if reason else {}), **more}
        self.document["seconds"] = round(time.monotonic() - self.started, 2)
        write_json(self.output / "h200.json", self.document)
        took = f", {more['seconds']:.1f} s" if "seconds" in more else ""
        print(f"{step.name}: {status}{took}{f': {reason}' if reason else ''}", flush=True)

    def execute(self, step: Step, *, reserved: float = 0.0) -> dict[str, Any]:
        """Run a step, and return its result; `reserved` seconds are left for later ones."""
        began = time.monotonic()
        left = self.limit - (began - self.started)
        limit = min(step.limit, left - reserved)
        if limit < _LEAST_USEFUL:
            self.record(step, "failed", f"no time was left ({left:.0f} s, of which {reserved:.0f} s for later steps)")
            return {}
        print(f"{step.name}: at most {limit:.0f} s ...", flush=True)
        if step.result:
            step.result.unlink(missing_ok=True)  # of a run that was killed
        outcome: Outcome = ("interrupted", None)
        with self.log.open("a+", encoding="utf-8", errors="replace") as log:
            start_of_log = log.tell()
            log.write(f"\n===== {step.name}: {' '.join(step.command)}\n")
            log.flush()
            try:
                outcome = _run_limited(step, limit, log)
            finally:
                result, outcome = _result(step, outcome)
                more = {"result": result} if result else {}
                seconds = round(time.monotonic() - began, 2)
                self.record(step, *outcome, limit_s=round(limit, 1), seconds=seconds, **more)
            if outcome[0] != "ok":
                log.seek(start_of_log)
                print(*(f"    {line}" for line in log.read().splitlines()[-_SHOWN:]), sep="\n", flush=True)
        return result


def _run_limited(step: Step, limit: float, log: IO[str]) -> Outcome:
    """What has become of the process; whatever it started and did not detach is gone afterwards."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **step.env}
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
    try:
        process = subprocess.Popen(step.command, cwd=ROOT, env=environment, start_new_session=True, **streams)
    except OSError as error:
        return "failed", str(error)
    try:
        code = process.wait(limit)
        return ("failed", f"exit code {code}") if code else ("ok", None)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError, PermissionError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGINT)  # pytest still writes its report
            process.wait(_GRACE)
        return "timed out", f"stopped after {limit:.0f} s"
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _result(step: Step, outcome: Outcome) -> tuple[dict[str, Any], Outcome]:
    """What the step has written, and what has become of the step in the light of it."""
    if step.result is None:
        return {}, outcome
    try:
        result = read_junit(step.result) if step.result.suffix == ".xml" else read_json(step.result)
    except (OSError, ValueError) as error:
        return {}, ("failed", f"no result: {error}") if outcome[0] == "ok" else outcome
    finally:
        step.result.unlink(missing_ok=True)
    problem = failed_tests(result) if "failed_tests" in result else failed_lines(result)
    return result, ("failed", problem) if problem and outcome[0] in ("ok", "failed") else outcome


def failed_tests(result: dict[str, Any]) -> str | None:
    """The first of the tests that failed. That none ran is a failure, too: a build without CUDA kernels skips all."""
    if result["failed"] or result["errors"]:
        return f"{result['failed']} failed, {result['errors']} errors; first: {result['failed_tests'][0]}"
    return None if result["passed"] else f"no test ran: {result['skip_reasons']}"


def read_junit(path: Path) -> dict[str, Any]:
    """Counts and the failed tests of a JUnit report of pytest. ValueError if it is none."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is not a JUnit report: {error}") from error
    counts = Counter[str]()
    for suite in root.iter("testsuite"):
        counts.update({name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")})
    bad = [case for case in root.iter("testcase") if {"failure", "error"} & {part.tag for part in case}]
    return {
        "passed": counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"],
        "failed": counts["failures"],
        "errors": counts["errors"],
        "skipped": counts["skipped"],
        "failed_tests": sorted({f"{case.get('classname')}::{case.get('name')}" for case in bad}),
        "skip_reasons": dict(Counter(one.get("message") or "" for one in root.iter("skipped"))),
    }
