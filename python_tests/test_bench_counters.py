"""bench.h200.counters: every case can be launched, and a kernel's line says what ncu's table says of that kernel."""

import json
import sys

from bench import ROOT
from bench.h200 import counters as bench
from bench.h200.counters import KERNELS, METRICS, Case, cases, counters, launch, measure
from bench.stopwatch import Implementation, Workload

STALL = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"
COUNTED = {
    "gpu__time_duration.sum": "96,416",
    "lts__throughput.avg.pct_of_peak_sustained_elapsed": "64.94",
    "launch__registers_per_thread": "80",
    "launch__cluster_max_active": "no data",
    "smsp__inst_executed.sum": "5,000",
    STALL.format("selected"): "1.00",
    STALL.format("long_scoreboard"): "2.00",
    STALL.format("wait"): "1.50",
    STALL.format("barrier"): "0.50",
    STALL.format("membar"): "0",
}


def table(*kernels: str) -> list[str]:
    """ncu's raw page: names, units, a row for each kernel."""
    rows = [["ID", "Kernel Name", *COUNTED], ["", "", "ns", "%", *[""] * (len(COUNTED) - 2)]]
    rows += [[str(index), f"void {name}(Args, double *)", *COUNTED.values()] for index, name in enumerate(kernels)]
    return [",".join(f'"{cell}"' for cell in row) for row in rows]


def test_every_case_runs_and_its_kernels_exist():
    chosen = cases(rows=8, vocabulary=300)
    lines = list(launch(chosen, "cpu"))
    assert [line.get("error") for line in lines] == [None] * len(lines)
    assert [line["path"] for line in lines] == [case.title for case in chosen]
    assert {kernel for line in lines for kernel in line["kernels"]} == set(KERNELS)
    assert {line["logits"] for line in lines} == {8 * 300, 32 * 300}
    sources = "".join(path.read_text() for path in (ROOT / "csrc" / "cuda").glob("*.cu"))
    assert [name for name in KERNELS if f" {name}(" not in sources] == []


def test_a_case_that_fails_costs_itself_only():
    def broken() -> Workload:
        raise RuntimeError("no\nsuch luck")

    nothing = Workload({"tad_ext": Implementation(lambda: None)}, bytes=0)
    chosen = [
        Case("a", ("one_kernel",), broken, 8),
        Case("b", ("one_kernel", "another_kernel"), lambda: nothing, 16_000),
    ]
    failed, one, another = counters(launch(chosen, "cpu"), table("one_kernel<float, 1>", "unasked_kernel"))
    assert failed == {"path": "a", "error": "RuntimeError: no"}
    assert (one["path"], one["kernel"]) == ("b", "one_kernel<float, 1>")
    assert another == {"path": "b", "error": "ncu has not measured its another_kernel"}


def test_a_line_says_what_a_reader_needs():
    launched = [{"path": "a", "kernels": ["one_kernel"], "logits": 16_000}]
    (line,) = counters(launched, table("unasked_kernel", "one_kernel"))
    assert line.keys() == {"path", "kernel", *METRICS, "instructions_per_logit", "stalls_percent"}
    assert (line["duration_us"], line["l2_percent"], line["registers"]) == (96.416, 64.94, 80)
    assert line["clusters_at_once"] is line["dram_percent"] is None
    assert line["instructions_per_logit"] == 10
    assert line["stalls_percent"] == {"long_scoreboard": 40.0, "wait": 30.0, "barrier": 10.0}


def test_the_command_runs_ncu_and_keeps_what_it_says(tmp_path, monkeypatch):
    """A program that passes for ncu writes its table, and in the launched process's place what was launched."""
    launched = [{"path": "a", "kernels": ["one_kernel"], "logits": 1000}, {"path": "b", "error": "RuntimeError: no"}]
    program, file = tmp_path / "ncu", tmp_path / "counters.json"
    text = "\n".join(["==PROF== Connected", *table("one_kernel")])
    program.write_text(f"""#!{sys.executable}
import sys
open(sys.argv[sys.argv.index("--log-file") + 1], "w").write({text!r})
print("a library's words", {'''@'''.join(map(json.dumps, launched))!r}.replace("@", chr(10)), sep=chr(10))
""")
    program.chmod(0o755)
    monkeypatch.setattr(bench.shutil, "which", lambda name: str(tmp_path / name))
    assert measure(file) == 1
    document = json.loads(file.read_text())
    assert [line["path"] for line in document["counters"]] == ["a", "b"]
    assert document["counters"][0]["instructions_per_logit"] == 160
    assert document["output"] == ["==PROF== Connected"]
    assert sorted(tmp_path.iterdir()) == [file, program]


def test_without_ncu_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(bench.shutil, "which", lambda name: None)
    file = tmp_path / "counters.json"
    assert measure(file) == 0
    assert json.loads(file.read_text()) == {"counters": [], "missing": "ncu is not on the PATH"}
