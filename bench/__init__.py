"""Benchmarks of tad_ext, run from the repository's folder.

    python -m pytest bench                   every operator beside its baselines, on a CPU, under pytest-benchmark
    python -m bench.operators loss ...       some of the operators beside their baselines, on a GPU
    python -m bench.decode                   whole decodes beside the published loop
    python -m bench.collect                  what a trajectory costs, beside the published loop
    python -m bench.train                    optimizer steps of distillation, beside the published step
    python -m bench.compare BEFORE AFTER     two versions of the project, in turn, on a CPU or a GPU
    python -m bench.h200                     tests and all measurements on an H200, in nine minutes
    python -m bench.quality --model FOLDER   what policies and caches cost in accuracy
    python -m bench.paper                    the paper's comparisons in miniature, on a CPU
    python -m bench.report                   committed results as tables and as a picture

Where this tree has no compiled module, the installed package is measured.
"""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREE_IS_COMPILED = any((ROOT / "tad_ext").glob("_C*.so"))

if not TREE_IS_COMPILED:  # its tad_ext would hide the installed one; the modules of `bench` are still found
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]


def command_line(module: str, doc: str | None, *, device: str | None = None) -> ArgumentParser:
    """The parser of `python -m MODULE`; with a default `device` that of one that measures on a device or another."""
    parser = ArgumentParser(f"python -m {module}", description=doc, formatter_class=RawDescriptionHelpFormatter)
    if device:
        parser.add_argument("--device", default=device, help=f"default {device}")
        parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it runs, not how fast")
    return parser
