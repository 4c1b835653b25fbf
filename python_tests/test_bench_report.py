"""bench.report: the tables and the picture say what the JSON says; docs show the committed results."""

from __future__ import annotations

from typing import Any

import pytest

from bench import ROOT
from bench.report import __main__ as script
from bench.report.bars import draw_bars
from bench.report.machines import benchmarks_page, section, summary


def line(path: str, median_ms: float, **more: Any) -> dict[str, Any]:
    return {"path": path, "main": True, "median_ms": median_ms, "best_ms": median_ms, "peak_bytes": 2**20} | more


def h200() -> dict[str, Any]:
    loss = {
        "device copy": [line("copy", 1.0, bytes=4_000_000_000)],
        "TAD loss, bfloat16, 512 rows": [
            line("tad_ext", 0.125, warm_median_ms=0.1, bytes=250_000_000),
            line("eager", 1.0, bytes=250_000_000),
            {"path": "torch.compile", "error": "RuntimeError: no"},
        ],
        "TAD loss, bfloat16, 64 rows": [line("tad_ext", 0.05, bytes=31_250_000, main=False)],
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


def test_an_h200_in_short_and_as_a_page():
    text, page = section(h200()), benchmarks_page({"h200.json": h200()})
    assert "**NVIDIA H200**: driver 580, torch 2.11.0, revision aaaaaaaaaa. A copy moves 4,000 GB/s" in text
    assert "Built in 71 s. GPU tests: 800 passed, 2 failed, 3 skipped in 100 s." in text
    loss = "125.0 us | 100.0 us | 2,000 | 50% | 1.0 MiB | eager 1.0 ms (**8.0x**), torch.compile failed |"
    assert f"| TAD loss, bfloat16, 512 rows | {loss}" in text
    assert "| TAD loss, bfloat16, 64 rows |" not in text
    assert "| linear TAD loss | 2.00 ms | 2.00 ms | 700 TFLOP/s |" in text
    assert "| unlucky | not measured: RuntimeError: a \\| b |" in text
    assert "| 10.00 ms | 100.0 | 600 | 10.0% | 1.0 MiB |" in text
    assert "Not complete: tests (failed: 1 failed), statistics (timed out: stopped after 70 s)." in text
    assert "too small to mean anything" in section(h200() | {"quick": True})
    assert "### TAD loss, bfloat16, 64 rows\n\n| | median ms | best ms | GB/s | of copy | MiB |" in page
    assert "| eager | 1 | 1 | | 250 | 6% | 1.00x | 1 |" in page
    assert "torch.compile failed: RuntimeError: no" in page
    assert "**NVIDIA H200**: not measured" not in summary({"any.json": h200()})
    assert summary({}) == "**NVIDIA H200**: not measured."


def test_docs_show_the_committed_results(tmp_path):
    files = {name: tmp_path / name for name in ("benchmarks.md", "kernels.svg")}
    options = zip(("--tables", "--plot"), map(str, files.values()), strict=True)
    assert script.main([word for pair in options for word in pair]) == 0
    written = files["benchmarks.md"].read_text(encoding="utf-8")
    assert written == (ROOT / "docs" / "benchmarks.md").read_text("utf-8"), "run make report"
    drawn, committed = (path.read_text("utf-8") for path in (files["kernels.svg"], ROOT / "docs" / "kernels.svg"))
    for label in (
        "TAD loss, bfloat16, 64 rows",
        "token statistics, float32, 64 rows, temperature 0",
        "1.31 ms",
        "a copy",
    ):
        assert f">{label}</text>" in drawn
        assert f">{label}</text>" in committed


def test_bars_are_shares_of_the_copy(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn: dict[str, tuple[Any, ...]] = {}
    draw = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda self, *data, **style: (drawn.update({style["label"]: data}), draw(self, *data, **style))[1]
    )
    draw_bars({"h200.json": h200()}, tmp_path / "kernels.svg")
    text = (tmp_path / "kernels.svg").read_text()
    assert drawn["tad_ext, bfloat16"][0][:2] == [0, 0.5]
    assert drawn["PyTorch"][:2] == ((0.0625,), (0,))
    for words in ("NVIDIA H200: bytes per second", ">TAD loss, bfloat16, 512 rows</text>", ">125.0 us</text>"):
        assert words in text
    assert "linear" not in text
    with pytest.raises(ValueError, match="expected at least one to draw"):
        draw_bars({}, tmp_path / "none.svg")
