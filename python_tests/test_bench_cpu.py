"""`python -m pytest bench`: it measures every path of its cases and writes what bench/report reads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from h200_steps import ROOT
from report_tables import machine_section
from results import read_results


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "bench", *map(str, arguments)]
    # pytest-benchmark measures nothing where it believes itself to be a worker of pytest-xdist.
    uncompiled = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    uncompiled["TORCHDYNAMO_DISABLE"] = "1"
    return subprocess.run(command, cwd=ROOT, env=uncompiled, capture_output=True, text=True, timeout=300)


def test_a_small_run(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    sizes = ["--bench-rows", "16", "--bench-rows", "8", "--bench-vocabulary", "256"]
    done = run(*sizes, "--bench-json", file, "-k", "copy or 1:0 or temperature or (float32 and (1:7 or 1:1))")
    assert done.returncode == 0, done.stdout + done.stderr
    document = read_results(file)
    assert document["run"]["rows"] == [16, 8]
    titles = " / ".join(document["results"])
    for title in ("a copy of 16", "float32, 8 rows", "16 of 64 rows", "16 rows of 307", "linear", "statistics"):
        assert title in titles
        assert title in done.stdout
    for lines in list(document["results"].values())[1:]:
        assert lines[0]["path"] == "tad_ext"
        for line in lines:
            assert 0 < line["best_ms"] <= line["median_ms"]
            assert 0 < line["cold_best_ms"] <= line["cold_median_ms"]
            assert line["bytes"] > 0
            assert line["peak_bytes"] >= 0
    table = machine_section(document)
    assert "16 rows of 256, near:distant 1:7" in table
    assert "16 rows of 256, near:distant 1:0" not in table  # a variation
    assert ", 8 rows of 256" not in table


def test_it_can_be_run_without_measuring() -> None:
    done = run("--bench-rows", "8", "--bench-vocabulary", "256", "--benchmark-disable", "-k", "copy")
    assert done.returncode == 0, done.stdout + done.stderr
