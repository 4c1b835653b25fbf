"""bench/report: the tables say what the JSON says, README is updated between its markers, bad files are named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from h200_steps import ROOT
from report_details import details
from report_plot import plot_roofline
from report_tables import machine_section, report
from results import main_groups_of

SCRIPT = ROOT / "bench" / "report"


def line(path: str, median_ms: float, **more: Any) -> dict[str, Any]:
    return {
        "path": path,
        "baseline": not path.startswith("tad_ext") and path != "copy",
        "median_ms": median_ms,
        "best_ms": median_ms,
    } | more


def cpu() -> dict[str, Any]:
    return {
        "run": {
            "processor": "A Processor", "threads": 2, "instruction_set": "avx2", "python": "3.11.7", "torch": "2.13.0",
            "rows": 64, "vocabulary": 126464,
        },
        "results": {
            "TAD loss, float32": [line("eager", 59.4), line("tad_ext", 3.88, bytes=93e6, elements=8e6)],
            "token statistics, float32": [line("that compiled", 6.699), line("tad_ext", 1.62)],
            "a copy": [line("copy", 1.25, bytes=62_500_000)],
        },
    }  # fmt: skip


def several_sizes() -> dict[str, Any]:
    """A CPU document with the loss at two sizes, of which the first is the main one."""
    document = cpu()
    document["run"]["rows"] = [64, 32]
    more = {"cold_median_ms": 8.0, "peak_bytes": 2**20, "bytes": 93e6, "elements": 8e6}
    document["results"] = {
        "a copy": [line("copy", 1.25, bytes=62_500_000, rows=None)],
        "TAD loss, 64 rows": [
            line("tad_ext", 4.0, rows=64, **more), line("eager", 40.0, rows=64, **more),
            line("tad_ext, recomputed", 5.0, rows=64, **more),
        ],
        "TAD loss, 32 rows": [line("tad_ext", 2.0, rows=32, **more), line("eager", 20.0, rows=32, **more)],
        "linear TAD loss": [
            line("tad_ext", 10.0, rows=64, bytes=10, flops=2_000_000_000, peak_bytes=2**20),
            line("its matrix products alone", 9.0, rows=64, bytes=10, flops=2_000_000_000, peak_bytes=2**20),
            {"path": "Liger-Kernel", "baseline": True, "rows": 64, "error": "RuntimeError: a | b"},
        ],
    }  # fmt: skip
    return document


def h200() -> dict[str, Any]:
    loss = {
        "device copy": [line("copy", 1.0, bytes=4_000_000_000)],
        "TAD loss, bfloat16, 512 rows": [
            line("tad_ext", 0.125, warm_median_ms=0.1, bytes=250_000_000, elements=64_749_568, peak_bytes=2**27),
            line("eager", 1.0, bytes=250_000_000, elements=64_749_568),
            {"path": "torch.compile", "baseline": True, "error": "RuntimeError: no"},
        ],
        "linear TAD loss": [line("tad_ext", 2.0, warm_median_ms=2.0, bytes=10, flops=1_400_000_000_000, peak_bytes=1)],
        "unlucky": [{"path": "tad_ext", "baseline": False, "error": "RuntimeError: a | b"}],
    }
    forwards = [
        line("every position's logits", 10.0, rows=406, flops=6_000_000_000_000, peak_bytes=2**20),
        line("no logits", 9.0, rows=0, flops=5_000_000_000_000, peak_bytes=2**20),
    ]
    return {
        "machine": {"gpu": {"name": "NVIDIA H200", "driver_version": "580"}, "torch": "2.11.0", "revision": "a" * 40,
                    "revision_is_clean": True},
        "steps": {
            "build": {"status": "ok", "seconds": 71.2},
            "tests": {"status": "failed", "reason": "1 failed", "seconds": 100.0,
                      "result": {"passed": 800, "failed": 1, "errors": 1, "skipped": 3}},
            "loss": {"status": "ok", "seconds": 60.0, "result": {"results": loss}},
            "statistics": {"status": "timed out", "reason": "stopped after 70 s"},
            "forward": {"status": "ok", "seconds": 30.0,
                        "result": {"forwards": forwards, "positions": 406, "dtype": "bfloat16", "parameters": 8}},
        },
    }  # fmt: skip


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    # Scripts find what lies beside them; conftest.py may have asked for the contrary.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "cpu.json").write_text(json.dumps(cpu()))
    return folder


def test_cpu_table() -> None:
    text = machine_section(cpu())
    assert "**A Processor, 2 threads, avx2**: 64 rows of 126,464; torch 2.13.0" in text
    assert "A copy moves 50 GB/s" in text
    header = "| | tad_ext | GB/s | of the copy | baselines (their time / ours) |\n| --- | ---: | ---: | ---: | --- |\n"
    assert header in text, "no column that nobody has anything for"
    assert "| TAD loss, float32 | 3.88 ms | 24.0 | 48% | eager 59.4 ms (**15.3x**) |" in text
    assert "| token statistics, float32 | 1.62 ms | | | that compiled 6.7 ms (**4.1x**) |" in text
    assert "| a copy" not in text


def test_of_several_sizes_the_short_table_has_the_first() -> None:
    text = machine_section(several_sizes())
    assert "avx2**: torch 2.13.0" in text, "sizes are in the titles"
    assert "| TAD loss, 64 rows | 4.00 ms | 8.00 ms | 23.2 | 46% | 1.0 MiB | eager 40.0 ms (**10.0x**) |" in text
    assert (
        "| TAD loss, 64 rows, recomputed | 5.00 ms | 8.00 ms | 18.6 | 37% | 1.0 MiB | eager 40.0 ms (**8.0x**) |"
        in text
    )
    assert "32 rows" not in text
    linear = "its matrix products alone 9.0 ms (**0.90x**), Liger-Kernel failed |"
    assert f"| linear TAD loss | 10.00 ms | | 200 GFLOP/s | | 1.0 MiB | {linear}" in text


def test_the_page_has_every_case_and_every_path() -> None:
    page = details({"a.json": several_sizes(), "b.json": h200()})
    assert "## a\n\n**A Processor" in page
    assert "## b\n\n**NVIDIA H200**" in page
    for title in ("TAD loss, 64 rows", "TAD loss, 32 rows", "linear TAD loss", "a copy", "device copy", "unlucky"):
        assert f"### {title}\n" in page
    assert "| | median ms | best ms | cold ms | GB/s | of copy | eager / this | MiB |" in page
    assert "| tad_ext | 4 | 4 | 8 | 23.25 | 46% | 10.00x | 1 |" in page
    assert "| eager | 40 | 40 | 8 | 2.325 | 5% | 1.00x | 1 |" in page
    assert "Liger-Kernel failed: RuntimeError: a \\| b" in page


def test_h200_tables() -> None:
    text = machine_section(h200())
    assert "**NVIDIA H200**: driver 580, torch 2.11.0, revision aaaaaaaaaa. A copy moves 4,000 GB/s" in text
    assert "Built in 71 s. GPU tests: 800 passed, 2 failed, 3 skipped in 100 s." in text
    assert "| | tad_ext | warm | GB/s | of the copy | memory | baselines (their time / ours) |" in text
    loss = "125.0 us | 100.0 us | 2,000 | 50% | 128.0 MiB | eager 1.0 ms (**8.0x**), torch.compile failed |"
    assert f"| TAD loss, bfloat16, 512 rows | {loss}" in text
    assert "| linear TAD loss | 2.00 ms | 2.00 ms | 700 TFLOP/s |" in text
    assert "| unlucky | not measured: RuntimeError: a \\| b |" in text
    assert "| 10.00 ms | 100.0 | 600 | 10.0% | 1.0 MiB |" in text
    assert "| 9.00 ms | 111.1 | 556 | 0.0% | 1.0 MiB |" in text
    assert "Not complete: tests (failed: 1 failed), statistics (timed out: stopped after 70 s)." in text


def test_every_table_row_has_the_columns_of_its_header() -> None:
    for table in f"{machine_section(h200())}\n\n{details({'a.json': several_sizes(), 'b.json': h200()})}".split("\n\n"):
        rows = [row for row in table.splitlines() if row.startswith("|")]
        assert len({row.replace("\\|", "").count("|") for row in rows}) <= 1


def test_what_is_absent_is_not_measured() -> None:
    assert report({}) == "**NVIDIA H200**: not measured."
    assert report({"cpu.json": cpu()}).endswith("\n\n**NVIDIA H200**: not measured.")
    assert "**NVIDIA H200**: not measured" not in report({"any.json": h200()})
    assert "Build: not measured. GPU tests: not measured." in machine_section({"machine": {}, "steps": {}})
    assert "too small to mean anything" in machine_section(h200() | {"quick": True})


def test_the_committed_results_give_the_tables() -> None:
    done = call()
    assert done.returncode == 0, done.stderr
    assert "**NVIDIA H200**" in done.stdout
    for file in (ROOT / "bench" / "results").glob("cpu*.json"):
        for groups in main_groups_of(json.loads(file.read_text())):
            for title in groups:
                assert title.startswith("a copy") or f"| {title} | " in done.stdout


def test_update_replaces_what_is_between_the_markers(results: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nafter\n")
    for _ in range(2):
        done = call("--results", results, "--update", readme)
        assert done.returncode == 0, done.stderr
        text = readme.read_text()
        assert text.startswith("before\n<!-- bench:begin -->\n**A Processor")
        assert text.endswith("not measured.\n<!-- bench:end -->\nafter\n")
        assert "old" not in text


def test_readme_and_page_show_the_committed_results(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    readme, page = tmp_path / "README.md", tmp_path / "benchmarks.md"
    readme.write_text(text, encoding="utf-8")
    done = call("--update", readme, "--tables", page)
    assert done.returncode == 0, done.stderr
    assert readme.read_text(encoding="utf-8") == text, "run make report"
    assert page.read_text(encoding="utf-8") == (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing\n", "has 0 lines '<!-- bench:begin -->', expected one"),
        ("<!-- bench:begin -->\n", "has 0 lines '<!-- bench:end -->', expected one"),
        ("<!-- bench:begin -->\n<!-- bench:begin -->\n<!-- bench:end -->\n", "has 2 lines"),
        ("<!-- bench:end -->\n<!-- bench:begin -->\n", "'<!-- bench:end -->' before '<!-- bench:begin -->'"),
    ],
)
def test_update_refuses_wrong_markers_and_leaves_the_file(
    results: Path, tmp_path: Path, text: str, message: str
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    done = call("--results", results, "--update", readme)
    assert done.returncode == 2
    assert f"{readme} {message}" in done.stderr or message in done.stderr
    assert readme.read_text() == text


def broken(document: dict[str, Any], *keys: Any, to: Any) -> dict[str, Any]:
    """`document` with the value at `keys` replaced."""
    inner = document
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    return document


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "the document is [], expected a dict"),
        ("{}", 'neither "steps"'),
        (cpu() | {"results": None}, "results is None, expected a dict"),
        (broken(cpu(), "results", "a copy", to={}), "results['a copy'] is {}, expected a list"),
        (broken(cpu(), "results", "a copy", 0, "median_ms", to="fast"), "results['a copy'][0].median_ms is 'fast'"),
        (broken(cpu(), "results", "a copy", 0, "median_ms", to=0), "expected a number > 0"),
        (broken(cpu(), "results", "a copy", 0, "best_ms", to=float("nan")), "best_ms is nan, expected a number > 0"),
        (broken(cpu(), "results", "a copy", 0, "best_ms", to=float("inf")), "best_ms is inf, expected a number > 0"),
        (broken(cpu(), "results", "a copy", 0, "path", to=1), "results['a copy'][0].path is 1, expected a str"),
        (broken(cpu(), "results", "a copy", 0, to={"path": "copy"}), "results['a copy'][0] has no median_ms"),
        (broken(cpu(), "run", "rows", to=[64, {}]), "run.rows is {}, expected a number >= 0"),
        (broken(cpu(), "results", "a copy", 0, "rows", to=[]), "results['a copy'][0].rows is [], expected a number"),
        (broken(h200(), "steps", "loss", "status", to="fine"), "steps['loss'].status is 'fine', expected one of ok"),
        (broken(h200(), "steps", "tests", "result", "failed", to="1"), "steps['tests'].result.failed is '1'"),
        (broken(h200(), "machine", to=None), "machine is None, expected a dict"),
        (broken(h200(), "machine", "gpu", to="H200"), "machine.gpu is 'H200', expected a dict"),
        (
            broken(h200(), "steps", "loss", "result", "results", "device copy", 0, "bytes", to=-1),
            "steps['loss'].result.results['device copy'][0].bytes is -1",
        ),
    ],
)
def test_a_malformed_file_is_refused_by_name(results: Path, content: Any, message: str) -> None:
    (results / "h200.json").write_text(content if isinstance(content, str) else json.dumps(content))
    done = call("--results", results)
    assert done.returncode == 2
    assert str(results / "h200.json") in done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = call("--results", tmp_path / "none")
    assert done.returncode == 2
    assert "none, which is no folder" in done.stderr


def test_plot(results: Path, tmp_path: Path) -> None:
    (results / "h200.json").write_text(json.dumps(h200()))
    done = call("--results", results, "--plot", tmp_path / "roofline.svg")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "roofline.svg").read_text()
    for words in ("NVIDIA H200", "A Processor, 2 threads", "its copy: 4,000 GB/s", "its copy: 50 GB/s", "TAD loss"):
        assert words in text
    assert "linear TAD loss" not in text
    assert call("--results", results, "--plot", tmp_path / "again.svg").returncode == 0
    assert (tmp_path / "again.svg").read_text() == text


def test_plot_refuses_to_draw_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least one to draw"):
        plot_roofline({}, tmp_path / "roofline.png")
    assert not (tmp_path / "roofline.png").exists()


def test_the_roof_is_where_the_copy_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that moves its least traffic at the copy's rate lies on the roof."""
    from matplotlib.axes import Axes

    drawn: list[tuple[Any, ...]] = []
    monkeypatch.setattr(Axes, "plot", lambda self, *arguments, **_: drawn.append(arguments))
    monkeypatch.setattr(Axes, "legend", lambda *_, **__: None)
    document = cpu()
    document["results"]["TAD loss, float32"] = [line("tad_ext", 2.0, bytes=100_000_000, elements=10_000_000)]
    plot_roofline({"cpu.json": document}, tmp_path / "roofline.png")
    (intensity, rate, *_), (ends, roof, *_) = (one for one in drawn if one[0])
    assert intensity == 0.1
    assert rate == 10_000_000 / 2e-3
    assert roof[0] / ends[0] == pytest.approx(rate / intensity)
