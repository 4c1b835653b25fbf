"""Turns the benchmark results in bench/results/ into Markdown tables and a picture.

    python -m bench.report                        # print the tables, in short
    python -m bench.report --update README.md     # replace what stands between the two marker comments there
    python -m bench.report --tables FILE.md       # write every case and every path
    python -m bench.report --plot kernels.png     # draw; the file's suffix decides the format (png, svg, pdf)

The markers are `<!-- bench:begin -->` and `<!-- bench:end -->`, each on a line of its own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .. import ROOT
from ..results import read_json
from .machines import benchmarks_page, summary

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 2 for files that are not what they should be."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    results = ROOT / "bench" / "results"
    parser.add_argument("--results", type=Path, default=results, help="folder of JSON files; default bench/results")
    parser.add_argument("--update", type=Path, metavar="FILE", help="Markdown file to write the short tables to")
    parser.add_argument("--tables", type=Path, metavar="FILE", help="Markdown file to write all tables to")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="picture to draw")
    options = parser.parse_args(arguments)
    try:
        documents = {path.name: read_json(path) for path in sorted(options.results.glob("*.json"))}
        text = summary(documents)
        if options.update:
            old = options.update.read_text(encoding="utf-8")
            options.update.write_text(replaced(old, text, options.update), encoding="utf-8")
        if options.tables:
            options.tables.write_text(benchmarks_page(documents), encoding="utf-8")
        if options.plot:
            from .bars import draw_bars  # the tables need no matplotlib

            draw_bars(documents, options.plot)
    except (OSError, ValueError) as error:
        print(f"bench.report: {error}", file=sys.stderr)
        return 2
    if not (options.update or options.tables or options.plot):
        print(text)
    return 0


def replaced(old: str, text: str, path: Path) -> str:
    """`old` with `text` between the markers, which stand alone on their lines, once each and in order."""
    lines = old.splitlines()
    if [line for line in lines if line in (BEGIN, END)] != [BEGIN, END]:
        raise ValueError(f"{path} must have one line {BEGIN!r} and one line {END!r} below it")
    return "\n".join([*lines[: lines.index(BEGIN) + 1], text, *lines[lines.index(END) :]]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
