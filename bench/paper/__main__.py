"""Repeats the comparisons of the TAD paper (arXiv 2605.09536) in miniature, on the embedded task, from random weights.

    python -m bench.paper                 # one base, one training seed: `make paper`
    python -m bench.paper --full          # three bases, two training seeds each
    python -m bench.paper --varied        # steps of varying length, where the paper's rule finds a delta
    python -m bench.paper --few           # few problems
    python -m bench.paper --quick         # the machinery in seconds: nothing is learnt
    python -m bench.paper report          # the page of results, from what was measured so far

The setting stands in bench/paper/study.py, what is measured in bench/paper/cells.py, the paper's claims in
bench/paper/claims.py. A cell of a base and a training seed is one JSON file in --results. The command goes on where it
was stopped, several processes with the same command share the work, and more bases or seeds are added to what is there.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from .. import ROOT, command_line
from .page import write_page
from .results import Result, read_results
from .study import FEW, FULL_BASES, FULL_SEEDS, QUICK, SHORT_BASES, SHORT_SEEDS, STUDY, VARIED
from .work import work_on

STUDIES = {"paper": STUDY, "paper-varied": VARIED, "paper-few": FEW, "paper-quick": QUICK}
COMMITTED = ROOT / "bench" / "results"  # of all studies but the quick one, in folders of these names
PAGE = ROOT / "docs" / "reproduction.md"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 2 for options or files that are not what they should be."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        return report(arguments[1:]) if arguments[:1] == ["report"] else measure(arguments)
    except ValueError as error:
        print(f"bench.paper: {error}", file=sys.stderr)
        return 2


def measure(arguments: list[str]) -> int:
    """Measures what is lacking, and writes the page beside it."""
    parser = command_line("bench.paper", __doc__)
    parser.add_argument("--full", action="store_true", help="three bases and two training seeds")
    setting = parser.add_mutually_exclusive_group()
    setting.add_argument("--varied", action="store_true", help="steps of varying length: which delta is the best")
    setting.add_argument("--few", action="store_true", help="few problems")
    setting.add_argument("--quick", action="store_true", help="tiny sizes: whether it runs, not what comes out")
    parser.add_argument("--bases", type=int, nargs="+", help="seeds of the base models; default 0, of --full 0 1 2")
    parser.add_argument("--seeds", type=int, nargs="+", help="of the trainings; default 0, of --full 0 1")
    parser.add_argument("--output", type=Path, help="work folder; default a folder of the setting's in build")
    parser.add_argument("--results", type=Path, help="folder of the JSON files; default results in the work folder")
    options = parser.parse_args(arguments)
    name = next((f"paper-{one}" for one in ("varied", "few", "quick") if getattr(options, one)), "paper")
    work = options.output or ROOT / "build" / name
    results = options.results or work / "results"
    bases = options.bases or (FULL_BASES if options.full else SHORT_BASES)
    seeds = options.seeds or (FULL_SEEDS if options.full else SHORT_SEEDS)
    torch.set_num_threads(1)  # a tiny model: two processes are faster than two threads
    work_on(STUDIES[name], work, results, bases, seeds)
    page = work / PAGE.name
    write_page({**committed(), "paper" if options.quick else name: read_results(results)}, page)
    print(f"\nresults are in {results}, the page of them is {page}")
    return 0


def committed() -> dict[str, Sequence[Result]]:
    """The results that came with the sources, by the study's name."""
    return {name: read_results(COMMITTED / name) for name in STUDIES if (COMMITTED / name).is_dir()}


def report(arguments: list[str]) -> int:
    """Writes the page of the results that are there."""
    parser = command_line("bench.paper report", "Writes the page of results.")
    parser.add_argument("--results", type=Path, help="folder of the JSON files; default the committed")
    parser.add_argument("--page", type=Path, default=PAGE, help=f"Markdown file to write; default {PAGE.name} in docs")
    options = parser.parse_args(arguments)
    given = {} if options.results is None else {"paper": read_results(options.results)}
    write_page({**committed(), **given}, options.page)
    print(f"written: {options.page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
