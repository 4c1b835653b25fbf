"""Times operators beside their baselines on a GPU: `python -m bench.operators loss statistics --result FILE`.

The file is written anew after every line, so that a run that is stopped has measured what it has measured.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import torch

from tad_ext.ops import backend_info

from ..machine import gpu_status
from ..report.operators import case_table
from ..results import Groups, copy_rate, failed, write_json
from ..stopwatch import Stopwatch
from .cases import GPU, OPERATORS, QUICK, Case, cases
from .measure import one_by_one

_GIB = 2**30


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 1 if anything could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.operators", description=__doc__)
    names = list(OPERATORS)[1:]  # a copy is measured in any case
    parser.add_argument("operators", nargs="*", choices=[*names, []], metavar="OPERATOR", help=f"{', '.join(names)}")
    parser.add_argument("--match", default="", metavar="REGEX", help="only cases whose title matches")
    parser.add_argument("--without-compiled", action="store_true", help="nothing that compiles in its first run")
    parser.add_argument("--result", type=Path, required=True, help="file to write")
    parser.add_argument("--quick", action="store_true", help="few cases of tiny sizes: whether it runs, not how fast")
    parser.add_argument("--device", default="cuda", help="default cuda")
    options = parser.parse_args(arguments)
    operators = options.operators or names
    sizes = QUICK if options.quick else GPU
    stopwatch = Stopwatch(options.device, evict_bytes=_GIB // 256 if options.quick else 4 * _GIB)
    groups: Groups = {}
    document: dict[str, Any] = {"backend": backend_info(), "results": groups}

    def measure(case: Case) -> None:
        torch.compiler.reset()  # each size is compiled for itself, and no limit on recompilations is met
        lines = groups.setdefault(case.title, [])
        try:
            for line in one_by_one(stopwatch, case, case.build(), compiled=not options.without_compiled):
                lines.append(line)
                write_json(options.result, document)
        except Exception as error:
            lines.append(failed("tad_ext", error))
            write_json(options.result, document)
        print(f"{case.title}\n\n{case_table(lines, copy_rate(groups))}\n", flush=True)

    most = None if not options.quick else 2 if options.without_compiled else 1  # of an operator: compiling takes long
    chosen = [case for name in operators for case in cases(name, sizes, options.device)[:most]]
    chosen = [case for case in chosen if re.search(options.match, case.title)]
    for case in (*cases("copy", sizes, options.device), *chosen):
        measure(case)
        if _device_is_lost(options.device):
            print("the GPU is in an error state: the rest is not measured")
            break
    if torch.device(options.device).type == "cuda":
        document["gpu_after"] = gpu_status()
    write_json(options.result, document)
    return 1 if any("error" in line for lines in groups.values() for line in lines) else 0


def _device_is_lost(device: str) -> bool:
    """An illegal access leaves every later call of the process failing."""
    try:
        torch.zeros(1, device=device).item()
    except RuntimeError:
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
