"""bench.operators: what is compared computes the same, is counted right, and a path that breaks costs its own line."""

import importlib.util
import json
import os
import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench import ROOT, stopwatch
from bench.operators import __main__ as on_a_gpu
from bench.operators import eager, losses, peers, workloads
from bench.operators.bench_operators import side_by_side
from bench.operators.cases import OPERATORS, QUICK, Case, cases
from bench.operators.loaders import by_other_loaders
from bench.report.machines import section
from bench.results import is_own
from bench.stopwatch import Implementation, Stopwatch, Workload

pytestmark = pytest.mark.slow

CASES = [pytest.param(case, id=case.title) for operator in OPERATORS for case in cases(operator, QUICK)]


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch):
    """Compiling takes seconds, and what it gives is PyTorch's business."""
    monkeypatch.setattr(torch, "compile", lambda function: function)


def outcome(implementation: Implementation, title: str) -> list[Tensor]:
    """What is comparable of a run, in float32: of a loss itself and its gradient; a sampled token is not."""
    implementation.prepare()
    result = implementation.run()
    if isinstance(result, Tensor):
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
def test_baselines_do_the_same_work(case):
    paths = case.build().implementations
    expected, *others = (outcome(one, case.title) for path, one in paths.items() if path != losses.PRODUCTS)
    tolerance = 3e-2 if "bfloat16" in case.title else 1e-4
    assert any(part.abs().max() > 0 for part in expected)
    for other in others:
        for part, wanted in zip(other, expected, strict=True):
            torch.testing.assert_close(part, wanted, rtol=tolerance, atol=tolerance)


def test_least_traffic_by_hand():
    half, vocabulary = torch.bfloat16, 100
    assert losses.tad_loss(16, vocabulary, half, near=1, distant=7).bytes == (2 * 2 + 14 * 3) * 200
    assert losses.tad_loss(16, vocabulary, half, near=1, distant=0).bytes == 16 * 2 * 200
    assert losses.tad_loss(16, vocabulary, half, near=0, distant=1).bytes == 16 * 3 * 200
    assert losses.tad_loss(16, vocabulary, half, near=1, distant=7, positions=64).bytes == (2 * 2 + 14 * 3 + 48) * 200
    linear = losses.linear_tad_loss(16, 10, vocabulary, half, near=1, distant=7)
    assert linear.bytes == (100 * 10 + (2 * 2 + 14 * 3) * 10) * 2
    assert workloads.statistics(16, vocabulary, torch.float32).bytes == 16 * 400
    assert workloads.truncation(16, vocabulary, torch.float32, top_p=0.9).bytes == 2 * 16 * 400
    forward, backward = (
        workloads.log_softmax(16, 32, vocabulary, half, part=of).bytes for of in ("forward", "backward")
    )
    assert (forward, backward) == (2 * 16 * 200, (16 + 16 + 32) * 200)
    assert workloads.copy(10, 100, torch.float32).bytes == 8000


def test_matrix_products_are_counted_as_pytorch_counts_them():
    work = losses.linear_tad_loss(16, 24, 100, torch.float32, near=1, distant=7)
    for path in ("eager", losses.PRODUCTS):
        with FlopCounterMode(display=False) as counter:
            work.implementations[path].run()
        assert work.flops == counter.get_total_flops()


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """measure(words): exit code, groups, and the document as often as it was written."""

    def measure(*words: str) -> tuple[int, dict[str, list[dict[str, Any]]], list[str]]:
        written: list[str] = []
        monkeypatch.setattr(on_a_gpu, "write_json", lambda path, document: written.append(json.dumps(document)))
        code = on_a_gpu.main([*words, "--quick", "--device", "cpu", "--result", str(tmp_path / "result.json")])
        return code, json.loads(written[-1])["results"], written

    return measure


@pytest.mark.parametrize("operator", ["loss", "log-softmax", "unmask"])
def test_a_gpu_s_lines_are_written_one_by_one(operator, measure, monkeypatch, capsys):
    """And a baseline that breaks costs its own line only."""

    def broken(*_: Any) -> Tensor:
        raise RuntimeError("no such kernel\nand a long explanation")

    monkeypatch.setattr(eager, "tad_loss", broken)
    code, groups, written = measure(operator)
    assert next(iter(groups)).startswith("a copy of 1024")
    assert len(groups) == 2
    assert len(written) > sum(map(len, groups.values())), "the last time is for the GPU's state"
    failed = [line for lines in groups.values() for line in lines if "error" in line]
    assert code == bool(failed) == (operator == "loss")
    assert {line["error"] for line in failed} <= {"RuntimeError: no such kernel"}
    printed = capsys.readouterr().out
    for title, lines in list(groups.items())[1:]:
        assert f"{title}\n\n| | median ms | best ms | warm ms |" in printed
        assert is_own(lines[0])
        for line in lines:
            assert ("error" in line) != (0 < line.get("best_ms", 0) <= line.get("median_ms", 0))
            assert not (is_own(line) and line in failed)


