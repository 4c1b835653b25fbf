"""bench.report: the tables and the picture say what the JSON says; README and docs show the committed results."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench import ROOT
from bench.report import __main__ as script
from bench.report.bars import draw_bars
from bench.report.machines import benchmarks_page, section, summary


def line(path: str, median_ms: float, **more: Any) -> dict[str, Any]:
    return {"path": path, "main": True, "median_ms": median_ms, "best_ms": median_ms, "peak_bytes": 2**20, **more}


def cpu() -> dict[str, Any]:
    """The loss at two sizes, of which the first is the main one."""
    loss = {"cold_median_ms": 8.0, "bytes": 93_000_000}
    small = loss | {"main": False}
    linear = {"bytes": 10, "flops": 2_000_000_000}
    results = {
        "a copy": [line("copy", 1.25, bytes=62_500_000)],
        "TAD loss, float32, 64 rows": [
            line("tad_ext", 4.0, **loss), line("tad_ext, recomputed", 5.0, **loss), line("eager", 40.0, **loss),
        ],
        "TAD loss, float32, 32 rows": [line("tad_ext", 2.0, **small), line("eager", 20.0, **small)],
        "linear TAD loss, float32": [
            line("tad_ext", 10.0, **linear), line("its matrix products alone", 9.0, **linear),
            {"path": "Liger-Kernel", "error": "RuntimeError: a | b"},
        ],
    }  # fmt: skip
    return {
        "machine_info": {
            "processor": "A Processor", "gpu": None, "threads": 2, "instruction_set": "avx2", "python": "3.11.7",
            "torch": "2.13.0",
        },
        "benchmarks": [{"extra_info": {"title": title, "lines": lines}} for title, lines in results.items()],
    }  # fmt: skip


def h200() -> dict[str, Any]:
    loss = {
        "device copy": [line("copy", 1.0, bytes=4_000_000_000)],
        "TAD loss, bfloat16, 512 rows": [
            line("tad_ext", 0.125, warm_median_ms=0.1, bytes=250_000_000),
            line("eager", 1.0, bytes=250_000_000),
            {"path": "torch.compile", "error": "RuntimeError: no"},
        ],
        "unlucky": [{"path": "tad_ext", "error": "RuntimeError: a | b"}],
    }
    linear = {"linear TAD loss": [line("tad_ext", 2.0, warm_median_ms=2.0, bytes=10, flops=1_400_000_000_000)]}
    forwards = [
        line("every position's logits", 10.0, rows=406, flops=6_000_000_000_000),
        line("no logits", 9.0, rows=0, flops=5_000_000_000_000),
    ]
    forward = {"forwards": forwards, "positions": 406, "dtype": "bfloat16", "parameters": 8, "shape": {"layers": 32}}
    counts = {"passed": 800, "failed": 1, "errors": 1, "skipped": 3}
    gpu = {"name": "NVIDIA H200", "driver_version": "580"}
    return {
        "machine": {"gpu": gpu, "torch": "2.11.0", "revision": "a" * 40, "revision_is_clean": True},
        "steps": {
            "build": {"status": "ok", "seconds": 71.2},
            "tests": {"status": "failed", "reason": "1 failed", "seconds": 100.0, "result": counts},
            "loss": {"status": "ok", "seconds": 60.0, "result": {"results": loss}},
            "linear-loss": {"status": "ok", "seconds": 20.0, "result": {"results": linear}},
            "statistics": {"status": "timed out", "reason": "stopped after 70 s"},
            "forward": {"status": "ok", "seconds": 30.0, "result": forward},
        },
    }


def test_a_cpu_in_short():
    text = section(cpu())
    assert "**A Processor, 2 threads, avx2**: torch 2.13.0, Python 3.11.7; medians of one run." in text
    assert "A copy moves 50 GB/s (read and written)." in text
    assert "| | tad_ext | cold | GB/s | of the copy | memory | baselines (their time / ours) |" in text, (
        "no empty column"
    )
    loss = "8.00 ms | 23.2 | 46% | 1.0 MiB | eager 40.0 ms (**10.0x**) |"
    assert f"| TAD loss, float32, 64 rows | 4.00 ms | {loss}" in text
    assert "| TAD loss, float32, 64 rows, recomputed | 5.00 ms | 8.00 ms | 18.6 | 37% |" in text
    assert "32 rows" not in text
    assert "| 200 GFLOP/s | | 1.0 MiB | its matrix products alone 9.0 ms (**0.90x**), Liger-Kernel failed |" in text


def test_an_h200_in_short():
    text = section(h200())
    assert "**NVIDIA H200**: driver 580, torch 2.11.0, revision aaaaaaaaaa. A copy moves 4,000 GB/s" in text
    assert "Built in 71 s. GPU tests: 800 passed, 2 failed, 3 skipped in 100 s." in text
    loss = "125.0 us | 100.0 us | 2,000 | 50% | 1.0 MiB | eager 1.0 ms (**8.0x**), torch.compile failed |"
    assert f"| TAD loss, bfloat16, 512 rows | {loss}" in text
    assert "| linear TAD loss | 2.00 ms | 2.00 ms | 700 TFLOP/s |" in text
    assert "| unlucky | not measured: RuntimeError: a \\| b |" in text
    assert "| 10.00 ms | 100.0 | 600 | 10.0% | 1.0 MiB |" in text
    assert "Not complete: tests (failed: 1 failed), statistics (timed out: stopped after 70 s)." in text
    assert "too small to mean anything" in section(h200() | {"quick": True})
    assert "Build: not measured. GPU tests: not measured." in section({"machine": {}, "steps": {}})


def test_the_page_has_every_case_and_every_path():
    text = benchmarks_page({"a.json": cpu(), "b.json": h200()})
    assert "## a\n\n**A Processor" in text
    assert "## b\n\n**NVIDIA H200**" in text
    for title in ("TAD loss, float32, 64 rows", "TAD loss, float32, 32 rows", "a copy", "device copy", "unlucky"):
        assert f"### {title}\n" in text
    assert "| | median ms | best ms | cold ms | GB/s | of copy | eager / this | MiB |" in text
    assert "| tad_ext | 4 | 4 | 8 | 23.25 | 46% | 10.00x | 1 |" in text
    assert "| eager | 40 | 40 | 8 | 2.325 | 5% | 1.00x | 1 |" in text
    assert "Liger-Kernel failed: RuntimeError: a \\| b" in text
    for table in f"{text}\n\n{section(h200())}".split("\n\n"):
        rows = [row for row in table.splitlines() if row.startswith("|")]
        assert len({row.replace("\\|", "").count("|") for row in rows}) <= 1, "as many cells as the header has"


def test_what_is_absent_is_not_measured():
    assert summary({}) == "**NVIDIA H200**: not measured."
    assert summary({"cpu.json": cpu()}).endswith("\n\n**NVIDIA H200**: not measured.")
    assert "**NVIDIA H200**: not measured" not in summary({"any.json": h200()})


def test_readme_and_docs_show_the_committed_results(tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files = {name: tmp_path / name for name in ("README.md", "benchmarks.md", "kernels.svg")}
    files["README.md"].write_text(readme, encoding="utf-8")
    options = zip(("--update", "--tables", "--plot"), map(str, files.values()), strict=True)
    assert script.main([word for pair in options for word in pair]) == 0
    assert files["README.md"].read_text(encoding="utf-8") == readme, "run make report"
    assert files["benchmarks.md"].read_text(encoding="utf-8") == (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    drawn, committed = (path.read_text("utf-8") for path in (files["kernels.svg"], ROOT / "docs" / "kernels.svg"))
    for label in (
        "TAD loss, bfloat16, 64 rows",
        "token statistics, float32, 64 rows, temperature 0",
        "1.31 ms",
        "a copy",
    ):
        assert f">{label}</text>" in drawn
        assert f">{label}</text>" in committed


@pytest.mark.parametrize(
    "text",
    [
        "nothing\n",
        "<!-- bench:begin -->\n",
        "<!-- bench:begin -->\n<!-- bench:begin -->\n<!-- bench:end -->\n",
        "<!-- bench:end -->\n<!-- bench:begin -->\n",
    ],
)
def test_wrong_markers_are_refused_and_the_file_is_left(text, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    assert script.main(["--results", str(tmp_path), "--update", str(readme)]) == 2
    assert f"{readme} must have one line '<!-- bench:begin -->'" in capsys.readouterr().err
    assert readme.read_text() == text


def test_bars_are_shares_of_the_copy(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn: dict[str, tuple[Any, ...]] = {}
    draw = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda self, *data, **style: (drawn.update({style["label"]: data}), draw(self, *data, **style))[1]
    )
    draw_bars({"cpu.json": cpu(), "h200.json": h200()}, tmp_path / "kernels.svg")
    text = (tmp_path / "kernels.svg").read_text()
    assert drawn["tad_ext, bfloat16"][0][:2] == [0, 0.5]
    assert drawn["tad_ext, float32"][0][1::3] == [pytest.approx(0.465), pytest.approx(0.372)]
    assert drawn["PyTorch"][:2] == ((0.0625,), (0,))
    for words in (
        "NVIDIA H200: bytes",
        "A Processor, 2 threads, avx2: bytes",
        "TAD loss, float32, 64 rows, recomputed",
    ):
        assert words in text
    assert "linear" not in text
    draw_bars({"cpu.json": cpu(), "h200.json": h200()}, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text() == text
    with pytest.raises(ValueError, match="expected at least one to draw"):
        draw_bars({}, tmp_path / "none.svg")


def test_a_file_that_is_no_json_is_named(tmp_path, capsys):
    (tmp_path / "h200.json").write_text("{")
    assert script.main(["--results", str(tmp_path)]) == 2
    assert f"{tmp_path / 'h200.json'} is not JSON" in capsys.readouterr().err
    (tmp_path / "h200.json").write_text(json.dumps(h200()))
    assert script.main(["--results", str(tmp_path)]) == 0
    assert "**NVIDIA H200**" in capsys.readouterr().out
