"""bench.train: it runs the trainer, and either loss takes the same steps."""

import json

import pytest

from bench import train
from tad_ext.distillation import tad

pytestmark = pytest.mark.slow


def test_both_lines_take_the_same_steps(tmp_path, monkeypatch):
    calls = []
    own = tad.fused_linear_tad_loss
    monkeypatch.setattr(
        tad, "fused_linear_tad_loss", lambda *rows, **options: (calls.append(1), own(*rows, **options))[1]
    )
    file = tmp_path / "train.json"
    assert train.main(["--quick", "--device", "cpu", "--steps", "3", "--result", str(file)]) == 0
    document = json.loads(file.read_text())
    ours, plain = document["training"]
    assert (ours["path"], plain["path"]) == ("tad_ext", "loss in PyTorch")
    assert len(calls) == 3, "the other line has PyTorch's loss"
    assert ours["loss"] == pytest.approx(plain["loss"], rel=1e-4)
    for line in (ours, plain):
        assert line["steps"] == 2, "the first is not timed"
        assert 0 < line["best_ms"] <= line["median_ms"]
        assert line["states_per_second"] == pytest.approx(document["states"] / line["median_ms"] * 1e3)


def test_a_line_that_fails_costs_itself_only(tmp_path, monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError("no memory")

    own = tad.fused_linear_tad_loss
    monkeypatch.setattr(train.reference, "fused_linear_tad_loss", broken)
    file = tmp_path / "train.json"
    assert train.main(["--quick", "--device", "cpu", "--steps", "2", "--result", str(file)]) == 1
    ours, plain = json.loads(file.read_text())["training"]
    assert ours["median_ms"] > 0
    assert plain == {"path": "loss in PyTorch", "error": "RuntimeError: no memory"}
    assert tad.fused_linear_tad_loss is own
