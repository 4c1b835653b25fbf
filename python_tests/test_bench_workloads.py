"""bench/: what is compared computes the same, is counted right, and is timed in the right order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gpu_forward
import gpu_kernels
import loss_workloads
import pytest
import stopwatch
import torch
import workloads
from cases import GPU, OPERATORS, QUICK, Case, cases, copy_case, cpu_sizes
from side_by_side import SideBySide
from stopwatch import Stopwatch
from torch.utils.flop_counter import FlopCounterMode
from work import Implementation, Workload

OTHER_WORK = "its matrix products alone"
CASES = [pytest.param(case, id=case.title) for operator in OPERATORS for case in cases(operator, QUICK, "cpu")]


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes seconds, and what it gives is PyTorch's business."""
    monkeypatch.setattr(torch, "compile", lambda function: function)


def outcome(implementation: Implementation, title: str) -> list[torch.Tensor]:
    """What is comparable of a run, in float32: of a loss itself and its gradient; a sampled token is not."""
    if implementation.prepare:
        implementation.prepare()
    result = implementation.run()
    if isinstance(result, torch.Tensor):
        return [result.detach().float()]
    if "TAD loss" in title:
        loss, *gradients = result
        gradient = torch.cat([part.float() for part in gradients])  # of near and distant rows, or of all
        return [loss.detach().float(), gradient / gradient.abs().max()]
    named = hasattr(result, "entropy")
    token, confidence, entropy = (result.token, result.confidence, result.entropy) if named else result
    sampled = "temperature 0.7" in title
    return [part.float() for part in ((entropy,) if sampled else (token, confidence, entropy))]


@pytest.mark.parametrize("case", CASES)
def test_baselines_do_the_same_work(case: Case) -> None:
    paths = case.build().implementations
    expected, *others = (outcome(one, case.title) for path, one in paths.items() if path != OTHER_WORK)
    tolerance = 3e-2 if "bfloat16" in case.title else 1e-4
    assert any(part.abs().max() > 0 for part in expected)
    for other in others:
        for part, wanted in zip(other, expected, strict=True):
            torch.testing.assert_close(part, wanted, rtol=tolerance, atol=tolerance)


SAMPLED = [case for case in cases("statistics", QUICK, "cpu") if ", 64 rows" in case.title and "0.7" in case.title]


@pytest.mark.parametrize("case", SAMPLED)
def test_sampled_tokens_are_sampled(case: Case) -> None:
    torch.manual_seed(0)
    for implementation in case.build().implementations.values():
        result = implementation.run()
        confidence = result.confidence if hasattr(result, "confidence") else result[1]
        greedy = case.build.keywords | {"temperature": 0.0}
        best = workloads.statistics(*case.build.args, **greedy).implementations["tad_ext"].run().confidence
        assert (confidence < 0.9 * best).float().mean() > 0.5


def titles(sizes: Any) -> dict[str, list[str]]:
    return {operator: [case.title for case in cases(operator, sizes, "cpu")] for operator in OPERATORS}


def test_every_size_that_was_asked_for_is_there() -> None:
    found = {operator: " / ".join(of) for operator, of in titles(GPU).items()}
    for dtype in ("bfloat16", "float32"):
        for rows in (32, 64, 128, 512, 2048, 8192):
            assert f"{dtype}, {rows} rows of 126,464, near:distant 1:7" in found["loss"]
        for mix in ("1:0", "1:7", "1:1", "0:1"):
            assert f"{dtype}, 512 rows of 126,464, near:distant {mix}" in found["loss"]
        assert f"{dtype}, 512 of 2048 rows of 126,464, near:distant 1:1" in found["loss"]
        assert f"{dtype}, 512 rows of 152,064, near:distant 1:7" in found["loss"]
        for mix in ("1:1", "1:0"):
            assert f"{dtype}, 2048 rows of 4096 x 126,464, near:distant {mix}" in found["linear-loss"]
    for rows in (32, 64, 512):
        for temperature in ("0", "0.7"):
            assert f"{rows} rows of 126,464, temperature {temperature}" in found["statistics"]
    for batch in (1, 32):
        assert f"batch {batch}, 256 positions" in found["unmask"]
    for of in (*titles(GPU).values(), *titles(cpu_sizes()).values(), *titles(QUICK).values()):
        assert len(of) == len(set(of)), "every title stands for one case"


