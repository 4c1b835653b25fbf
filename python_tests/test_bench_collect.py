"""bench.collect: what is timed is what it says, and differences from the exact way are counted as they are."""

import json
from dataclasses import replace
from math import ceil

import pytest
import torch
from collection_runs import make_model

from bench.collect import __main__ as script
from bench.collect.runs import CollectBench, CollectCase
from bench.collect.subjects import Sizes, random_subject
from bench.decode.published_loop import published_loop
from bench.report.machines import page, section
from tad_ext import DecodeConfig, decode

pytestmark = pytest.mark.slow
SIZES = Sizes(gen_length=20, block_length=10)


@pytest.fixture
def bench():
    subject = random_subject("tiny", "cpu", torch.float32, SIZES, prompt_length=6, prompts=8)
    with torch.no_grad():
        subject.model.lm_head.weight.mul_(20)  # confidences far enough apart
    return CollectBench(subject, compared=4)


def test_the_exact_way_collects_what_the_published_loop_does(bench):
    subject = bench.subject
    ours = decode(subject.model, subject.prompts[:3], DecodeConfig(**vars(SIZES), policy="topk:1", stop_at_eos=False))
    for prompt, sequence in zip(subject.prompts, ours.sequences):
        blocks = ((1,) * 10,) * 2
        *_, x = published_loop(subject.model, torch.tensor([prompt]), blocks, block_length=10, dtype=None)
        assert x[0].tolist() == sequence


def test_the_published_loop_samples_at_its_temperature():
    """4,000 tokens, each drawn from the same four, against their probabilities."""
    logits = torch.tensor([0.0, 1.0, 2.0, 0.5, -torch.inf])

    class Constant:
        config = type("Config", (), {"mask_token_id": 4})

        def __call__(self, x: torch.Tensor) -> object:
            return type("Output", (), {"logits": logits.expand(*x.shape, 5)})

    (x,) = published_loop(Constant(), torch.tensor([[0]]), ((4000,),), block_length=4000, temperature=0.7)
    found = torch.bincount(x[0, 1:], minlength=5) / 4000
    torch.testing.assert_close(found, torch.softmax(logits / 0.7, dim=0), atol=0.03, rtol=0)


def test_responses_of_random_weights_end_where_they_are_told_to(bench):
    subject = bench.subject
    config = DecodeConfig(**vars(SIZES), batch_size=3)
    with subject.ending():
        ended = decode(subject.model, subject.prompts, config)
    lengths = ended.response_lengths.tolist()
    assert ended.forwards.tolist() == lengths, "a token a step, and nothing behind the end"
    assert lengths[0] == 145 * SIZES.gen_length // 256
    assert len(set(lengths)) > 4
    free = decode(subject.model, subject.prompts, config)
    assert free.forwards.tolist() == [SIZES.gen_length] * len(subject.prompts)


def test_a_turn_says_how_many_forwards_a_trajectory_has(bench):
    cases = {
        20: [CollectCase(published=True), CollectCase(), CollectCase(4), CollectCase(2, cache="dual")],
        10: [CollectCase(2, top_k=2)],
        6: [CollectCase(2, top_k=4)],  # 4, 4 and 2 of a block of 10
    }
    for forwards, ways in cases.items():
        assert [bench.run(case)[1] for case in ways] == [forwards] * len(ways)
    assert 5 < bench.run(CollectCase(2, stop_at_eos=True))[1] < 15


def test_a_cache_that_is_always_refreshed_differs_in_nothing(bench):
    assert bench.compare(CollectCase(2, cache="dual:1")) == {"tokens_differ": 0.0, "choices_differ": 0.0}
    assert bench.compare(CollectCase(2, cache="dual"))["choices_differ"] > 0


@pytest.mark.parametrize("top_k", [2, 4])
def test_choices_are_counted_one_by_one(bench, top_k):
    subject = bench.subject
    config = DecodeConfig(**vars(SIZES), stop_at_eos=False)
    exact, other = (decode(subject.model, subject.prompts[:4], replace(config, policy=f"topk:{k}")) for k in (1, top_k))
    same = 0
    for row in range(4):
        revealed = set(zip(other.reveal_step[row].tolist(), range(20), other.canvases()[row], strict=True))
        for place, (step, token) in enumerate(zip(exact.reveal_step[row].tolist(), exact.canvases()[row], strict=True)):
            block, number = divmod(step - 1, 10)
            due = block * ceil(10 / top_k) + ceil((number + 1) / top_k)
            same += (due, place, token) in revealed
    compared = bench.compare(CollectCase(2, top_k=top_k))
    assert compared["choices_differ"] == pytest.approx(1 - same / 80)
    assert 0 < same < 80


@pytest.mark.parametrize("checkpoint", [False, True])
def test_the_command_writes_what_the_report_shows(tmp_path, capsys, checkpoint):
    file = tmp_path / "collect.json"
    options = ["--quick", "--device", "cpu", "--turns", "2", "--batch", "1", "--batch", "2", "--result", str(file)]
    if checkpoint:
        options += ["--model", make_model(tmp_path / "model", seed=0), "--problems", "5"]
    assert script.main(options) == 0
    document = json.loads(file.read_text())
    lines = {line["path"]: line for line in document["collection"]}
    assert list(lines) == [
        "published loop", "published loop, softmax in the model's dtype", "published loop, temperature 0.7",
        "tad_ext, batch 1", "tad_ext, batch 2",
        "tad_ext, batch 2, temperature 0.7", "tad_ext, batch 2, stop at EOS", "tad_ext, batch 2, prefix cache",
        "tad_ext, batch 2, dual cache", "tad_ext, batch 2, topk:2", "tad_ext, batch 2, topk:4",
    ]  # fmt: skip
    for path, line in lines.items():
        assert 0 < line["best_ms"] <= line["median_ms"]
        assert line["trajectories_per_hour"] == pytest.approx(3.6e6 / line["median_ms"])
        inexact = "cache" in path or "topk" in path
        assert ("choices_differ" in line) == inexact
        own = "tad_ext" in path and "temperature" not in path
        assert ("right" in line) == (checkpoint and own)
        assert ("tokens_differ" in line) == (inexact or (checkpoint and "EOS" in path))
    sampled = lines["published loop, temperature 0.7"]["median_ms"] / lines["tad_ext, batch 2, temperature 0.7"][
        "median_ms"
    ]  # fmt: skip
    subject = "the checkpoint model, task arithmetic" if checkpoint else "tiny shape, random weights"
    lines["published loop"]["error"] = "a | b"
    for text in (capsys.readouterr().out, section(document), page("collect", document)):
        assert f"Collecting trajectories from {subject}" in text
        assert ("right answers" in text) == checkpoint
        (row,) = (row for row in text.splitlines() if row.startswith("| tad_ext, batch 2, temperature 0.7"))
        assert f"{sampled:.1f}x" in row
    assert "published loop failed: a \\| b" in text
