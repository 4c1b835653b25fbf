"""bench.report: the tables and the picture say what the JSON says; docs show the committed results."""

import json
from typing import Any

import pytest

from bench import ROOT
from bench.h200.counters import METRICS
from bench.report import __main__ as script
from bench.report.bars import draw_bars
from bench.report.machines import benchmarks_page, section, summary


def line(path: str, median_ms: float, **more: Any) -> dict[str, Any]:
    return {"path": path, "main": True, "median_ms": median_ms, "best_ms": median_ms, "peak_bytes": 2**20} | more


COPY, LOSS = "a copy of 4096 rows", "TAD loss, bfloat16, 512 rows"


def operators() -> dict[str, Any]:
    """What two steps have measured: one without what compiles, the later one with it, and its second case cut short."""
    first = {
        COPY: [line("copy", 2.0, bytes=4_000_000_000)],
        LOSS: [line("tad_ext", 0.2, bytes=250_000_000), line("eager", 1.0, bytes=250_000_000)],
        "TAD loss, bfloat16, 64 rows": [line("tad_ext", 0.05, bytes=31_250_000, main=False)],
        "log-softmax, float32": [line("tad_ext", 1.0, bytes=1_000_000_000), line("eager", 2.0, bytes=1_000_000_000)],
        "unlucky": [{"path": "tad_ext", "error": "RuntimeError: a | b"}],
        "reveal alone": [line("tad_ext", 0.01, bytes=1_000)],
        "linear TAD loss": [line("tad_ext", 2.0, warm_median_ms=2.0, bytes=10, flops=1_400_000_000_000)],
    }
    later = {
        COPY: [line("copy", 1.0, bytes=4_000_000_000)],
        LOSS: [
            line("tad_ext", 0.125, warm_median_ms=0.1, bytes=250_000_000),
            line("eager", 1.0, bytes=250_000_000),
            {"path": "torch.compile", "error": "RuntimeError: no"},
        ],
        "log-softmax, float32": [{"path": "tad_ext", "error": "RuntimeError: lost"}],
    }
    peers = {"Liger-Kernel": "0.8.5", "QuACK": None}
    return {
        "operators": {"status": "ok", "seconds": 60.0, "result": {"results": first}},
        "compiled": {"status": "ok", "seconds": 90.0, "result": {"results": later, "peers": peers}},
    }


def counted() -> dict[str, Any]:
    kernel = dict.fromkeys(METRICS, 12.0) | {"dram_percent": None, "cluster_size": 4, "clusters_at_once": 92}
    waits = {"long_scoreboard": 30.7, "wait": 16.6}
    lines = [
        {"path": "CE", "kernel": "tad_loss_kernel<float, 1>", **kernel}
        | {"instructions_per_logit": 24.81, "stalls_percent": waits},
        {"path": "truncation", "error": "ncu has not measured it"},
    ]
    return {"status": "failed", "result": {"rows": 512, "vocabulary": 126_464, "counters": lines}}


def optimizer_steps() -> dict[str, Any]:
    def one(path: str, median_ms: float) -> dict[str, Any]:
        own = {"steps": 3, "states_per_second": 32e3 / median_ms, "flops": 10**14, "weights_bytes": 2**31}
        return line(path, median_ms, **own, peak_bytes=2**30)

    shape = {"d_model": 4096, "n_layers": 32}
    sizes = {"shape": shape, "rank": 128, "states": 32, "micro_batch": 4, "positions": 406}
    return {"status": "ok", "result": sizes | {"training": [one("tad_ext", 500.0), one("loss in PyTorch", 650.0)]}}


def h200() -> dict[str, Any]:
    def counts(passed: int, failed: int) -> dict[str, int]:
        return {"passed": passed, "failed": failed, "errors": failed, "skipped": 3}

    gpu = {"name": "NVIDIA H200", "driver_version": "580"}
    return {
        "machine": {"gpu": gpu, "torch": "2.11.0", "revision": "a" * 40, "revision_is_clean": True},
        "steps": {
            "install": {"status": "ok", "seconds": 3.2},
            "first-tests": {"status": "ok", "seconds": 27.0, "result": counts(121, 0)},
            **operators(),
            "counters": counted() | {"reason": "1 failed"},
            "train": optimizer_steps(),
            "tests": {"status": "timed out", "reason": "after 144 s", "seconds": 144.0, "result": counts(1800, 1)},
        },
    }


