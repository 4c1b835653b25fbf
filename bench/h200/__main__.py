"""Builds, tests and measures tad_ext on a machine with an NVIDIA H200, in under nine minutes and without a network.

    python -m bench.h200                     # everything; results in build/h200/h200.json, what was printed in h200.log
    python -m bench.h200 --only statistics   # one step
    python -m bench.h200 --quick             # tiny sizes, nothing built: whether it runs at all

Needed beforehand: a CUDA build of torch, nvcc, and the packages that pyproject.toml names. The package is installed
into the Python that runs this. Steps: the machine's description; `pip install`; the tests marked gpu; every operator
against eager PyTorch, torch.compile, a device copy and, where they are installed, Liger-Kernel and QuACK; a forward of
a model of LLaDA-8B's shape; `bench.decode` with models of LLaDA-8B's and Dream-7B's. A step that fails or exceeds its
time stops no other, unless that could not mean anything. Exit code: 0 if all went well.

Copy h200.json to bench/results/ to have `python -m bench.report` include it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import ROOT, TREE_IS_COMPILED
from ..report.machines import section
from .steps import Run, Step, read_junit

LIMIT = 520  # seconds for all steps
NO_GPU = "no CUDA GPU"


def main() -> int:
    """Returns the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a step's process is not left behind
    names = [step.name for step in steps(Path(), quick=False)][1:]
    parser = argparse.ArgumentParser(
        prog="python -m bench.h200", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "h200", help="folder; default build/h200")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; neither build nor tests")
    parser.add_argument("--only", action="append", choices=names, metavar="STEP", help=f"one of {', '.join(names)}")
    options = parser.parse_args()

    options.output.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": options.quick,
        "machine": {},
        "steps": {},
    }
    run = Run(options.output.resolve(), LIMIT, document)
    run.log.unlink(missing_ok=True)
    describe, *others = steps(run.output, quick=options.quick)
    document["machine"] = run.execute(describe)
    document["steps"][describe.name].pop("result", None)  # once is enough
    for index, step in enumerate(others):
        reason = reason_to_skip(step, document, options)
        if reason:
            run.record(step, "skipped", reason)
        else:
            run.execute(step, reserved=sum(later.least for later in others[index + 1 :] if wanted(later, options)))

    print(f"\n{section(document)}\n\n{document['seconds']:.0f} s; results in {run.output / 'h200.json'}")
    return 0 if run.all_well and (document["machine"].get("gpu") or options.quick) else 1


def wanted(step: Step, options: argparse.Namespace) -> bool:
    """Whether the options ask for a step."""
    if options.only:
        return step.name in options.only
    return not (options.quick and step.name in ("build", "tests"))


def reason_to_skip(step: Step, document: dict[str, Any], options: argparse.Namespace) -> str | None:
    """Why a step is left out; None if it is not."""
    if document["steps"]["machine"]["status"] != "ok":
        return "the machine is not known"
    if not document["machine"].get("gpu"):
        return NO_GPU
    if not wanted(step, options):
        return "not asked for" if options.only else "--quick"
    if document["steps"].get("build", {}).get("status") in ("failed", "timed out"):
        return "the build failed"
    return None


def steps(output: Path, *, quick: bool) -> list[Step]:
    """All steps in their order, the machine's description first."""
    tiny = ["--quick"] if quick else []
    shapes = ["--shape", "llada-8b", "--shape", "dream-7b", "--device", "cuda"]
    in_place = ["--editable"] if TREE_IS_COMPILED else []  # what lies in the tree would hide what is installed

    def module(name: str, words: str, *arguments: str, limit: float, least: float = 0.0) -> Step:
        result = output / f"{name}.json"
        command = [sys.executable, "-m", *words.split(), *arguments, "--result", str(result)]
        return Step(name, command, limit, least, result=result, judge=failed_lines)

    return [
        module("machine", "bench.machine", limit=60),
        Step(
            "build",
            [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--verbose", *in_place, "."],
            limit=200,
            env={"MAX_JOBS": str(os.cpu_count()), "TAD_CUDA": "1"},  # 1: a build without CUDA kernels is a failure
        ),
        tests(output / "tests.xml"),
        module("loss", "bench.operators loss", *tiny, limit=150, least=60),
        module("statistics", "bench.operators statistics", *tiny, limit=70, least=35),
        module("log-softmax", "bench.operators log-softmax", *tiny, limit=60, least=30),
        module("linear-loss", "bench.operators linear-loss", *tiny, limit=50, least=30),
        module("unmask", "bench.operators unmask", *tiny, limit=40, least=25),
        module("forward", "bench.decode.forward", *tiny, limit=60, least=40),
        module("decode", "bench.decode", *shapes, *tiny, limit=110, least=90),
    ]


def failed_lines(result: dict[str, Any]) -> str | None:
    """The first of the lines that could not be measured."""
    groups = [*result.get("results", {}).items()]
    groups += [(group["shape"], group["lines"]) for group in result.get("decoding", [])]
    lines = [(title, line) for title, group in groups for line in group if "error" in line]
    if not lines:
        return None
    title, line = lines[0]
    return f"{len(lines)} failed; first: {title}, {line['path']}: {line['error']}"


def tests(report: Path) -> Step:
    """The tests marked gpu, in four processes where pytest can: they are small for a GPU."""
    parallel = ["-n", "4"] if importlib.util.find_spec("xdist") else []
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "python_tests", "-q", *parallel, f"--junitxml={report}"]

    def judge(result: dict[str, Any]) -> str | None:
        if result["failed"] or result["errors"]:
            return f"{result['failed']} failed, {result['errors']} errors; first: {result['failed_tests'][0]}"
        if not result["passed"]:
            return f"no test ran: {result['skip_reasons']}"
        return None

    return Step("tests", command, limit=180, result=report, read_result=read_junit, judge=judge)


if __name__ == "__main__":
    sys.exit(main())
