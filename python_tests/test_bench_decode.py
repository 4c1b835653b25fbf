"""bench.decode: it replays what it says, and its baseline decodes what we decode."""

import json
from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.decode import __main__ as script
from bench.decode import runs
from bench.decode.clock import PARTS, StepClock
from bench.decode.published_loop import published_loop
from bench.decode.replay import ReplayedCounts, Schedule
from bench.decode.runs import PUBLISHED, DecodeBench, DecodeCase, Sizes
from bench.decode.shapes import SHAPES, TINY, TINY_DREAM, random_model
from bench.report.machines import page, section
from bench.train.work import forward_flops
from tad_ext import DecodeConfig, TopK, decode, parse_cache

GEN, BLOCK = 16, 8


@pytest.fixture(params=["llada", "dream"])
def model(request, device):
    torch.manual_seed(3)
    made = random_model({"llada": TINY, "dream": TINY_DREAM}[request.param], device, torch.float32)
    with torch.no_grad():
        made.lm_head.weight.mul_(20)  # confidences far enough apart
        made.lm_head.weight[510] = 0
    return made


def settings(**changes: Any) -> DecodeConfig:
    return DecodeConfig(**({"gen_length": GEN, "block_length": BLOCK, "stop_at_eos": False} | changes))


def prompts(rows: int, length: int = 5) -> list[list[int]]:
    return torch.randint(500, (rows, length), generator=torch.Generator().manual_seed(0)).tolist()


@pytest.mark.parametrize("cache", ["none", "dual", "delayed"])
def test_exactly_the_recorded_counts_are_revealed(model, cache):
    schedule = Schedule.recorded(GEN, BLOCK)
    policy = ReplayedCounts(schedule, 3, model.device)
    result = decode(model, prompts(3), settings(policy=policy, cache=parse_cache(cache), batch_size=3))
    for row, steps in enumerate(result.reveal_step.tolist()):
        counts = Counter(steps)
        assert [counts[step] for step in range(1, max(counts) + 1)] == schedule.of_row(row)


def published(model: Any, prompt: list[int], blocks: Any) -> tuple[list[int], list[int]]:
    """Sequence and reveal steps of the published loop."""
    steps, sequence = [0] * GEN, []
    loop = published_loop(model, torch.tensor([prompt], device=model.device), blocks, block_length=BLOCK)
    for number, x in enumerate(loop, start=1):
        sequence = x[0].tolist()
        for place, token in enumerate(sequence[len(prompt) :]):
            if token != model.config.mask_token_id and not steps[place]:
                steps[place] = number
    return sequence, steps


