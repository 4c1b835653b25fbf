"""bench.compare: either version's own package is measured, in turn, and what was measured is kept as it comes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tad_ext
from bench import ROOT
from bench.compare import table

pytestmark = pytest.mark.slow


def test_a_tree_and_a_wheel_are_measured_in_turn(tmp_path):
    """The second one waits, as long as its environment says, in every call of its own `token_statistics`."""
    package = Path(tad_ext.__file__).parent
    if not list(package.glob("_C*.so")):
        pytest.skip("not compiled")
    for name in ("before", "after"):
        shutil.copytree(package, tmp_path / name / "tad_ext", ignore=shutil.ignore_patterns("__pycache__"))
    operators = tmp_path / "after" / "tad_ext" / "ops" / "__init__.py"
    slow = """
import os as _os, time as _time
_fast = token_statistics
def token_statistics(*arguments, **options):
    _time.sleep(float(_os.environ["SECONDS"]))
    return _fast(*arguments, **options)
"""
    operators.write_text(operators.read_text() + slow)
    wheel = shutil.make_archive(str(tmp_path / "after"), "zip", tmp_path / "after")
    wheel = str(Path(wheel).rename(tmp_path / "after.whl"))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    command = [sys.executable, "-m", "bench.compare", str(tmp_path / "before"), wheel, "--after", "SECONDS=0.02"]
    command += ["--processes=2", "--seconds=0.05", "--threads=1", "--rows=32", "--vocabulary=64"]
    command += ["--line=statistics-float32", "--line=loss-float32", f"--result={tmp_path / 'new' / 'lines.jsonl'}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (tmp_path / "new" / "lines.jsonl").read_text().splitlines()]
    assert [record["side"] for record in records[::2]] == ["before", "after", "after", "before"]
    assert all((record["best_ms"] > 20) == (record["side"] == "after") for record in records[::2])
    assert "| statistics-float32 |" in done.stdout
    assert "| loss-float32 |" in done.stdout


def test_ratios_are_before_to_after():
    times = {"before": [(2.0, 3.0), (4.0, 9.0)], "after": [(1.0, 2.0), (1.0, 3.0)]}
    records = [
        {"side": side, "process": process, "line": "loss", "best_ms": best, "median_ms": median}
        for side, of in times.items()
        for process, (best, median) in enumerate(of)
    ]
    assert table(records).splitlines()[-1] == "| loss | 2 | 1 | 2.000 | 2.400 | 1.500 to 3.000 |"


def test_a_tree_that_is_not_compiled_is_refused(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    command = [sys.executable, "-m", "bench.compare", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert f"{tmp_path} has no compiled tad_ext/_C" in done.stderr
