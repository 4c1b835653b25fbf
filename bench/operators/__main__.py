"""Times operators beside their baselines on a GPU: `python -m bench.operators loss statistics --result FILE`.

The file is written anew after every line, so that a run that is stopped has measured what it has measured.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import torch

from tad_ext.ops import backend_info

from .. import command_line
from ..machine import gpu_status
from ..report.tables import case_table, copy_rate
from ..results import Groups, failed, write_json
from ..stopwatch import Stopwatch
from .cases import GPU, OPERATORS, QUICK, cases
from .measure import one_by_one

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
    document: dict[str, Any] = {"backend": backend_info(), "results": groups}
    for case in (*cases("copy", sizes), *chosen):
        torch.compiler.reset()  # each size is compiled for itself, and no limit on recompilations is met
        lines = groups.setdefault(case.title, [])
        try:
            for line in one_by_one(stopwatch, case, compiled=not options.without_compiled):
                lines.append(line)
                write_json(options.result, document)
        except Exception as error:  # its tensors could not be made
            lines.append(failed("tad_ext", error))
        print("\n\n".join([case.title, *case_table(lines, copy_rate(groups))]), end="\n\n", flush=True)
    if stopwatch.on_gpu:
        document["gpu_after"] = gpu_status()
    write_json(options.result, document)
    return 1 if any("error" in line for lines in groups.values() for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