def test_several_operators_and_what_is_left_out(measure, monkeypatch):
    """Without operators all of them; nothing that compiles; only cases that match."""
    code, groups, _ = measure("unmask", "log-softmax", "--without-compiled")
    assert code == 0
    titles = list(groups)[1:]
    assert [title.split(",")[0] for title in titles] == ["unmask step"] * 2 + ["masked log-softmax"] * 2
    assert {line["path"] for title in titles for line in groups[title]} == {"tad_ext", "eager"}

    monkeypatch.setattr(on_a_gpu, "cases", lambda operator, _: [case(operator, main=main) for main in (True, False)])
    assert list(measure("--without-compiled")[1]) == [f"{name}, {main}" for name in OPERATORS for main in (True, False)]
    assert list(measure("--without-compiled", "--match", "True$")[1]) == ["copy, True", "copy, False"] + [
        f"{name}, True" for name in list(OPERATORS)[1:]
    ]


def case(operator: str, *, main: bool) -> Case:
    work = Workload({"tad_ext": Implementation(lambda: None)}, bytes=8)
    return Case(f"{operator}, {main}", lambda: work, main)


class OverwritingCrossEntropy(torch.autograd.Function):
    """Writes the gradient where the logits were, as Liger-Kernel's does."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(logits, labels)
        one_hot = F.one_hot(labels, logits.shape[-1])
        logits.data.copy_((logits.softmax(-1) - one_hot) / len(labels))
        ctx.save_for_backward(logits.detach())
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0], None


@pytest.fixture
def peers_installed(monkeypatch):
    """Both packages, by modules with their signatures and PyTorch's arithmetic, and a CPU that passes for a GPU."""

    def module(name: str, **content: Any) -> None:
        made = ModuleType(name)
        made.__dict__.update(content)
        made.__spec__ = importlib.util.spec_from_loader(name, loader=None)
        monkeypatch.setitem(sys.modules, name, made)

    def divergence(student: Tensor, weight: Tensor, teacher: Tensor, teacher_weight: Tensor, labels: None) -> Tensor:
        log_q, log_p = (student @ weight.T).log_softmax(-1), (teacher @ teacher_weight.T).log_softmax(-1)
        return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)

    monkeypatch.setattr(peers, "_usable", lambda peer, tensor: True)
    monkeypatch.setattr(peers, "_version", lambda package: "1.0")
    module("liger_kernel")
    module(
        "liger_kernel.transformers",
        LigerCrossEntropyLoss=lambda reduction: OverwritingCrossEntropy.apply,
        LigerKLDIVLoss=torch.nn.KLDivLoss,
        LigerFusedLinearCrossEntropyLoss=lambda reduction: lambda weight, x, to: F.cross_entropy(x @ weight.T, to),
        LigerFusedLinearJSD=lambda jsd_beta: {0.0: divergence}[jsd_beta],  # 0: KL(teacher || student)
    )
    scaled = SimpleNamespace(apply=lambda x, weight, to: F.cross_entropy(x @ weight.T, to, reduction="none"))
    module("liger_kernel.ops", LigerFusedLinearScaledCrossEntropyFunction=scaled)
    module("quack")
    module("quack.cross_entropy", cross_entropy=F.cross_entropy)
    module(
        "quack.linear_cross_entropy",
        chunked_linear_cross_entropy=lambda x, weight, to, reduction, tuned: F.cross_entropy(x @ weight.T, to),
    )
    module("quack.softmax", softmax=lambda x: x.softmax(-1))


def peer_names(work) -> set[str]:
    return {name for name in work.implementations if name.startswith(("Liger-Kernel", "QuACK"))}


def test_all_loaders_are_measured_in_one_run(monkeypatch):
    """On a GPU, whatever the environment says before, which it says again afterwards."""
    seen = []
    work = Implementation(lambda: seen.append(os.environ.get("TAD_CUDA_LOADER")))
    assert by_other_loaders(torch.zeros(1), work) == {}
    others = by_other_loaders(SimpleNamespace(is_cuda=True), work).values()
    for before in (None, "bulk"):
        if before:
            monkeypatch.setenv("TAD_CUDA_LOADER", before)
        for other in others:
            other.run()
        work.run()
        assert seen[-3:] == ["bulk", "threads", before]


