"""bench/decode: it replays what it says, its baseline decodes what we decode, and bench/report reads what it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from decode_runs import PUBLISHED, DecodeBench, DecodeCase, Sizes
from decode_tables import outside_layers_ms, part_rows, rows
from h200_steps import ROOT
from published_loop import published_loop, with_gumbel_noise
from replay import RECORDED, ReplayedCounts, Schedule
from report_details import details
from report_tables import machine_section, report
from results import read_json, read_results
from shapes import DREAM_7B, SHAPES, TINY, random_model
from step_clock import CHOICE, HEAD, INPUTS, LAYERS, POLICY, REVEAL, ROWS, StepClock

from tad_ext import DecodeConfig, TopK, decode
from tad_ext.decoding import engine, inputs, parse_cache

GEN, BLOCK = 16, 8
TINY_DREAM = DREAM_7B | {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 128, "vocab_size": 512, "mask_token_id": 510, "bos_token_id": 508, "eos_token_id": 508,
    "pad_token_id": 508,
}  # fmt: skip


@pytest.fixture(params=["llada", "dream"])
def model(request: pytest.FixtureRequest, device: str) -> Any:
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


def test_the_schedule_is_the_recorded_one() -> None:
    recorded = read_json(RECORDED)["blocks"]
    assert all(sum(block) == 32 for block in recorded)
    schedule = Schedule.recorded(256, 32)
    assert [list(block) for block in schedule.blocks] == recorded
    assert schedule.forwards == sum(map(len, recorded))
    assert 4 < schedule.tokens_per_forward < 6
    pairs = Schedule.recorded(256, 64)
    assert list(pairs.blocks[0]) == recorded[0] + recorded[1]
    assert pairs.forwards == schedule.forwards


@pytest.mark.parametrize(("gen_length", "block_length"), [(16, 8), (28, 14), (320, 32), (512, 128), (5, 1)])
def test_blocks_of_any_size_are_filled(gen_length: int, block_length: int) -> None:
    schedule = Schedule.recorded(gen_length, block_length)
    assert [sum(block) for block in schedule.blocks] == [block_length] * (gen_length // block_length)
    assert min(min(block) for block in schedule.blocks) >= 1


def test_rows_start_at_different_blocks_and_finish_together() -> None:
    schedule = Schedule("", ((2, 1), (3,), (1, 1, 1)))
    assert schedule.of_row(0) == schedule.of_row(3) == [2, 1, 3, 1, 1, 1]
    assert schedule.of_row(1) == [3, 1, 1, 1, 2, 1]
    assert schedule.of_row(2) == [1, 1, 1, 2, 1, 3]


@pytest.mark.parametrize("cache", ["none", "prefix", "dual", "delayed"])
def test_exactly_the_recorded_counts_are_revealed(model: Any, cache: str) -> None:
    schedule = Schedule.recorded(GEN, BLOCK)
    policy = ReplayedCounts(schedule, 3, model.device)
    result = decode(model, prompts(3), settings(policy=policy, cache=parse_cache(cache), batch_size=3))
    for row, steps in enumerate(result.reveal_step.tolist()):
        counts = Counter(steps)
        assert [counts[step] for step in range(1, max(counts) + 1)] == schedule.of_row(row)


def published(model: Any, prompt: list[int], blocks: Any) -> tuple[list[int], list[int]]:
    """Sequence and reveal steps of the published loop."""
    steps = [0] * GEN
    sequence: list[int] = []
    loop = published_loop(model, torch.tensor([prompt], device=model.device), blocks, block_length=BLOCK)
    with torch.inference_mode():
        for number, x in enumerate(loop, start=1):
            sequence = x[0].tolist()
            for place, token in enumerate(sequence[len(prompt) :]):
                if token != model.config.mask_token_id and not steps[place]:
                    steps[place] = number
    return sequence, steps


@pytest.mark.parametrize("one_at_a_time", [True, False])
def test_the_published_loop_decodes_what_we_decode(model: Any, one_at_a_time: bool) -> None:
    blocks = ((1,) * BLOCK,) * (GEN // BLOCK) if one_at_a_time else Schedule.recorded(GEN, BLOCK).blocks
    policy = TopK(1) if one_at_a_time else ReplayedCounts(Schedule("", tuple(blocks)), 1, model.device)
    for prompt in prompts(4):
        ours = decode(model, [prompt], settings(policy=policy))
        sequence, steps = published(model, prompt, blocks)
        assert ours.sequences[0] == sequence
        assert ours.reveal_step[0].tolist() == steps


def test_the_published_noise_samples_from_the_softmax() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0])
    assert with_gumbel_noise(logits, 0.0) is logits
    torch.manual_seed(0)
    drawn = with_gumbel_noise(logits.expand(20000, 3), 0.7).argmax(-1).bincount(minlength=3) / 20000
    torch.testing.assert_close(drawn, (logits / 0.7).softmax(-1), atol=0.02, rtol=0)


def test_recorded_steps_are_lines_without_parts(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "GRAPH_DEVICES", ("cpu", "cuda"))
    if model.device.type == "cpu":
        monkeypatch.setattr(engine, "RecordedStep", lambda step, device: step)
    bench = DecodeBench(model, Sizes(5, GEN, BLOCK, 3), Schedule.recorded(GEN, BLOCK))
    cases = [DecodeCase(PUBLISHED), DecodeCase("dual"), DecodeCase("dual", graphs=True)]
    lines = bench.measure(cases, seconds=0)
    assert [line["path"] for line in lines] == [
        "published loop, batch 1", "tad_ext, dual cache, batch 1", "tad_ext, dual cache, batch 1, graphs"
    ]  # fmt: skip
    recorded = lines[2]
    assert recorded["parts_ms"] == {}
    assert recorded["forwards"] == lines[1]["forwards"]
    assert recorded["forwards_per_second"] == pytest.approx(1e3 / recorded["median_ms"])
    header, cells = rows(lines)
    assert len(cells[2]) == len(header)
    assert cells[2][4:9] == [""] * 5
    assert all(cells[1])
    assert [row[0] for row in part_rows(lines)[1]] == [line["path"] for line in lines[:2]]


def test_a_built_in_policy_has_forwards_of_its_own(model: Any) -> None:
    bench = DecodeBench(model, Sizes(5, GEN, BLOCK, 3), Schedule.recorded(GEN, BLOCK))
    none, whole = bench.measure([DecodeCase("none", top_k=3), DecodeCase("dual", top_k=3)], seconds=0)
    assert whole["path"] == "tad_ext, dual cache, batch 1, topk:3"
    assert (none["forwards"], whole["forwards"]) == (3, GEN // BLOCK * -(-BLOCK // 3))
    assert whole["tokens_per_second"] == pytest.approx(whole["forwards_per_second"] * GEN / whole["forwards"])
    assert whole["parts_ms"][CHOICE] > 0
    assert whole["parts_ms"][POLICY] == whole["parts_ms"][REVEAL] == 0


def test_the_parts_of_a_step_add_up(model: Any) -> None:
    clock = StepClock(model, model.device)
    ids = torch.tensor(prompts(1), device=model.device)
    with clock.watching():
        for _ in range(2):
            with clock.step():
                model(ids)
                clock.policy(lambda: None)()
        with pytest.raises(RuntimeError), clock.step():
            raise RuntimeError  # a step that does not end is none
    model(ids)
    steps = clock.steps_ms()
    assert len(steps) == 2
    for parts in steps:
        assert list(parts) == [INPUTS, LAYERS, ROWS, HEAD, CHOICE, POLICY, REVEAL]
        assert min(parts.values()) >= 0
        assert parts[LAYERS] > 0


def test_a_case_that_fails_costs_itself_only(device: str) -> None:
    model = random_model(TINY, device, torch.float32)
    bench = DecodeBench(model, Sizes(5, GEN, BLOCK, forwards=2), Schedule.recorded(GEN, BLOCK))
    broken, whole, none = bench.measure(
        [DecodeCase("no such scheme"), DecodeCase("dual", 2), DecodeCase("none")], seconds=0
    )
    assert broken["path"] == "tad_ext, no such scheme cache, batch 1"
    assert "unknown name" in broken["error"]
    assert whole["forwards"] == bench.schedule.forwards
    assert whole["cache_bytes"] == 2 * 2 * 2 * 64 * (5 + GEN) * 4
    assert none["forwards"] == 2
    assert none["cache_bytes"] == 0


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script writes."""
    file = tmp_path_factory.mktemp("decode") / "decode.json"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    command = [sys.executable, str(ROOT / "bench" / "decode"), "--quick", "--device", "cpu", "--result", str(file)]
    command += ["--batch", "1", "--batch", "3", "--cache", "none", "--cache", "dual"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("tiny shape, random weights", "replayed", "recorded", PUBLISHED, "tad_ext, dual cache, batch 3"):
        assert words in done.stdout
    return read_results(file)


def test_the_script_measures_and_says_what(document: dict[str, Any]) -> None:
    assert document["run"]["torch"] == torch.__version__
    (group,) = document["decoding"]
    assert "recorded" in group["schedule"]
    assert [line["path"] for line in group["lines"]] == [
        "published loop, batch 1", "tad_ext, no cache, batch 1", "tad_ext, dual cache, batch 1",
        "tad_ext, no cache, batch 1, topk:5", "tad_ext, dual cache, batch 1, topk:5", "tad_ext, no cache, batch 3",
        "tad_ext, dual cache, batch 3",
    ]  # fmt: skip
    for line in group["lines"]:
        assert 0 < line["best_ms"] <= line["median_ms"]
        assert line["forwards_per_second"] > 0
        assert line["tokens_per_second"] > line["forwards_per_second"]
        assert 0 < outside_layers_ms(line) < sum(line["parts_ms"].values())
        assert line["peak_bytes"] > 0
        assert (line["cache_bytes"] > 0) == ("dual" in line["path"])


def test_report_shows_it(document: dict[str, Any]) -> None:
    short, long = report({"decode.json": document}), details({"decode.json": document})
    for text in (short, long):
        assert "Decoding, tiny shape, random weights, float32" in text
        assert "| tad_ext, dual cache, batch 3 |" in text
        assert "Tokens revealed by each forward: replayed" in text
    assert "| inputs | layers |" in long
    assert "| inputs | layers |" not in short


def test_report_shows_it_as_a_step_of_the_h200(document: dict[str, Any]) -> None:
    step = {"status": "ok", "seconds": 60.0, "result": document}
    text = machine_section({"machine": {"gpu": {"name": "NVIDIA H200"}}, "steps": {"decode": step}})
    assert "**NVIDIA H200**" in text
    assert "| published loop, batch 1 |" in text


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["decoding"], {}, "decoding is {}, expected a list"),
        (["decoding", 0, "lines"], None, "decoding[0].lines is None, expected a list"),
        (["decoding", 0, "lines", 1, "forwards_per_second"], 0, "forwards_per_second is 0, expected a number > 0"),
        (["decoding", 0, "lines", 1, "parts_ms", "head"], "1", "lines[1].parts_ms.head is '1', expected a number"),
        (["decoding", 0, "lines", 1, "median_ms"], "fast", "median_ms is 'fast'"),
    ],
)
def test_a_malformed_document_is_refused_by_name(
    document: dict[str, Any], tmp_path: Path, path: list[Any], value: Any, message: str
) -> None:
    changed = json.loads(json.dumps(document))
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file = tmp_path / "decode.json"
    file.write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=r"decode\.json: ") as error:
        read_results(file)
    assert message in str(error.value)


def test_a_failed_line_is_reported(document: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(document))
    changed["decoding"][0]["lines"][0] = {"path": "published loop, batch 1", "baseline": True, "error": "a | b"}
    text = details({"decode.json": changed})
    assert "published loop, batch 1 failed: a \\| b" in text
    assert "| tad_ext, no cache, batch 1 |" in text


@pytest.mark.parametrize(("shape", "billions"), [("llada-8b", 8.0), ("dream-7b", 7.6)])
def test_the_shapes_have_their_sizes(shape: str, billions: float) -> None:
    assert random_model(SHAPES[shape], "meta").num_parameters() / 1e9 == pytest.approx(billions, abs=0.05)