def test_a_cpu_has_the_same_cases_at_smaller_sizes() -> None:
    found = titles(cpu_sizes())
    for dtype in ("bfloat16", "float32"):
        for rows in (32, 64, 128):
            assert f"TAD loss, forward + backward, {dtype}, {rows} rows of 126,464, near:distant 1:7" in found["loss"]
        for mix in ("1:0", "1:1", "0:1"):
            assert f"TAD loss, forward + backward, {dtype}, 64 rows of 126,464, near:distant {mix}" in found["loss"]
        assert f"TAD loss, forward + backward, {dtype}, 64 of 256 rows of 126,464, near:distant 1:1" in found["loss"]
        assert f"TAD loss, forward + backward, {dtype}, 64 rows of 152,064, near:distant 1:7" in found["loss"]
    assert not any("512" in title for of in found.values() for title in of)
    assert any("512 rows" in title for title in titles(cpu_sizes((512,)))["loss"])
    assert copy_case(cpu_sizes(), "cpu").title == "a copy of 64 float32 rows of 126,464"


def test_only_what_a_gpu_has_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Small:
        total_memory = 8 * 2**30

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Small)
    found = " / ".join(case.title for case in cases("loss", GPU, "cuda"))
    assert "bfloat16, 2048 rows" in found
    assert "float32, 512 rows" in found
    assert "8192 rows" not in found


def test_least_traffic_by_hand() -> None:
    half, vocabulary = torch.bfloat16, 100
    compact, dense = loss_workloads.compact_tad_loss, loss_workloads.dense_tad_loss
    assert compact(16, vocabulary, half).bytes == (2 * 2 + 14 * 3) * 200
    assert compact(16, vocabulary, half, near=1, distant=0).bytes == 16 * 2 * 200
    assert compact(16, vocabulary, half, near=0, distant=1).bytes == 16 * 3 * 200
    assert dense(16, 64, vocabulary, half).bytes == (2 * 2 + 14 * 3 + 48) * 200
    linear = loss_workloads.linear_tad_loss(16, 10, vocabulary, half)
    assert linear.bytes == (100 * 10 + (2 * 2 + 14 * 3) * 10) * 2
    assert workloads.statistics(16, vocabulary, torch.float32).bytes == 16 * 400
    assert workloads.truncation(16, vocabulary, torch.float32, top_p=0.9).bytes == 2 * 16 * 400
    forward, backward = (workloads.log_softmax(16, vocabulary, half, part=of).bytes for of in ("forward", "backward"))
    assert (forward, backward) == (2 * 16 * 200, (16 + 16 + 32) * 200)
    assert workloads.copy(1000).bytes == 8000


def test_matrix_products_are_counted_as_pytorch_counts_them() -> None:
    work = loss_workloads.linear_tad_loss(16, 24, 100, torch.float32)
    for path in ("eager", OTHER_WORK):
        with FlopCounterMode(display=False) as counter:
            work.implementations[path].run()
        assert work.flops == counter.get_total_flops()

    model = gpu_forward.random_model(gpu_forward.TINY, "cpu")
    model.set_attn_implementation("eager")  # the counter does not know the CPU's fused attention
    ids = torch.arange(40)[None]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(ids, positions=torch.arange(8))
    assert gpu_forward.flops(gpu_forward.TINY, 40, 8) == counter.get_total_flops()


