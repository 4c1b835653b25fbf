"""Times operators beside their baselines on a GPU: `python -m bench.operators loss statistics --result FILE`.

A GPU's clock is steady and its time is dear: each path is measured by itself, tad_ext's first. The file is written anew
after every line, so that a run that is stopped has measured what it has measured.
"""

import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tad_ext.ops import backend_info

from .. import command_line
from ..machine import gpu_status, launch_plans
from ..report.tables import case_table, copy_rate
from ..results import Groups, Line, attempt, failed, failed_lines, write_json
from ..stopwatch import Implementation, Stopwatch
from .cases import GPU, OPERATORS, QUICK, Case, cases
from .peers import LIGER, QUACK, versions

_GIB = 2**30


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 1 if anything could not be measured."""
    parser = command_line("bench.operators", __doc__, device="cuda")
    names = list(OPERATORS)[1:]  # a copy is measured in any case
    parser.add_argument("operators", nargs="*", choices=[*names, []], metavar="OPERATOR", help=f"{', '.join(names)}")
    parser.add_argument("--match", default="", metavar="REGEX", help="only cases whose title matches")
    parser.add_argument("--without-compiled", action="store_true", help="nothing that compiles in its first run")
    parser.add_argument("--result", type=Path, required=True, help="file to write")
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else GPU
    stopwatch = Stopwatch(options.device, evict_bytes=_GIB // 256 if options.quick else 4 * _GIB)
    most = None if not options.quick else 2 if options.without_compiled else 1  # of an operator: compiling takes long
    chosen = [case for name in options.operators or names for case in cases(name, sizes)[:most]]
    chosen = [case for case in chosen if re.search(options.match, case.title)]
    groups: Groups = {}
    plans = launch_plans(options.device)
    print(*plans, sep="\n", end="\n\n", flush=True)
    document: dict[str, Any] = {
        "backend": backend_info(),
        "launch_plans": plans,
        "peers": versions(),
        "results": groups,
    }
    for case in (*cases("copy", sizes), *chosen):
        torch.compiler.reset()  # each size is compiled for itself, and no limit on recompilations is met
        lines = groups.setdefault(case.title, [])
        for line in one_by_one(stopwatch, case, compiled=not options.without_compiled):
            lines.append(line)
            write_json(options.result, document)
        print("\n\n".join([case.title, *case_table(lines, copy_rate(groups))]), end="\n\n", flush=True)
    if stopwatch.on_gpu:
        document["gpu_after"] = gpu_status()
    write_json(options.result, document)
    return 1 if failed_lines(document) else 0


def one_by_one(stopwatch: Stopwatch, case: Case, *, compiled: bool) -> Iterator[Line]:
    """Each path's line as soon as it is measured. `compiled`: also those that compile in their first run."""
    try:
        workload = case.build(stopwatch.device)
    except Exception as error:
        yield failed("tad_ext", error)
        return

    def numbers(work: Implementation) -> Line:
        cold, warm = (stopwatch.fitting_times_ms(work, cold=cold) for cold in (True, False))
        return {"main": case.main, **workload.numbers(stopwatch.peak_bytes(work), cold, warm=warm)}

    for path, work in workload.implementations.items():
        if compiled or not ("compile" in path or path.startswith((LIGER, QUACK))):
            yield attempt(path, partial(numbers, work))


if __name__ == "__main__":
    sys.exit(main())
