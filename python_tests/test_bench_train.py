"""bench.train: it runs the trainer, and the published step takes the same steps."""

import json
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import bench.train.__main__ as script
from bench.decode.shapes import DREAM_7B, TINY, TINY_DREAM, random_model
from bench.report.machines import page, section
from bench.train import rivals
from bench.train.clock import PartClock
from bench.train.rivals import Subject
from bench.train.work import BareProducts, Sizes, linear_sizes
from tad_ext.distillation.settings import TrainingSettings

pytestmark = pytest.mark.slow

SIZES = Sizes(prompt=10, reference=5, canvas=16, rank=8)


@pytest.mark.parametrize(("shape", "accumulation"), [(TINY, 1), (TINY, 3), (TINY_DREAM, 2)])
def test_both_learn_the_same(shape, accumulation, monkeypatch):
    """Without dropout, three steps whose losses are each other's."""
    monkeypatch.setattr(rivals, "LoRASettings", partial(rivals.LoRASettings, dropout=0.0))
    training = TrainingSettings(accumulation=accumulation, max_steps=3, learning_rate=0.01)
    subject = Subject(shape, "cpu", torch.float32, training, SIZES)
    ours, trainer = rivals.own(subject)
    theirs = rivals.published(subject, trainer)
    losses = [(ours.step(), theirs.step()) for _ in range(3)]
    for own, published in losses:
        assert own == pytest.approx(published, rel=1e-5)
    assert len({own for own, _ in losses}) == 3


def test_parts_within_parts_and_the_rest(monkeypatch):
    clock, now = PartClock("cpu"), [0.0]
    monkeypatch.setattr(clock, "_moment", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    for _ in range(2):
        with clock.part("forward"):
            wait(3)
            clock.timed("head", wait)(2)
            wait(1)
    assert clock.parts_ms() == {"forward": 8e3, "head": 4e3}
    assert clock.parts_ms() == {}


@pytest.mark.parametrize("shape", [TINY, DREAM_7B])
def test_the_sizes_of_the_linear_modules(shape):
    model = random_model(shape, "meta")
    modules = [one for one in model.model.layers[0].modules() if isinstance(one, torch.nn.Linear)]
    assert sorted(linear_sizes(model.config)) == sorted((one.in_features, one.out_features) for one in modules)


def test_the_bare_products():
    """Of two micro-batches of three states, counted by hand: 2 * rows * inputs * outputs operations each."""
    model = random_model(TINY, "cpu", torch.float32)
    products = BareProducts(model, SIZES, rows=3, micro_batches=2, near=10, distant=22)
    with FlopCounterMode(display=False) as counter:
        products.run(PartClock("cpu"))
    student, teacher, layers, vocabulary = 3 * 26, 3 * 31, 2, 512
    weights = 4 * 64 * 64 + 3 * 64 * 128
    adapter = 8 * (4 * (64 + 64) + 3 * (64 + 128))
    head = (16 + 11 + 16) * 64 * vocabulary
    of_layers = layers * (weights * (2 * student + teacher) + adapter * 3 * student)
    assert counter.get_total_flops() == 2 * 2 * (head + of_layers)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_command_writes_what_the_report_shows(tmp_path, capsys, dtype):
    file = tmp_path / "train.json"
    options = ["--quick", "--device", "cpu", "--dtype", dtype, "--accumulation", "2", "--peak-tflops", "0.5"]
    assert script.main([*options, "--steps", "3", "--result", str(file)]) == 0
    document = json.loads(file.read_text())
    ours, published, products = document["training"]
    assert (ours["path"], published["path"], products["path"]) == ("tad_ext", "published step", script.PRODUCTS)
    assert ours["first_loss"] == pytest.approx(published["first_loss"], rel=1e-5 if dtype == "float32" else 1e-2)
    for line in (ours, published):
        assert line["steps"] == 3
        assert 0 < line["best_ms"] <= line["median_ms"]
        assert line["states_per_second"] == pytest.approx(8 / line["median_ms"] * 1e3)
        assert line["peak_bytes"] > 0
    assert published["weights_bytes"] > 1.5 * ours["weights_bytes"]
    assert set(ours["parts_ms"]) == {"teacher", "student", "head + loss", "backward", "AdamW", "other"}
    assert set(published["parts_ms"]) == set(ours["parts_ms"]) - {"head + loss"} | {"states", "head", "gathers", "loss"}
    for text in (capsys.readouterr().out, section(document), page("train", document)):
        assert f"Optimizer steps, random weights in {dtype}" in text
        assert f"| {published['median_ms'] / ours['median_ms']:.2f}x |" in text
        assert f"| {ours['flops'] / ours['median_ms'] / 1e9 / 0.5:.1%} |" in text
        share = ours["parts_ms"]["teacher"] / sum(ours["parts_ms"].values())
        assert f" ({share:.0%}) |" in text


def test_a_rival_that_fails_costs_itself_only(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no memory")

    monkeypatch.setattr(rivals.PublishedStep, "run", broken)
    file = tmp_path / "train.json"
    assert script.main(["--quick", "--device", "cpu", "--steps", "2", "--result", str(file)]) == 1
    ours, published, products = json.loads(file.read_text())["training"]
    assert ours["median_ms"] > products["median_ms"] > 0
    assert published == {"path": "published step", "error": "RuntimeError: no memory"}
