"""The steps of `bench.h200`: each a process of its own, with its own log, time limit and result.

The document is written after every step, so that a step that fails or runs out of time takes nothing with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .. import ROOT
from ..results import read_json, write_json

_GRACE = 8.0  # seconds from the polite signal to the other one
_LEAST_USEFUL = 5.0


@dataclass(frozen=True)
class Step:
    """`limit` and `least` are in seconds: the most it may take, and what earlier steps leave it in any case."""

    name: str
    command: Sequence[str]
    limit: float
    least: float = 0.0
    env: dict[str, str] = field(default_factory=dict)
    result: Path | None = None  # the file it writes its result to, bit by bit; moved into the document
    read_result: Callable[[Path], dict[str, Any]] = read_json
    judge: Callable[[dict[str, Any]], str | None] = lambda result: None  # what is wrong with a result, if anything


@dataclass
class Run:
    """A series of steps with one document, one log and a limit for all of them together."""

    output: Path
    limit: float
    document: dict[str, Any]
    started: float = field(default_factory=time.monotonic)

    @property
    def log(self) -> Path:
        """Everything that the steps print."""
        return self.output / "h200.log"

    @property
    def all_well(self) -> bool:
        """No step failed, was stopped, or had no time."""
        return all(step["status"] in ("ok", "skipped") for step in self.document["steps"].values())

    def skip(self, step: Step, reason: str, *, status: str = "skipped") -> None:
        """Record why a step is not run."""
        self._record(step, {"status": status, "reason": reason})

    def execute(self, step: Step, *, reserved: float = 0.0) -> dict[str, Any]:
        """Run a step; `reserved` seconds are left for later ones."""
        left = self.limit - (time.monotonic() - self.started)
        limit = min(step.limit, left - reserved)
        if limit < _LEAST_USEFUL:
            reason = f"no time was left ({left:.0f} s, of which {reserved:.0f} s for later steps)"
            self.skip(step, reason, status="failed")
            return self.document["steps"][step.name]
        print(f"{step.name}: at most {limit:.0f} s ...", flush=True)
        if step.result:
            step.result.unlink(missing_ok=True)  # of a run that was killed
        began = time.monotonic()
        record: dict[str, Any] = {"status": "interrupted", "limit_s": round(limit, 1)}
        try:
            with self.log.open("a", encoding="utf-8", errors="replace") as log:
                start_of_log = log.tell()
                log.write(f"\n===== {step.name}: {' '.join(step.command)}\n")
                log.flush()
                record |= _run_limited(step, limit, log)
        finally:
            record["seconds"] = round(time.monotonic() - began, 2)
            _take_result(step, record)
            self._record(step, record)
        if record["status"] != "ok":
            _print_end(self.log, start_of_log)
        return record

    def _record(self, step: Step, record: dict[str, Any]) -> None:
        self.document["steps"][step.name] = record
        self.document["seconds"] = round(time.monotonic() - self.started, 2)
        write_json(self.output / "h200.json", self.document)
        took = f", {record['seconds']:.1f} s" if "seconds" in record else ""
        reason = f": {record['reason']}" if "reason" in record else ""
        print(f"{step.name}: {record['status']}{took}{reason}", flush=True)


def _run_limited(step: Step, limit: float, log: IO[str]) -> dict[str, Any]:
    """Status and reason of the process; whatever it started is gone afterwards."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **step.env}
    try:
        process = subprocess.Popen(
            step.command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return {"status": "failed", "reason": str(error)}
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        _signal_all(process, signal.SIGINT)  # pytest still writes its report
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
        return {"status": "timed out", "reason": f"stopped after {limit:.0f} s"}
    finally:
        _signal_all(process, signal.SIGKILL)
        process.wait()
    if code:
        return {"status": "failed", "reason": f"exit code {code}"}
    return {"status": "ok"}


def _signal_all(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To the process and all that it started and did not detach."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _take_result(step: Step, record: dict[str, Any]) -> None:
    """Move what the step has written into the document; judge it."""
    if step.result is None:
        return
    try:
        record["result"] = step.read_result(step.result)
    except (OSError, ValueError) as error:
        if record["status"] == "ok":
            record |= {"status": "failed", "reason": f"no result: {error}"}
        return
    finally:
        step.result.unlink(missing_ok=True)
    problem = step.judge(record["result"])
    if problem and record["status"] in ("ok", "failed"):
        record |= {"status": "failed", "reason": problem}


def _print_end(log: Path, start: int, lines: int = 30) -> None:
    """The last lines that a step printed."""
    with log.open("rb") as stream:
        stream.seek(start)
        text = stream.read().decode("utf-8", errors="replace")
    print("\n".join(f"    {line}" for line in text.splitlines()[-lines:]), flush=True)


def read_junit(path: Path) -> dict[str, Any]:
    """Counts and the failed tests of a JUnit report of pytest. ValueError if it is none."""
    try:
        cases = ElementTree.parse(path).getroot().findall(".//testcase")
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is not a JUnit report: {error}") from error
    outcomes: dict[str, list[str]] = {"failure": [], "error": [], "skipped": []}
    reasons: dict[str, int] = {}
    for case in cases:
        name = f"{case.get('classname')}::{case.get('name')}"
        for outcome in outcomes:
            found = case.find(outcome)
            if found is not None:
                outcomes[outcome].append(name)
                if outcome == "skipped":
                    reason = found.get("message") or ""
                    reasons[reason] = reasons.get(reason, 0) + 1
    unwell = {name for names in outcomes.values() for name in names}
    return {
        "passed": sum(f"{case.get('classname')}::{case.get('name')}" not in unwell for case in cases),
        "failed": len(outcomes["failure"]),
        "errors": len(outcomes["error"]),
        "skipped": len(outcomes["skipped"]),
        "failed_tests": sorted({*outcomes["failure"], *outcomes["error"]}),
        "skip_reasons": reasons,
    }