@pytest.mark.parametrize("one_at_a_time", [True, False])
def test_the_published_loop_decodes_what_we_decode(model, one_at_a_time):
    blocks = ((1,) * BLOCK,) * (GEN // BLOCK) if one_at_a_time else Schedule.recorded(GEN, BLOCK).blocks
    policy = TopK(1) if one_at_a_time else ReplayedCounts(Schedule("", tuple(blocks)), 1, model.device)
    for prompt in prompts(4):
        ours = decode(model, [prompt], settings(policy=policy))
        assert (ours.sequences[0], ours.reveal_step[0].tolist()) == published(model, prompt, blocks)


def test_the_parts_of_a_step_add_up(model):
    clock = StepClock(model)
    ids = torch.tensor(prompts(1), device=model.device)
    clock.start()
    for _ in range(2):
        model(ids)
        clock.policy(lambda: None)()
        clock.next_step()
    model(ids)  # a step that does not end is none
    steps = clock.steps_ms()
    assert len(steps) == 2
    for parts in steps:
        assert tuple(parts) == PARTS
        assert min(parts.values()) >= 0
        assert parts["layers"] > 0


@pytest.fixture
def bench(model):
    return DecodeBench(model, Sizes(BLOCK, forwards=10, prompt_length=5, gen_length=GEN), Schedule.recorded(GEN, BLOCK))


def test_a_case_says_itself_whether_steps_are_recorded(bench, monkeypatch):
    used = []
    monkeypatch.setattr(runs, "decode_stream", lambda _model, _prompts, config, **_: used.append(config) or [])
    for case in (DecodeCase("none"), DecodeCase("dual", top_k=3), DecodeCase("dual", graphs=True)):
        bench.run(case)
    assert [config.cuda_graphs for config in used] == [False, False, True]


def test_every_case_is_a_line_of_its_own(bench, model):
    """With as many forwards as it was asked for, of a batch fewer; one that fails costs itself only."""
    cases = [DecodeCase(PUBLISHED), DecodeCase("no such scheme"), DecodeCase("none"), DecodeCase("dual", 2)]
    cases += [DecodeCase("dual", top_k=3), *(DecodeCase("none", rows, top_k=1) for rows in (1, 2, 4))]
    ((first, broken, none, dual, topk, *slow),) = bench.measure(cases, seconds=0)
    assert broken["path"] == "tad_ext, no such scheme cache, batch 1"
    assert "unknown name" in broken["error"]
    assert first["path"] == "published loop, batch 1"
    assert first["forwards"] == none["forwards"] == dual["forwards"] == bench.schedule.forwards
    assert [line["forwards"] for line in slow] == [10, 5, 4]
    keys = model.config.num_key_value_heads * 16
    assert (none["cache_bytes"], dual["cache_bytes"]) == (0, 2 * 2 * 2 * keys * (5 + GEN) * 4)
    assert topk["path"] == "tad_ext, dual cache, batch 1, topk:3"
    assert topk["forwards"] == GEN // BLOCK * -(-BLOCK // 3)
    assert topk["tokens_per_second"] == pytest.approx(topk["forwards_per_second"] * GEN / topk["forwards"])
    assert topk["parts_ms"]["choice"] > 0 == topk["parts_ms"]["policy"] == topk["parts_ms"]["reveal"]


def test_lines_are_there_after_every_round(bench, monkeypatch):
    """A case that fails later on loses its line, and the others go on."""
    rounds = bench.measure([DecodeCase("dual"), DecodeCase("none")], seconds=1000, most=2)
    assert [line["rounds"] for line in next(rounds)] == [1, 1]
    run = bench.run
    monkeypatch.setattr(bench, "run", lambda case: run(case) if case.cache == "none" else 1 / 0)
    broken, line = next(rounds)
    assert broken == {"path": "tad_ext, dual cache, batch 1", "error": "ZeroDivisionError: division by zero"}
    assert line["rounds"] == 2
    assert next(rounds, None) is None


def test_the_command_writes_what_the_report_shows(tmp_path, capsys):
    file = tmp_path / "decode.json"
    options = ["--batch", "1", "--batch", "3", "--cache", "none", "--cache", "dual", "--threads", "1"]
    assert script.main(["--quick", "--device", "cpu", *options, "--result", str(file)]) == 0
    document = json.loads(file.read_text())
    (group,) = document["decoding"]
    assert [line["path"] for line in group["lines"]] == [
        "published loop, batch 1", "tad_ext, no cache, batch 1", "tad_ext, dual cache, batch 1",
        "tad_ext, no cache, batch 1, topk:5", "tad_ext, dual cache, batch 1, topk:5", "tad_ext, no cache, batch 3",
        "tad_ext, dual cache, batch 3",
    ]  # fmt: skip
    for line in group["lines"]:
        assert 0 < line["best_ms"] <= line["median_ms"]
        assert 0 < line["forwards_per_second"] < line["tokens_per_second"]
        assert 0 < line["parts_ms"]["layers"] < sum(line["parts_ms"].values())
        assert line["peak_bytes"] > 0
    group["lines"][0] = {"path": "published loop, batch 1", "error": "a | b"}
    short, long = section(document), page("decode", document)
    step = {"status": "ok", "seconds": 60.0, "result": document}
    for text in (capsys.readouterr().out, short, long, section({"machine": {}, "steps": {"decode": step}})):
        assert "Decoding, tiny shape, random weights, float32" in text
        assert "Tokens revealed by each forward: replayed" in text
        assert "| tad_ext, dual cache, batch 3 |" in text
        assert ("| inputs | layers |" in text) == (text is not short and "**no GPU**" not in text)
    assert "published loop, batch 1 failed: a \\| b" in long


def test_the_operations_of_a_forward_are_counted():
    model = random_model(TINY, "cpu")
    model.set_attn_implementation("eager")  # the counter does not know the CPU's fused attention
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.lm_head(model.hidden_rows(torch.arange(40)[None])[0, :8])
    assert forward_flops(model.config, 40, 8) == counter.get_total_flops()


@pytest.mark.parametrize(("shape", "parameters"), [("llada-8b", 8_015_581_184), ("dream-7b", 7_615_616_512)])
def test_the_shapes_have_their_published_sizes(shape, parameters):
    assert random_model(SHAPES[shape], "meta").num_parameters() == parameters
