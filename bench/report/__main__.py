"""Turns the benchmark results in bench/results/ into Markdown tables and a picture.

python -m bench.report                        # print the tables, in short
python -m bench.report --tables FILE.md       # write them, and every case and every path
python -m bench.report --plot kernels.png     # draw; the file's suffix decides the format (png, svg, pdf)
"""

import sys
from pathlib import Path

from .. import ROOT, command_line
from ..results import read_json
from .machines import Document, benchmarks_page, summary


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 2 for files that are not what they should be."""
    parser = command_line("bench.report", __doc__)
    results = ROOT / "bench" / "results"
    parser.add_argument("--results", type=Path, default=results, help="folder of JSON files; default bench/results")
    parser.add_argument("--tables", type=Path, metavar="FILE", help="Markdown file to write all tables to")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="picture to draw")
    options = parser.parse_args(arguments)
    try:
        files = {path.name: read_json(path) for path in sorted(options.results.glob("*.json"))}
        documents = dict(sorted(files.items(), key=lambda file: not Document(file[1]).gpu))  # GPUs first, else by name
        if options.tables:
            options.tables.write_text(benchmarks_page(documents), encoding="utf-8")
        if options.plot:
            from .bars import draw_bars  # the tables need no matplotlib

            draw_bars(documents, options.plot)
    except (OSError, ValueError) as error:
        print(f"bench.report: {error}", file=sys.stderr)
        return 2
    if not (options.tables or options.plot):
        print(summary(documents))
    return 0


if __name__ == "__main__":
    sys.exit(main())
