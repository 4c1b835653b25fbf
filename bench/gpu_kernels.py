"""Times one operator against its baselines on a GPU: `python bench/gpu_kernels.py loss --result FILE`.

The file is written anew after every case, so that a run that is stopped has measured what it has measured.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from gpu_cases import FULL, OPERATORS, QUICK, cases
from machine import gpu_status
from results import Groups, Line, write_results
from rich.console import Console
from stopwatch import Stopwatch
from tables import group_table
from workloads import Implementation, Workload, copy

from tad_ext import backend_info

COPY = "device copy"
_GIB = 2**30


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 1 if any case failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("operator", choices=OPERATORS)
    parser.add_argument("--result", type=Path, required=True, help="file to write")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it runs, not how fast")
    parser.add_argument("--device", default="cuda", help="default cuda")
    options = parser.parse_args(arguments)
    console = Console(width=200, highlight=False)
    quick = options.quick
    stopwatch = Stopwatch(options.device, evict_bytes=_GIB // 256 if quick else _GIB)
    groups: Groups = {}
    document: dict[str, Any] = {"backend": backend_info(), "results": groups}

    def measure(title: str, workload: Workload) -> None:
        groups[title] = [
            _line(stopwatch, workload, path, work) for path, work in _in_order(workload.implementations).items()
        ]
        console.print(group_table(title, groups[title], beside=groups))
        write_results(options.result, document)

    measure(COPY, copy(2**20 if quick else 2**29, options.device))
    all_cases = cases(options.operator, QUICK if quick else FULL, options.device)
    for case in all_cases[:2] if quick else all_cases:
        torch.compiler.reset()  # each size is compiled for itself, and no limit on recompilations is met
        try:
            measure(case.title, case.build())
        except Exception as error:
            groups[case.title] = [_failed("tad_ext", error)]
            console.print(f"{case.title}: {groups[case.title][0]['error']}", markup=False)
            write_results(options.result, document)
        if _device_is_lost(options.device):
            console.print("the GPU is in an error state: the rest is not measured")
            break
    if torch.device(options.device).type == "cuda":
        document["gpu_after"] = gpu_status()
    write_results(options.result, document)
    return 1 if any("error" in line for lines in groups.values() for line in lines) else 0


def _in_order(implementations: dict[str, Implementation]) -> dict[str, Implementation]:
    """tad_ext first: what is wanted most is measured even where a baseline breaks."""
    return dict(sorted(implementations.items(), key=lambda item: item[0] != "tad_ext"))


def _line(stopwatch: Stopwatch, workload: Workload, path: str, work: Implementation) -> Line:
    line: Line = {"path": path, "baseline": path not in ("tad_ext", "copy"), "bytes": workload.bytes}
    try:
        first_call = stopwatch.first_call_seconds(work)
        cold, warm = (stopwatch.time(work, cold=cold) for cold in (True, False))
        workload.forget()
        peak = stopwatch.peak_bytes(work)
    except Exception as error:
        return _failed(path, error)
    finally:
        workload.forget()
    return line | {
        "elements": workload.elements,
        "flops": workload.flops,
        "median_ms": cold.median_ms,
        "best_ms": cold.best_ms,
        "rounds": cold.rounds,
        "warm_median_ms": warm.median_ms,
        "warm_best_ms": warm.best_ms,
        "first_call_s": first_call,
        "peak_bytes": peak,
    }


def _failed(path: str, error: Exception) -> Line:
    message = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    return {"path": path, "baseline": path != "tad_ext", "error": message}


def _device_is_lost(device: str) -> bool:
    """An illegal access leaves every later call of the process failing."""
    if torch.device(device).type != "cuda":
        return False
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError:
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
