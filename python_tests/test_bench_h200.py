"""bench.h200: it runs through anywhere and says what it skipped; a step that goes wrong costs itself only."""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench import ROOT
from bench.h200 import __main__ as script
from bench.h200 import steps as h200_steps
from bench.h200.steps import Run, Step, read_junit

pytestmark = pytest.mark.slow
STEPS = ["machine", "install", "first-tests", "operators", "counters", "decode", "train", "tests", "compiled"]


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path, 60, {"machine": {}, "steps": {}})


def python(code: str, **settings: Any) -> Step:
    return Step("step", [sys.executable, "-c", code], **({"limit": 30} | settings))


def written(run: Run) -> dict[str, Any]:
    return json.loads((run.output / "h200.json").read_text())["steps"]["step"]


def without_gpu(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, "-m", "bench.h200", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_without_a_gpu_nothing_is_measured(tmp_path):
    folder = tmp_path / "new" / "folder"
    done = without_gpu("--output", str(folder))
    assert done.returncode == 1, done.stdout + done.stderr
    document = json.loads((folder / "h200.json").read_text())
    assert document["machine"]["gpu"] is None
    assert document["machine"]["torch"]
    assert document["steps"].pop("machine")["status"] == "ok"
    assert list(document["steps"]) == STEPS[1:]
    for name, step in document["steps"].items():
        assert step == {"status": "skipped", "reason": "no CUDA GPU"}
        assert f"{name}: skipped: no CUDA GPU" in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["h200.json", "h200.log"]


def test_a_rehearsal_runs_the_steps_that_a_cpu_can(tmp_path):
    """All but `compiled`, which takes long, and differs from `operators` by one option."""
    chosen = [name for name in STEPS[1:] if name != "compiled"]
    done = without_gpu("--rehearse", "--output", str(tmp_path), *(f"--only={name}" for name in chosen))
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "h200.json").read_text())
    results = {name: step["result"] for name, step in document["steps"].items() if "result" in step}
    assert list(results) == ["operators", "decode", "train"]
    assert all(document["steps"][name]["status"] == "ok" for name in results)
    for name in ("install", "first-tests", "counters", "tests"):
        assert document["steps"][name] == {"status": "skipped", "reason": "a rehearsal"}
    assert document["steps"]["compiled"]["reason"] == "not asked for"
    lines = [line for lines in results["operators"]["results"].values() for line in lines]
    assert {"tad_ext", "eager"} < {line["path"] for line in lines}
    assert not [line for line in lines if "compile" in line["path"]]
    assert "sizes too small to mean anything" in done.stdout


def test_launch_plans_are_printed_and_kept_once(tmp_path, monkeypatch, capsys):
    def step(name: str, result: dict[str, Any]) -> Step:
        file = tmp_path / f"{name}.json"
        code = f"open({str(file)!r}, 'w').write({json.dumps(result)!r})"
        return Step(name, [sys.executable, "-c", code], 30, result=file)

    chosen = [step("machine", {"gpu": {"name": "a GPU"}})]
    chosen += [step(name, {"launch_plans": ["a row: two blocks"]}) for name in ("operators", "train")]
    monkeypatch.setattr(script, "steps", lambda *_: chosen)
    monkeypatch.setattr(script.signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["bench.h200", "--output", str(tmp_path)])
    assert script.main() == 0
    assert capsys.readouterr().out.count("a row: two blocks") == 1
    assert json.loads((tmp_path / "h200.json").read_text())["launch_plans"] == ["a row: two blocks"]


def test_all_steps_fit_into_nine_minutes_and_their_commands_exist(tmp_path):
    options = argparse.Namespace(wheel=None, rehearse=False)
    steps = script.steps(tmp_path, options)
    assert [step.name for step in steps] == STEPS
    assert script.LIMIT + 10 < 540
    assert sum(step.least for step in steps) < script.LIMIT - 200  # that much is left to install and test first
    assert all(step.least <= step.limit for step in steps)
    for step in steps:
        words = [word for word in step.command if word.startswith("bench.")]
        for word in words:
            place = ROOT / word.replace(".", "/")
            assert place.with_suffix(".py").exists() or (place / "__main__.py").exists()
        assert words or step.name in ("install", "first-tests", "tests")
        for path in (word for word in step.command if word.startswith("python_tests")):
            assert (ROOT / path).exists()
    built, wheel = steps[1], script.installation(tmp_path / "tad_ext.whl")
    assert (built.env["TAD_CUDA"], built.command[-1]) == ("1", ".")
    assert wheel.command[-1] == str(tmp_path / "tad_ext.whl")