@pytest.mark.usefixtures("peers_installed")
def test_peers_are_compared_where_they_do_the_same_work():
    for near, distant, names in ((1, 0, {"Liger-Kernel", "QuACK"}), (0, 1, {"Liger-Kernel"}), (1, 7, set())):
        for work in (
            losses.tad_loss(8, 64, torch.float32, near=near, distant=distant),
            losses.linear_tad_loss(8, 16, 64, torch.bfloat16, near=near, distant=distant),
        ):
            linear = work.flops is not None
            assert peer_names(work) == names | (
                {"Liger-Kernel, scaled cross-entropy"} if linear and near and names else set()
            )
            for name in peer_names(work):
                for _ in range(2):  # the first run leaves nothing changed
                    (expected, wanted), (loss, gradient) = (
                        outcome(work.implementations[path], "TAD loss") for path in ("tad_ext", name)
                    )
                    tolerance = 2e-2 if linear else 1e-5
                    torch.testing.assert_close(loss, expected, rtol=tolerance, atol=tolerance)
                    torch.testing.assert_close(gradient, wanted, rtol=tolerance, atol=tolerance)
    softmax = workloads.log_softmax(8, 16, 64, torch.float32, part="forward").implementations["QuACK, softmax"].run()
    torch.testing.assert_close(softmax.sum(-1), torch.ones(8))


def test_on_a_cpu_all_paths_are_timed_in_turn():
    happened: list[str] = []

    def path(name: str, error: Exception | None = None) -> Implementation:
        def run() -> None:
            happened.append(name)
            if error:
                raise error

        return Implementation(run, lambda: happened.append("prepare"))

    paths = {"tad_ext": path("tad_ext"), "eager": path("eager"), "broken": path("broken", RuntimeError("no"))}
    work = Workload(paths, bytes=8)
    own, eager_line, broken = side_by_side(Stopwatch("cpu", evict_bytes=64), Case("title", lambda: work), work)
    warm_up = [step for name in ("tad_ext", "eager", "broken") for step in ("prepare", name)]
    one_round = [step for name in ("tad_ext", "eager") for step in ["prepare", name] * 2]
    assert happened[:6] == warm_up
    assert happened[10:26] == one_round * 2
    assert (own["path"], own["rounds"], own["main"], own["bytes"]) == ("tad_ext", 11, True, 8)
    assert 0 < own["best_ms"] <= own["median_ms"]
    assert eager_line["cold_median_ms"] > 0
    assert broken == {"path": "broken", "error": "RuntimeError: no"}


@pytest.mark.parametrize("cold", [True, False])
def test_events_enclose_the_run_alone(cold, monkeypatch):
    happened: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            happened.append("event")

        def elapsed_time(self, end: "Event") -> float:
            return 2.0

    watch = Stopwatch("cpu", evict_bytes=64)
    watch.on_gpu = True
    monkeypatch.setattr(watch, "_evict", lambda: happened.append("evict"))
    monkeypatch.setattr(stopwatch.torch.cuda, "Event", Event)
    monkeypatch.setattr(stopwatch.torch.cuda, "synchronize", lambda: None)
    work = Implementation(lambda: happened.append("run"), lambda: happened.append("prepare"))
    times = watch.fitting_times_ms(work, cold=cold)
    assert set(times) == {2.0}
    one_round = ["prepare", *(["evict"] if cold else []), "event", "run", "event"]
    assert happened[-len(one_round) * len(times) :] == one_round * len(times)


def test_pytest_benchmark_times_saves_and_compares(tmp_path):
    pytest.importorskip("pytest_benchmark")
    # It measures nothing where it believes itself to be a worker of pytest-xdist.
    hidden = ("PYTEST_XDIST", "PYTHONSAFEPATH")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    file = tmp_path / "result.json"
    command = [sys.executable, "-m", "pytest", "bench", "--bench-rows=16", "--bench-vocabulary=256"]
    command += ["--bench-threads=1", "--bench-evicted=1", "--benchmark-max-time=0.01"]
    command += [f"--benchmark-storage={tmp_path}", "-p", "no:hypothesispytest"]
    for more in (
        [f"--benchmark-json={file}", "--benchmark-save=one", "-k", "copy or (linear and 1:1)"],
        ["--benchmark-compare", "-k", "copy"],
    ):
        done = subprocess.run(
            [*command, *more], cwd=ROOT, env=environment | {"TORCHDYNAMO_DISABLE": "1"}, capture_output=True, text=True,
            timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    assert "test_operator[a copy of 16 float32 rows of 256] (NOW)" in done.stdout
    document = json.loads(file.read_text())
    assert document["machine_info"]["rows"] == [16]
    assert [benchmark["group"] for benchmark in document["benchmarks"]] == ["copy", "linear-loss"]
    for benchmark in document["benchmarks"]:
        own, *others = benchmark["extra_info"]["lines"]
        assert 0 < benchmark["stats"]["min"] <= benchmark["stats"]["median"]
        assert 0 < own["cold_best_ms"] <= own["cold_median_ms"]
        assert others or own["path"] == "copy"
    assert "16 rows of 64 x 256, near:distant 1:1 |" in section(document)
