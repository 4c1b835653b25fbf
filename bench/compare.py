"""Compares two source trees of the project in one run: is the one faster than the other?

    git worktree add /tmp/before main                        # each tree needs its compiled module in place:
    (cd /tmp/before && python setup.py build_ext --inplace)
    python -m bench.compare /tmp/before . --processes 10 --result build/compare.jsonl

Fresh processes of either tree take turns (before, after, after, before, ...), so that a machine whose speed drifts is
as slow for one as for the other. All of them time the same code, this tree's, on the `tad_ext` of their tree. Printed
is before / after: above 1 the second tree is faster. What a tree compared with itself gives is the noise.
"""

import json
import os
import subprocess
import sys
from argparse import SUPPRESS, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from . import ROOT, command_line
from .report.tables import digits, markdown_table

SIDES = ("before", "after")
OPERATORS = ("statistics", "select-reveal", "loss", "log-softmax", "linear-loss")
LINES = [f"{operator}-{dtype}" for operator in OPERATORS for dtype in ("float32", "bfloat16")]


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = command_line("bench.compare", __doc__)
    parser.add_argument("trees", type=Path, nargs="*", metavar="TREE", help="before and after")
    parser.add_argument("--line", choices=LINES, action="append", help="default: the first six")
    parser.add_argument("--processes", type=int, default=10, help="of each tree; default 10")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each line in a process; default 1")
    parser.add_argument("--rows", type=int, default=64, help="logits rows; default 64")
    parser.add_argument("--vocabulary", type=int, default=126_464, help="default 126464")
    parser.add_argument("--threads", type=int, default=2, help="default 2")
    parser.add_argument("--result", type=Path, default=ROOT / "build" / "compare.jsonl", help="each line as it comes")
    parser.add_argument("--worker", action="store_true", help=SUPPRESS)
    options = parser.parse_args(arguments)
    options.line = options.line or LINES[:6]
    if options.worker:
        _measure(options)
        return 0
    if len(options.trees) != 2:
        parser.error(f"{len(options.trees)} trees, expected two: before and after")
    for tree in options.trees:
        if not any((tree / "tad_ext").glob("_C*.so")):
            parser.error(f"{tree} has no compiled tad_ext/_C: run `python setup.py build_ext --inplace` there")

    options.result.parent.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = []
    with options.result.open("w", encoding="utf-8") as file:
        for index in range(options.processes):
            for side in SIDES if index % 2 == 0 else SIDES[::-1]:
                print(f"process {index + 1} of {options.processes}, {side}", file=sys.stderr)
                for line in _run(options.trees[SIDES.index(side)], sys.argv[1:] if arguments is None else arguments):
                    records.append({"side": side, "process": index, **line})
                    file.write(json.dumps(records[-1]) + "\n")
                    file.flush()
    print(table(records))
    return 0


def table(records: Sequence[dict[str, Any]]) -> str:
    """Least times, and before / after: of the least, of the medians, and between which ratios of medians each
    process of the one tree and its neighbour of the other lie.
    """
    header = ["", "before, least ms", "after, least ms", "ratio of the least", "ratio of the medians", "in each pair"]
    rows = []
    for name in dict.fromkeys(record["line"] for record in records):
        sides = [[one for one in records if (one["side"], one["line"]) == (side, name)] for side in SIDES]
        least = [min(record["best_ms"] for record in side) for side in sides]
        medians = [[record["median_ms"] for record in side] for side in sides]  # by process
        ratios = [least[0] / least[1], median(medians[0]) / median(medians[1])]
        pairs = [before / after for before, after in zip(*medians)]
        spread = f"{min(pairs):.3f} to {max(pairs):.3f}"
        rows.append([name, *map(digits, least), *(f"{ratio:.3f}" for ratio in ratios), spread])
    return markdown_table(header, rows)


def _run(tree: Path, arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What a fresh process of this tree measures, each line as it comes."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    environment["PYTHONPATH"] = str(tree.resolve())
    command = [sys.executable, "-m", "bench.compare", *arguments, "--worker"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        yield from map(json.loads, process.stdout or ())
    if process.returncode:
        raise SystemExit(f"bench.compare: the process of {tree} ended with exit code {process.returncode}")


def _measure(options: Namespace) -> None:
    """Prints a JSON object for each line. The tree is the one that PYTHONPATH names."""
    # 1. Its own tad_ext, before which `python -m` has put this tree.
    tree = os.environ["PYTHONPATH"]
    sys.path.insert(0, tree)
    import torch

    import tad_ext
    from tad_ext.ops import backend_info

    from .operators.losses import linear_tad_loss, tad_loss
    from .operators.workloads import log_softmax, statistics, unmask
    from .stopwatch import Stopwatch

    if not Path(tad_ext.__file__).is_relative_to(tree) or not backend_info()["compiled"]:
        raise SystemExit(f"measured would be {tad_ext.__file__}, expected the compiled one of {tree}")

    # 2. The lines.
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    stopwatch, rows, vocabulary = Stopwatch("cpu"), options.rows, options.vocabulary
    workloads = {
        "statistics": lambda dtype: statistics(rows, vocabulary, dtype),
        "select-reveal": lambda dtype: unmask(rows // 32, 256, 32, vocabulary, dtype),
        "loss": lambda dtype: tad_loss(rows, vocabulary, dtype, near=1, distant=7),
        "log-softmax": lambda dtype: log_softmax(rows, 2 * rows, vocabulary, dtype, part="forward"),
        "linear-loss": lambda dtype: linear_tad_loss(rows, 64, vocabulary, dtype, near=1, distant=7),
    }
    for name in options.line:
        operator, dtype = name.rsplit("-", 1)
        work = workloads[operator](getattr(torch, dtype)).implementations["tad_ext"]
        times = stopwatch.fitting_times_ms(work, seconds=options.seconds, most=10_000)
        line = {"line": name, "best_ms": min(times), "median_ms": median(times), "rounds": len(times)}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