@pytest.mark.parametrize("operator", OPERATORS)
def test_kernels_are_timed_and_written(operator: str, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    assert gpu_kernels.main([operator, "--quick", "--device", "cpu", "--result", str(file)]) == 0
    document = json.loads(file.read_text())
    results = document["results"]
    assert document["rows"] == [64, 8]
    assert next(iter(results)) == copy_case(QUICK, "cpu").title
    assert len(results) == 3
    for lines in list(results.values())[1:]:
        assert lines[0]["path"] == "tad_ext"
        assert [line["baseline"] for line in lines] == [not line["path"].startswith("tad_ext") for line in lines]
        assert len(lines) >= 3
        for line in lines:
            assert 0 < line["best_ms"] <= line["median_ms"]
            assert 0 < line["warm_best_ms"] <= line["warm_median_ms"]
            assert line["peak_bytes"] > 0 or line["path"] == OTHER_WORK
            assert line["bytes"] > 0


def test_a_broken_baseline_costs_its_own_line_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> torch.Tensor:
        raise RuntimeError("no such kernel\nand a long explanation")

    monkeypatch.setattr(loss_workloads.eager, "tad_loss", broken)
    file = tmp_path / "result.json"
    assert gpu_kernels.main(["loss", "--quick", "--device", "cpu", "--result", str(file)]) == 1
    for lines in list(json.loads(file.read_text())["results"].values())[1:]:
        for line in lines:
            if line["path"].startswith("tad_ext"):
                assert line["median_ms"] > 0
            else:
                assert line["error"] == "RuntimeError: no such kernel"


def test_on_a_cpu_all_paths_are_timed_in_turn() -> None:
    happened: list[str] = []

    def path(name: str, error: Exception | None = None) -> Implementation:
        def run() -> None:
            happened.append(name)
            if error:
                raise error

        return Implementation(run, lambda: happened.append("prepare"), lambda: happened.append("forget"))

    paths = {"eager": path("eager"), "broken": path("broken", RuntimeError("no")), "tad_ext": path("tad_ext")}
    case = Case("loss", "title", 64, lambda: Workload(paths, bytes=1))
    timed = SideBySide(Stopwatch("cpu", evict_bytes=64), case)
    assert timed.warm_up() == 11
    happened.clear()
    timed.before_own()
    timed.own.run()
    two_runs = ["prepare", "{}", "prepare", "{}"]
    assert happened == [
        "forget", *(step.format("eager") for step in two_runs), "forget", *(step.format("tad_ext") for step in two_runs)
    ]  # fmt: skip
    own, eager, broken = sorted(timed.lines([0.001, 0.003, 0.002]), key=lambda line: line["path"] != "tad_ext")
    assert (own["median_ms"], own["best_ms"], own["rounds"], own["rows"]) == (2.0, 1.0, 3, 64)
    assert own["cold_median_ms"] > 0
    assert eager["rounds"] == 1
    assert broken["error"] == "RuntimeError: no"
    own_fails = Workload({"tad_ext": path("tad_ext", RuntimeError("mine"))}, bytes=1)
    failing = SideBySide(Stopwatch("cpu", evict_bytes=64), Case("loss", "title", 64, lambda: own_fails))
    with pytest.raises(RuntimeError, match="mine"):
        failing.warm_up()


def test_the_forward_is_timed_and_written(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    assert gpu_forward.main(["--quick", "--device", "cpu", "--result", str(file)]) == 0
    result = json.loads(file.read_text())
    assert [line["rows"] for line in result["forwards"]] == [40, 8, 0]
    assert all(line["median_ms"] > 0 for line in result["forwards"])


def test_llada_has_its_published_number_of_parameters() -> None:
    model = gpu_forward.random_model(gpu_forward.LLADA_8B, "meta")
    assert model.num_parameters() == 8_015_581_184
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("cold", [True, False])
def test_events_enclose_the_run_alone(cold: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            happened.append("event")

        def elapsed_time(self, end: Event) -> float:
            return 2.0

    watch = Stopwatch("cpu", evict_bytes=64)
    watch._cuda = True
    monkeypatch.setattr(watch, "_evict", lambda: happened.append("evict"))
    monkeypatch.setattr(stopwatch.torch.cuda, "Event", Event)
    monkeypatch.setattr(stopwatch.torch.cuda, "synchronize", lambda: None)
    work = Implementation(lambda: happened.append("run"), lambda: happened.append("prepare"))
    timing = watch.time(work, cold=cold)
    assert (timing.median_ms, timing.best_ms) == (2.0, 2.0)
    one_round = ["prepare", *(["evict"] if cold else []), "event", "run", "event"]
    assert happened[-len(one_round) * timing.rounds :] == one_round * timing.rounds


def test_peak_memory_does_not_count_what_was_there() -> None:
    kept = torch.zeros(1000)
    work = Implementation(lambda: kept + 1 + 1)
    assert 8000 <= Stopwatch("cpu", evict_bytes=64).peak_bytes(work) < 8100  # and the ones, as tensors