def test_an_h200_in_short_and_as_a_page():
    text, page = section(h200()), benchmarks_page({"h200.json": h200()})
    assert "**NVIDIA H200**: driver 580, torch 2.11.0, revision aaaaaaaaaa. A copy moves 4,000 GB/s" in text
    assert "Installed in 3 s. The operators' first GPU tests: 121 passed, 0 failed, 3 skipped in 27 s." in text
    assert "All GPU tests: 1,800 passed, 2 failed, 3 skipped in 144 s." in text
    assert "Beside Liger-Kernel 0.8.5. Without QuACK." in text
    loss = "125.0 us | 100.0 us | 2,000 | 50% | 1.0 MiB | eager 1.0 ms (**8.0x**), torch.compile failed |"
    assert f"| {LOSS} | {loss}" in text
    assert "| TAD loss, bfloat16, 64 rows |" not in text
    assert "| linear TAD loss | 2.00 ms | 2.00 ms | 700 TFLOP/s |" in text
    assert "unlucky failed: RuntimeError: a \\| b" in text
    assert "Not complete: counters (failed: 1 failed), tests (timed out: after 144 s)." in text
    assert "too small to mean anything" in section(h200() | {"quick": True})
    assert "### TAD loss, bfloat16, 64 rows\n\n| | median ms | best ms | GB/s | of copy | MiB |" in page
    assert "| eager | 1 | 1 | | 250 | 6% | 1.00x | 1 |" in page
    assert "torch.compile failed: RuntimeError: no" in page
    assert "**NVIDIA H200**: not measured" not in summary({"any.json": h200()})
    assert summary({}) == "**NVIDIA H200**: not measured."
    nothing = section({"machine": {}, "steps": {}})
    assert nothing.endswith("Not installed anew. GPU tests: not run.")


def test_a_case_of_two_steps_is_one_table_of_the_later_lines():
    """And what failed there, or was not reached, is the earlier one's."""
    text, page = section(h200()), benchmarks_page({"h200.json": h200()})
    assert text.count(f"| {LOSS} |") == 1
    assert page.count(f"### {LOSS}\n") == page.count(f"### {COPY}\n") == 1
    assert "200.0 us" not in text
    assert "| log-softmax, float32 | 1.00 ms | | 1,000 | 25% |" in text
    assert "RuntimeError: lost" not in page


def test_optimizer_steps_and_counters_have_their_tables():
    text, page = section(h200()), benchmarks_page({"h200.json": h200()})
    for of in (text, page.split("### Optimizer steps")[1]):
        assert "random weights (d_model 4,096, n_layers 32), LoRA of rank 128: 32 states of 406 positions a step" in of
        assert "| tad_ext | 500 | 500 | 64 | 200 | 1.30x | 2,048 | 1,024 |" in of
        assert "| loss in PyTorch | 650 | 650 | 49.23 | 153.8 | 1.00x | 2,048 | 1,024 |" in of
    assert "tad_loss_kernel" not in text
    counters = page.split("### What the hardware counts")[1]
    assert "512 rows of 126,464 unless a line says otherwise" in counters
    row = "12 | 24.81 | 12 | 0.01172 | 12, 12 | 4, 92 | long scoreboard 31%, wait 17% |"
    assert f"| CE: tad_loss_kernel | 12 | {'12% | ' * 7}{row}" in counters, "without DRAM, of which nothing is known"
    assert "truncation failed: ncu has not measured it" in counters


def test_a_gpu_comes_first(tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps({"run": {"processor": "EPYC", "threads": 2, "instruction_set": "avx2"}
        | {"torch": "2", "python": "3", "gpu": None}}))  # fmt: skip
    (tmp_path / "b.json").write_text(json.dumps(h200()))
    assert script.main(["--results", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert 0 <= text.index("**NVIDIA H200**") < text.index("**EPYC, 2 threads, avx2**")


def test_docs_show_the_committed_results(tmp_path):
    files = {name: tmp_path / name for name in ("benchmarks.md", "kernels.svg")}
    options = zip(("--tables", "--plot"), map(str, files.values()), strict=True)
    assert script.main([word for pair in options for word in pair]) == 0
    written = files["benchmarks.md"].read_text(encoding="utf-8")
    assert written == (ROOT / "docs" / "benchmarks.md").read_text("utf-8"), "run make report"
    drawn, committed = (path.read_text("utf-8") for path in (files["kernels.svg"], ROOT / "docs" / "kernels.svg"))
    for label in (
        "TAD loss, bfloat16, 64 rows",
        "TAD loss, bfloat16, 512 rows",
        "token statistics, float32, 64 rows, temperature 0",
        "unmask step, bfloat16, batch 32",
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
    assert drawn["tad_ext, float32"][0][:2] == [0, 0.25]
    assert drawn["PyTorch"][:2] == ((0.0625, 0.125), (0, 1))
    for words in ("NVIDIA H200: bytes per second", ">TAD loss, bfloat16, 512 rows</text>", ">125.0 us</text>"):
        assert words in text
    assert "linear" not in text
    assert "reveal alone" not in text, "next to no bytes"
    with pytest.raises(ValueError, match="expected at least one to draw"):
        draw_bars({}, tmp_path / "none.svg")
