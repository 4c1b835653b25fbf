"""Installs, tests and measures tad_ext on a machine with an H200, in under nine minutes and without a network.

    python -m bench.h200 --wheel FILE.whl    # everything; results in build/h200/h200.json, what was printed in h200.log
    python -m bench.h200                     # the same, but the package is built there, which takes a minute or two
    python -m bench.h200 --only decode       # one step
    python -m bench.h200 --rehearse          # tiny sizes on a CPU, nothing installed: whether it runs at all

Needed beforehand: a CUDA build of torch, and the packages that pyproject.toml names; for a build nvcc. The package is
installed into the Python that runs this. The most telling steps come first: the machine; the operators' GPU tests;
every operator beside a device copy and eager PyTorch; what the hardware counts (ncu); decoding and optimizer steps at
LLaDA-8B's shape; all GPU tests, compute-sanitizer's first; the main operators beside torch.compile and, where they are
installed, Liger-Kernel and QuACK. A step that fails or exceeds its time stops no other, unless that could not mean
anything; what a step has measured until then is kept. Exit code: 0 if all went well.

Copy h200.json to bench/results/ to have `python -m bench.report` include it.
"""

import importlib.util
import os
import signal
import sys
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import ROOT, TREE_IS_COMPILED, command_line
from ..report.machines import section
from .steps import Run, Step

LIMIT = 520  # seconds for all steps
FIRST_TESTS = ["python_tests/ops/test_cuda.py", "python_tests/ops/test_large_vocabularies.py"]
# What torch.compile and other projects' kernels are measured with: their first runs take seconds.
HEADLINES = (
    r"bfloat16, 512 rows of 126,464, near:distant (1:7|1:0|0:1)$|statistics, bfloat16, (64|512) .*temperature 0$"
    r"|log-softmax, .*, bfloat16, 512 |linear TAD loss, .*, bfloat16, .*(1:0|0:1)$|unmask step, stat.*batch 1,"
)
_FOR_GPUS_ONLY = ("install", "first-tests", "counters", "tests")


def main() -> int:
    """Returns the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a step's process is not left behind
    parser = command_line("bench.h200", __doc__)
    parser.add_argument("--wheel", type=Path, metavar="FILE", help="the package; default: built here")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "h200", help="folder; default build/h200")
    parser.add_argument("--limit", type=float, default=LIMIT, help=f"seconds for all steps; default {LIMIT}")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes on a CPU; nothing installed, no tests")
    names = [step.name for step in steps(Path(), parser.parse_args([]))][1:]
    choice = {"action": "append", "choices": names, "metavar": "STEP"}
    parser.add_argument("--only", **choice, help=f"may be given several times: {', '.join(names)}")
    options = parser.parse_args()

    options.output.mkdir(parents=True, exist_ok=True)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    document: dict[str, Any] = {"started": started, "quick": options.rehearse, "machine": {}, "steps": {}}
    run = Run(options.output.resolve(), options.limit, document)
    run.log.unlink(missing_ok=True)
    describe, *others = steps(run.output, options)
    document["machine"] = run.execute(describe)
    document["steps"][describe.name].pop("result", None)  # once is enough
    for index, step in enumerate(others):
        if reason := reason_to_skip(step, document, options):
            run.record(step, "skipped", reason)
        else:
            later = [one.least for one in others[index + 1 :] if not options.only or one.name in options.only]
            result = run.execute(step, reserved=sum(later))
            if result.get("launch_plans") and "launch_plans" not in document:
                document["launch_plans"] = result["launch_plans"]
                print(*(f"    {plan}" for plan in result["launch_plans"]), sep="\n", flush=True)

    print(f"\n{section(document)}\n\n{document['seconds']:.0f} s; results in {run.output / 'h200.json'}")
    return 0 if run.all_well and (document["machine"].get("gpu") or options.rehearse) else 1


def reason_to_skip(step: Step, document: dict[str, Any], options: Namespace) -> str | None:
    """Why a step is left out; None if it is not."""
    if document["steps"]["machine"]["status"] != "ok":
        return "the machine is not known"
    if options.only and step.name not in options.only:
        return "not asked for"
    if options.rehearse:
        return "a rehearsal" if step.name in _FOR_GPUS_ONLY else None
    if not document["machine"].get("gpu"):
        return "no CUDA GPU"
    if document["steps"].get("install", {}).get("status") in ("failed", "timed out"):
        return "the package is not installed"
    return None


def steps(output: Path, options: Namespace) -> list[Step]:
    """All steps in their order, the machine's description first."""
    where = ["--quick", "--device", "cpu"] if options.rehearse else ["--device", "cuda"]
    alone = ["--threads", "1"] if options.rehearse else []  # a second thread would wait where a test runs beside it

    def module(name: str, words: str, *arguments: str, limit: float, least: float = 0.0) -> Step:
        result = output / f"{name}.json"
        command = [sys.executable, "-m", *words.split(), *arguments, "--result", str(result)]
        return Step(name, command, limit, least, result)

    operators = "bench.operators loss statistics log-softmax unmask linear-loss"
    return [
        module("machine", "bench.machine", limit=60),
        installation(options.wheel),
        gpu_tests("first-tests", output, FIRST_TESTS, "gpu and not large", limit=80),
        module("operators", operators, "--without-compiled", *where, limit=130, least=70),
        module("counters", "bench.h200.counters", limit=60, least=30),
        module("decode", "bench.decode", "--shape", "llada-8b", "--seconds", "15", *where, *alone, limit=80, least=50),
        module("train", "bench.train", "--shape", "llada-8b", "--steps", "3", *where, limit=60, least=30),
        gpu_tests("tests", output, ["python_tests"], "gpu", limit=200, least=60),
        module("compiled", operators, "--match", HEADLINES, *where, limit=240, least=60),
    ]


def installation(wheel: Path | None) -> Step:
    """Of a wheel, or of this tree."""
    pip = [sys.executable, "-m", "pip", "install", "--no-deps"]
    if wheel:
        return Step("install", [*pip, "--force-reinstall", str(wheel.resolve())], limit=60)
    in_place = ["--editable"] if TREE_IS_COMPILED else []  # what lies in the tree would hide what is installed
    build = [*pip, "--no-build-isolation", "--verbose", *in_place, "."]
    # TAD_CUDA=1: a build without CUDA kernels is a failure.
    return Step("install", build, limit=200, env={"MAX_JOBS": str(os.cpu_count()), "TAD_CUDA": "1"})


def gpu_tests(name: str, output: Path, paths: list[str], marked: str, *, limit: float, least: float = 0.0) -> Step:
    """Tests with these marks, in eight processes where pytest can: they are small for a GPU. Each is logged.

    They are handed out one by one, so that those that come first, compute-sanitizer's, do not wait for each other.
    """
    report = output / f"{name}.xml"
    parallel = ["-n", "8", "--maxschedchunk", "1"] if importlib.util.find_spec("xdist") else []
    command = [sys.executable, "-m", "pytest", "-m", marked, *paths, "-v", *parallel, f"--junitxml={report}"]
    return Step(name, command, limit, least, report)


if __name__ == "__main__":
    sys.exit(main())
