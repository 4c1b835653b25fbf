"""Compares two versions of the project in one run: is the one faster than the other?

    git worktree add /tmp/before main                        # a source tree needs its compiled module in place:
    (cd /tmp/before && python setup.py build_ext --inplace)
    python -m bench.compare /tmp/before . --processes 10 --result build/compare.jsonl
    python -m bench.compare before.whl after.whl --device cuda                                   # wheels do as well
    python -m bench.compare new.whl new.whl --device cuda --before TAD_CUDA_LOADER=threads          # or environments

Fresh processes of either version take turns (before, after, after, before, ...), so that a machine whose speed drifts
is as slow for one as for the other. All of them time the same code, this tree's, on their own `tad_ext`; on a GPU with
emptied caches. Printed is before / after: above 1 the second version is faster. What a version compared with itself
gives is the noise. On an H200 all lines of two wheels take about three minutes.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from argparse import SUPPRESS, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from . import ROOT, command_line
from .report.tables import digits, markdown_table

SIDES = ("before", "after")
OPERATORS = (
    "statistics", "select-reveal", "loss", "log-softmax", "linear-loss", "cross-entropy", "divergence",
    "statistics-with-ids", "statistics-sampled",
)  # fmt: skip
LINES = [f"{operator}-{dtype}" for operator in OPERATORS for dtype in ("float32", "bfloat16")]


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = command_line("bench.compare", __doc__)
    parser.add_argument("versions", type=Path, nargs="*", metavar="VERSION", help="source tree or wheel: before, after")
    for side in SIDES:
        parser.add_argument(f"--{side}", metavar="NAME=VALUE", action="append", default=[], help="its environment")
    parser.add_argument("--device", default="cpu", help="default cpu")
    parser.add_argument("--line", choices=LINES, action="append", help="default: the first six; on a GPU all")
    parser.add_argument("--processes", type=int, help="of each version; default 10, on a GPU 3")
    parser.add_argument("--seconds", type=float, help="of each line in a process; default 1, on a GPU 0.3")
    parser.add_argument("--rows", type=int, help="logits rows; default 64, on a GPU 512")
    parser.add_argument("--vocabulary", type=int, default=126_464, help="default 126464")
    parser.add_argument("--threads", type=int, default=2, help="default 2")
    parser.add_argument("--result", type=Path, default=ROOT / "build" / "compare.jsonl", help="each line as it comes")
    parser.add_argument("--worker", action="store_true", help=SUPPRESS)
    options = parser.parse_args(arguments)
    on_gpu = options.device.startswith("cuda")
    options.line = options.line or (LINES if on_gpu else LINES[:6])
    options.processes = options.processes or (3 if on_gpu else 10)
    options.seconds = options.seconds or (0.3 if on_gpu else 1.0)
    options.rows = options.rows or (512 if on_gpu else 64)
    if options.worker:
        _measure(options)
        return 0
    if len(options.versions) != 2:
        parser.error(f"{len(options.versions)} versions, expected two: before and after")
    environments = [dict(word.partition("=")[::2] for word in vars(options)[side]) for side in SIDES]
    options.result.parent.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = []
    with options.result.open("w", encoding="utf-8") as file, tempfile.TemporaryDirectory() as folder:
        trees = [_unpacked(version, Path(folder, side)) for side, version in zip(SIDES, options.versions)]
        for version, tree in zip(options.versions, trees):
            if not any((tree / "tad_ext").glob("_C*.so")):
                parser.error(f"{version} has no compiled tad_ext/_C: run `python setup.py build_ext --inplace` there")
        for index in range(options.processes):
            for side in SIDES if index % 2 == 0 else SIDES[::-1]:
                print(f"process {index + 1} of {options.processes}, {side}", file=sys.stderr)
                which = SIDES.index(side)
                words = sys.argv[1:] if arguments is None else arguments
                for line in _run(trees[which], words, environments[which]):
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


def _unpacked(version: Path, folder: Path) -> Path:
    """The folder that holds a version's `tad_ext`."""
    if version.suffix != ".whl":
        return version.resolve()
    shutil.unpack_archive(version, folder, "zip")
    return folder


def _run(tree: Path, arguments: Sequence[str], changes: dict[str, str]) -> Iterator[dict[str, Any]]:
    """What a fresh process of this version measures, each line as it comes."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    environment |= changes | {"PYTHONPATH": str(tree)}
    command = [sys.executable, "-m", "bench.compare", *arguments, "--worker"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        yield from map(json.loads, process.stdout or ())
    if process.returncode:
        raise SystemExit(f"bench.compare: the process of {tree} ended with exit code {process.returncode}")


def _measure(options: Namespace) -> None:
    """Prints a JSON object for each line. The version is the one that PYTHONPATH names."""
    # 1. Its own tad_ext, before which `python -m` has put this tree.
    tree = os.environ["PYTHONPATH"]
    sys.path.insert(0, tree)
    import torch

    import tad_ext
    from tad_ext.ops import backend_info

    from .operators.cases import LLADA_IDS_WITHOUT_TOKEN, cpu_sizes
    from .operators.losses import linear_tad_loss, tad_loss
    from .operators.workloads import log_softmax, statistics, unmask
    from .stopwatch import Stopwatch

    if not Path(tad_ext.__file__).is_relative_to(tree) or not backend_info()["compiled"]:
        raise SystemExit(f"measured would be {tad_ext.__file__}, expected the compiled one of {tree}")

    # 2. The lines.
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    torch.set_default_device(options.device)
    on_gpu, rows, vocabulary = options.device.startswith("cuda"), options.rows, options.vocabulary
    stopwatch = Stopwatch(options.device, evict_bytes=4 * 2**30 if on_gpu else 4)
    ids = cpu_sizes((rows,), vocabulary).like_llada(LLADA_IDS_WITHOUT_TOKEN)
    workloads = {
        "statistics": lambda dtype: statistics(rows, vocabulary, dtype),
        "select-reveal": lambda dtype: unmask(rows // 32, 256, 32, vocabulary, dtype),
        "loss": lambda dtype: tad_loss(rows, vocabulary, dtype, near=1, distant=7),
        "log-softmax": lambda dtype: log_softmax(rows, 2 * rows, vocabulary, dtype, part="forward"),
        "linear-loss": lambda dtype: linear_tad_loss(rows, 64, vocabulary, dtype, near=1, distant=7),
        "cross-entropy": lambda dtype: tad_loss(rows, vocabulary, dtype, near=1, distant=0),
        "divergence": lambda dtype: tad_loss(rows, vocabulary, dtype, near=0, distant=1),
        "statistics-with-ids": lambda dtype: statistics(rows, vocabulary, dtype, suppressed=ids),
        "statistics-sampled": lambda dtype: statistics(rows, vocabulary, dtype, temperature=0.7),
    }
    for name in options.line:
        operator, dtype = name.rsplit("-", 1)
        work = workloads[operator](getattr(torch, dtype)).implementations["tad_ext"]
        times = stopwatch.fitting_times_ms(work, seconds=options.seconds, most=10_000, cold=on_gpu)
        line = {"line": name, "best_ms": min(times), "median_ms": median(times), "rounds": len(times)}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