def test_a_step_that_fails_is_named_and_its_output_shown(run, tmp_path, capsys):
    run.execute(python("print('the cause'); raise SystemExit(3)"))
    assert (written(run)["status"], written(run)["reason"]) == ("failed", "exit code 3")
    assert "the cause" in capsys.readouterr().out
    assert not run.all_well
    run.execute(Step("step", ["/no/such/program"], limit=30))
    assert "/no/such/program" in written(run)["reason"]
    (tmp_path / "step.json").write_text('{"x": "of an earlier run"}')
    run.execute(python("pass", result=tmp_path / "step.json"))
    assert written(run)["status"] == "failed"
    assert "no result" in written(run)["reason"]


def is_gone(process: Path) -> bool:
    """Whether a process has ended; a zombie has, and one that was just killed needs a moment."""
    for _ in range(100):
        try:
            if "\nState:\tZ" in (process / "status").read_text():
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to see processes")
def test_a_slow_step_is_stopped_with_what_it_started_and_keeps_what_it_wrote(run, tmp_path, monkeypatch):
    monkeypatch.setattr(h200_steps, "_LEAST_USEFUL", 0.1)
    result, child = tmp_path / "step.json", tmp_path / "child"
    code = f"""
import subprocess, sys, time
open({str(result)!r}, 'w').write('{{"half": 1}}')
stubborn = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
open({str(child)!r}, 'w').write(str(subprocess.Popen([sys.executable, '-c', stubborn]).pid))
time.sleep(60)
"""
    began = time.monotonic()
    run.execute(python(code, result=result, limit=1.5))
    assert time.monotonic() - began < 20
    step = written(run)
    assert step["status"] == "timed out"
    assert step["result"] == {"half": 1}
    assert not run.all_well
    assert is_gone(Path("/proc") / child.read_text())


JUNIT = """<testsuites><testsuite tests="4" failures="1" errors="1" skipped="1">
  <testcase classname="python_tests.ops.test_loss" name="test_a[cuda]"/>
  <testcase classname="python_tests.ops.test_loss" name="test_b[cuda]"><failure message="off"/></testcase>
  <testcase classname="python_tests.ops.test_loss" name="test_c[cuda]"><error message="x"/></testcase>
  <testcase classname="python_tests.ops.test_loss" name="test_d[cuda]"><skipped message="no second GPU"/></testcase>
  <testcase classname="python_tests.ops.test_loss" name="test_e[cuda-was stopped]"/>
</testsuite></testsuites>"""


def test_the_test_report_is_counted_and_judged(tmp_path):
    report = tmp_path / "tests.xml"
    report.write_text(JUNIT)
    counts = read_junit(report)
    assert [counts[key] for key in ("passed", "failed", "errors", "skipped")] == [1, 1, 1, 1]
    assert counts["failed_tests"] == [f"python_tests.ops.test_loss::test_{x}[cuda]" for x in "bc"]
    assert counts["skip_reasons"] == {"no second GPU": 1}

    judge = h200_steps.failed_tests
    assert "1 failed, 1 errors; first: python_tests.ops.test_loss::test_b[cuda]" in judge(counts)
    assert judge(counts | {"failed": 0, "errors": 0, "failed_tests": []}) is None
    nothing = counts | {"passed": 0, "failed": 0, "errors": 0, "failed_tests": []}
    assert "no test ran" in judge(nothing), "a build without CUDA kernels skips every test: that is no success"

    report.write_text("<testsuites>")
    with pytest.raises(ValueError, match=r"tests\.xml is not a JUnit report"):
        read_junit(report)
