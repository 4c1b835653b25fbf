"""Times one operator against its baselines on a GPU: `python bench/gpu_kernels.py loss --result FILE`.

The file is written anew after every case, so that a run that is stopped has measured what it has measured.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from cases import GPU, OPERATORS, QUICK, Case, cases, copy_case
from lines import failed_line, in_order, line
from machine import gpu_status
from results import Groups, Line, write_results
from rich.console import Console
from stopwatch import Stopwatch
from tables import group_table
from work import Implementation, Workload

from tad_ext import backend_info

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
    sizes = QUICK if options.quick else GPU
    stopwatch = Stopwatch(options.device, evict_bytes=_GIB // 256 if options.quick else _GIB)
    groups: Groups = {}
    document: dict[str, Any] = {"backend": backend_info(), "rows": list(sizes.rows), "results": groups}

    def measure(case: Case) -> None:
        workload = case.build()
        paths = in_order(workload.implementations)
        groups[case.title] = [_line(stopwatch, case, workload, path, work) for path, work in paths.items()]
        console.print(group_table(case.title, groups[case.title], beside=groups))

    measure(copy_case(sizes, options.device))
    all_cases = cases(options.operator, sizes, options.device)
    for case in all_cases[:2] if options.quick else all_cases:
        torch.compiler.reset()  # each size is compiled for itself, and no limit on recompilations is met
        try:
            measure(case)
        except Exception as error:
            groups[case.title] = [failed_line(case, "tad_ext", error)]
            console.print(f"{case.title}: {groups[case.title][0]['error']}", markup=False)
        write_results(options.result, document)
        if _device_is_lost(options.device):
            console.print("the GPU is in an error state: the rest is not measured")
            break
    if torch.device(options.device).type == "cuda":
        document["gpu_after"] = gpu_status()
    write_results(options.result, document)
    return 1 if any("error" in line for lines in groups.values() for line in lines) else 0


def _line(stopwatch: Stopwatch, case: Case, workload: Workload, path: str, work: Implementation) -> Line:
    try:
        first_call = stopwatch.first_call_seconds(work)
        cold, warm = (stopwatch.time(work, cold=cold) for cold in (True, False))
        work.forget()
        peak = stopwatch.peak_bytes(work)
    except Exception as error:
        return failed_line(case, path, error)
    finally:
        work.forget()
    return line(case, workload, path) | {
        "median_ms": cold.median_ms,
        "best_ms": cold.best_ms,
        "rounds": cold.rounds,
        "warm_median_ms": warm.median_ms,
        "warm_best_ms": warm.best_ms,
        "first_call_s": first_call,
        "peak_bytes": peak,
    }


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
