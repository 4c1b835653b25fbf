"""Compares what is here, on the embedded task: every preset that a model allows, DMax after its training, and d-OPSD.

    python -m bench.systems                # about an hour of one CPU core; goes on where it was stopped
    python -m bench.systems --quick        # the machinery in seconds: nothing is learnt
    python -m bench.systems report         # the tables in README.md, docs/decoding.md and docs/distillation.md

Models have 0.3 million parameters and know nothing but sums: what comes out says which rule does what, and nothing of
LLaDA. The setting and the steps are bench/systems/work.py.
"""

import sys
from pathlib import Path

import torch

from .. import ROOT, command_line
from ..machine import describe_run
from ..results import read_json, write_json
from .tables import write_tables
from .work import QUICK, STUDY, Systems

COMMITTED = ROOT / "bench" / "results" / "systems" / "systems.json"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 2 for options or files that are not what they should be."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = command_line("bench.systems", __doc__)
    parser.add_argument("report", nargs="?", choices=["report"], help="write the tables of the committed results")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it runs, not what comes out")
    parser.add_argument("--output", type=Path, help="work folder; default a folder of the setting's in build")
    parser.add_argument("--result", type=Path, metavar="FILE", help="default systems.json in the work folder")
    options = parser.parse_args(arguments)
    try:
        if options.report:
            write_tables(read_json(options.result or COMMITTED), ROOT)
            return 0
        torch.set_num_threads(1)  # tiny models
        folder = options.output or ROOT / "build" / ("systems-quick" if options.quick else "systems")
        systems = Systems(folder, QUICK if options.quick else STUDY)
        systems.run()
        result = options.result or folder / "systems.json"
        write_json(result, {"run": describe_run("cpu"), **systems.results()})
    except (OSError, ValueError) as error:
        print(f"bench.systems: {error}", file=sys.stderr)
        return 2
    print(f"written: {result}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
