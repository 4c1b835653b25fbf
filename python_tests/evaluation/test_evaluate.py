import json
import time

import pytest
import torch
from problem_files import GSM8K_SAMPLE

from tad_ext.data.tasks.arithmetic import ArithmeticTask, arithmetic_tokenizer
from tad_ext.decoding import PRESETS, DelayedCache, decode, decode_stream, preset
from tad_ext.evaluation import accuracy_under_parallelism
from tad_ext.jobs.collect.config import CollectConfig
from tad_ext.jobs.evaluate.config import EvaluateConfig
from tad_ext.jobs.evaluate.run import evaluate
from tad_ext.models.loading import load_model, save_model
from tad_ext.models.tiny import TinyDiffusionConfig, TinyDiffusionLM
from tad_ext.settings import made


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return made_checkpoint(tmp_path_factory.mktemp("checkpoints") / "base")


def made_checkpoint(path, **changes):
    """A tiny model with random weights that speaks the arithmetic task's tokens."""
    tokenizer = arithmetic_tokenizer()
    torch.manual_seed(0)
    config = TinyDiffusionConfig(
        vocab_size=len(tokenizer), hidden_size=12, intermediate_size=24, num_hidden_layers=1, num_attention_heads=3,
        max_position_embeddings=48, mask_token_id=tokenizer.mask_token_id, eos_token_ids=[tokenizer.eos_token_id],
        suppress_token_ids=[tokenizer.pad_token_id], **changes,
    )  # fmt: skip
    save_model(TinyDiffusionLM(config), tokenizer, path)
    return path


def settings(checkpoint, tmp_path, **changes):
    defaults = {"model": str(checkpoint), "output": str(tmp_path / "out"), "limit": 6, "thresholds": [0.5, 9.0]}
    return made(EvaluateConfig, defaults | changes)


def test_what_it_writes(checkpoint, tmp_path, capsys):
    report = evaluate(settings(checkpoint, tmp_path))
    output = tmp_path / "out"
    names = {path.name for path in output.iterdir()}
    assert names == {"evaluation.json", "evaluation.md", "responses.jsonl", "accuracy_curve.png"}
    assert json.loads((output / "evaluation.json").read_text()) == report
    assert [point["policy"] for point in report["points"]] == ["topk:1", "entropy:0.5", "entropy:9.0"]
    assert report["problems"] == 6
    assert report["settings"]["gen_length"] == 28
    # Entropies cannot exceed log(24) nats: the last run reveals whole blocks.
    assert report["points"][2]["forwards"] <= 2 * 6
    responses = [json.loads(line) for line in (output / "responses.jsonl").read_text().splitlines()]
    assert len(responses) == 3 * 6
    for point in report["points"]:
        own = [one for one in responses if one["policy"] == point["policy"]]
        assert sum(one["correct"] for one in own) == point["correct"]
        assert sum(one["tokens"] for one in own) == point["response_tokens"]
        assert sum(one["forwards"] for one in own) == point["forwards"]
    text = capsys.readouterr().out
    assert "AUP" in text
    assert "forwards during which the sequence was unfinished" in " ".join(text.split())


def test_another_folder_gets_the_same_numbers(checkpoint, tmp_path):
    first, second = (evaluate(settings(checkpoint, tmp_path, output=str(tmp_path / name))) for name in "ab")
    for report in (first, second):
        del report["settings"]["output"]
        for point in report["points"]:
            del point["seconds"], point["tokens_per_second"], point["latency"]
    assert first == second


def test_the_same_command_again_reports_what_is_finished(checkpoint, tmp_path, monkeypatch, capsys):
    report = evaluate(settings(checkpoint, tmp_path))
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    printed = capsys.readouterr().out
    monkeypatch.setattr("tad_ext.jobs.common.ModelSettings.load", lambda _: pytest.fail("loaded"))
    assert evaluate(settings(checkpoint, tmp_path)) == report
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == files
    assert capsys.readouterr().out == f"finished before, in {tmp_path / 'out'}\n{printed}"


def test_the_best_accuracy_can_be_given(checkpoint, tmp_path):
    report = evaluate(settings(checkpoint, tmp_path, best_accuracy=90.0))
    assert (report["best_accuracy"], report["best_accuracy_from"]) == (90.0, "given")
    curve = [(point["tokens_per_forward"], point["accuracy"]) for point in report["points"][1:]]
    curve.append((1.0, report["points"][0]["accuracy"]))
    assert report["aup"] == accuracy_under_parallelism(curve, 90.0)


def test_a_sweep_of_another_policy(checkpoint, tmp_path):
    report = evaluate(settings(checkpoint, tmp_path, policy="topk", thresholds=[1.0, 4.0], limit=2))
    assert [point["policy"] for point in report["points"]] == ["topk:1", "topk:4"]


def test_a_sweep_of_a_policy_with_several_parameters(checkpoint, tmp_path):
    report = evaluate(settings(checkpoint, tmp_path, policy="hierarchical", thresholds=[0.5, 0.9], limit=2))
    assert [point["policy"] for point in report["points"]] == ["topk:1", "hierarchical:0.5", "hierarchical:0.9"]


def test_policies_and_presets_are_runs_of_their_own(checkpoint, tmp_path):
    report = evaluate(settings(
        checkpoint, tmp_path, thresholds=[0.5], policies=["topk:2", "factor:1.0,variant=code", "entropy:0.5"],
        presets=["d3llm-dream"], gen_length=28, block_length=14, limit=3, forced_progress="blocks",
    ))  # fmt: skip
    names = ["topk:1", "entropy:0.5", "topk:2", "factor:factor=1.0,variant=code", "preset:d3llm-dream"]
    assert [point["policy"] for point in report["points"]] == names
    assert {name: method["runs"] for name, method in report["methods"].items()} == {
        "entropy": ["topk:1", "entropy:0.5"],
        "topk": ["topk:1", "topk:2"],
        "factor,variant=code": ["topk:1", "factor:factor=1.0,variant=code"],
        "preset:d3llm-dream": ["topk:1", "preset:d3llm-dream"],
    }
    assert report["aup"] == report["methods"]["entropy"]["aup"]["value"]
    runs = report["identity"]["runs"]
    assert {run["forced_progress"] for name, run in runs.items() if ":" in name and "preset" not in name} == {"blocks"}
    named = runs["preset:d3llm-dream"]
    assert (named["policy"], named["forced_progress"], named["block_add_threshold"]) == ("entropy:0.4", "block", 0.1)
    assert all(f"| {name} |" in (tmp_path / "out" / "evaluation.md").read_text() for name in names)

    tokenizer, task = arithmetic_tokenizer(), ArithmeticTask()
    prompts = [task.student_prompt(problem, tokenizer) for problem in task.problems("test", limit=3, seed=0)]
    published = decode(load_model(checkpoint), prompts, preset("d3llm-dream", gen_length=28, block_length=14))
    rows = [json.loads(line) for line in (tmp_path / "out" / "responses.jsonl").read_text().splitlines()]
    assert [row["forwards"] for row in rows[-3:]] == published.forwards.tolist()
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in published.responses()]
    assert [row["response"] for row in rows[-3:]] == texts


@pytest.mark.parametrize(
    ("block", "some", "none"),
    [
        (None, {"tad", "fast-dllm-dream-dual", "d2f", "d3llm-llada-gsm8k", "saber"}, {"sdar", "llada2.1", "dmax"}),
        (6, {"tad", "sdar", "llada2.1", "dmax", "fast-dllm-v2"}, {"d2f", "fast-dllm-dream-dual", "d3llm-llada-gsm8k"}),
    ],
)
def test_a_suite_is_all_presets_that_the_model_allows(tmp_path, capsys, block, some, none):
    """In the task's lengths, or those of a model with blocks of its own: 28 positions are 5 blocks of 6."""
    path = made_checkpoint(tmp_path / "model", causal_block_length=block)
    report = evaluate(settings(path, tmp_path, policy=None, thresholds=None, suite=True, limit=2))
    runs = report["identity"]["runs"]
    names = {name.removeprefix("preset:") for name in runs}
    assert names >= some
    assert not names & none
    assert "one-per-step" not in names  # which is topk:1
    for name, run in runs.items():
        published = PRESETS.get(name.removeprefix("preset:"), PRESETS["tad"])
        of_one = (
            block is None and published.block_length == published.gen_length
        )  # saber, llada, ...: in one, if it can be
        expected = (28, 28 if of_one else 14) if block is None else (30, 6)
        assert (run["gen_length"], run["block_length"]) == expected
    told = capsys.readouterr().out
    assert "not in the suite: one-per-step: decodes as topk:1; " in told
    assert "; sdar: run preset:sdar: cache is block, and attention is in both" in told or block is not None
    assert len({json.dumps(run) for run in runs.values()}) == len(runs)
    with pytest.raises(ValueError, match=r"^suite is true and presets is \['tad'\]; expected none"):
        evaluate(settings(path, tmp_path, suite=True, presets=["tad"]))


def test_without_a_sweep_there_is_no_area_at_the_top(checkpoint, tmp_path):
    report = evaluate(settings(checkpoint, tmp_path, policy=None, policies=["topk:4"], thresholds=None, limit=2))
    assert [point["policy"] for point in report["points"]] == ["topk:1", "topk:4"]
    assert report["aup"] is None
    assert list(report["methods"]) == ["topk"]


def test_the_cache_is_used_and_recorded(checkpoint, tmp_path, monkeypatch):
    seen = []

    def spy(model, prompts, config, **options):
        seen.append(config.cache)
        return decode_stream(model, prompts, config, **options)

    monkeypatch.setattr("tad_ext.evaluation.measure.decode_stream", spy)
    evaluate(settings(checkpoint, tmp_path, cache="delayed:16,1", thresholds=[0.5], limit=1))
    assert seen == [DelayedCache(16, 1)] * 2
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["settings"]["cache"] == "delayed:16,1"


def test_thresholds_that_differ_in_the_last_digit_are_two_runs_with_their_names(checkpoint, tmp_path, capsys):
    thresholds = [0.9999999, 0.9999998]
    report = evaluate(settings(checkpoint, tmp_path, policy="confidence", thresholds=thresholds, limit=1))
    names = ["topk:1", "confidence:0.9999999", "confidence:0.9999998"]
    assert [point["policy"] for point in report["points"]] == names
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)


def test_a_folder_may_have_brackets_in_its_name(checkpoint, tmp_path, capsys):
    evaluate(settings(checkpoint, tmp_path, output=str(tmp_path / "[/]x[bold]"), thresholds=[], limit=1))
    assert "[/]x[bold]" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cache": "triple"}, "cache 'triple'"),
        ({"task": "arithmatic"}, "task must be one of arithmetic, gsm8k, math, .*, got 'arithmatic'"),
        ({"task": "gsm8k"}, "task 'gsm8k' needs data"),
        ({"data": "file"}, "task 'arithmetic' has no option 'data', got 'file'"),
        ({"task": "gsm8k", "data": str(GSM8K_SAMPLE)}, "the model's tokenizer has no chat template"),
        ({"policy": "entropie"}, "entropie"),
        ({"thresholds": [-1.0]}, "EntropyThreshold.threshold"),
        ({"thresholds": [0.5, 1.0, 0.5]}, r"thresholds is \[0.5, 1.0, 0.5\], which has entropy:0.5 twice"),
        ({"policies": ["entropy:0.5", "entropie:1"]}, "policy 'entropie:1': unknown name"),
        (
            {"policies": ["topk:2", "topk:2"]},
            r"policies is \['topk:2', 'topk:2'\]; expected at least one, and none twice",
        ),
        ({"presets": ["tat"]}, "presets has 'tat'; expected some of one-per-step, tad, "),
        ({"presets": ["tad", "tad"]}, r"presets is \['tad', 'tad'\]; expected none twice"),
        ({"presets": ["tad"]}, r"run preset:tad: prompts\[0\] has 8 tokens and gen_length is 256: .* more than the"),
        ({"presets": ["fast-dllm-dream-dual"], "guidance": 1.0}, "presets has 'fast-dllm-dream-dual': guidance is 1.0"),
        ({"policy": None, "one_per_step": False}, "at least one decoding run"),
        ({"adapter": "nowhere"}, "adapter 'nowhere' has no adapter_config.json"),
        ({"bootstrap_samples": 10}, "bootstrap_samples must be an integer in .* got 10"),
        ({"thresholds": [], "one_per_step": False}, "at least one decoding run"),
        ({"split": "dev"}, "split must be one of train, test, got 'dev'"),
        ({"limit": 0}, "limit must be an integer in .* got 0"),
        ({"prompt": "tutor"}, "prompt must be one of student, teacher, got 'tutor'"),
        ({"best_accuracy": 0.0}, "best_accuracy must be .* got 0.0"),
        ({"gen_length": 27}, "gen_length must be a multiple of block_length"),
        ({"batch_size": 0}, "batch_size must be an integer in .* got 0"),
        ({"model": "nowhere"}, "nowhere"),
        ({"seed": 2**64}, "seed must be an integer in"),
        ({"policy": "confidence", "thresholds": [0.5, 1.2]}, r"thresholds is \[0.5, 1.2\]: policy 'confidence:1.2'"),
        ({"policy": "factor", "thresholds": None}, "thresholds is none, which has no meaning for 'factor'"),
        ({"device": "tpu9"}, "tpu9"),
    ],
)
def test_bad_settings_are_named_and_leave_nothing_behind(checkpoint, tmp_path, changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        evaluate(settings(checkpoint, tmp_path, **changes))
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("output", ["/proc/x/y", "taken/below", "taken"])
def test_the_output_is_tried_before_the_model_is_loaded(checkpoint, tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("")
    monkeypatch.setattr("tad_ext.jobs.common.ModelSettings.load", lambda _: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=f"output must be a folder that .*, got '{output}'"):
        evaluate(settings(checkpoint, tmp_path, output=output))


def test_a_response_is_written_down_while_the_next_ones_are_decoded(checkpoint, tmp_path, monkeypatch):
    """In a journal, as several processes answer at a time; responses.jsonl comes of it in the problems' order."""
    given = []

    def watched(*arguments, **options):
        for row in decode_stream(*arguments, **options):
            yield row
            given.append(row)
            deadline = time.monotonic() + 30
            while (seen := written(tmp_path / "out")) < len(given) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert seen == len(given)

    def written(folder):
        return sum(len(path.read_text().splitlines()) - 1 for path in folder.glob(".rows-*.jsonl"))

    monkeypatch.setattr("tad_ext.evaluation.measure.decode_stream", watched)
    evaluate(settings(checkpoint, tmp_path, limit=3, thresholds=[0.5]))
    assert len(given) == 6


def test_responses_are_in_the_order_of_the_problems(checkpoint, tmp_path, monkeypatch):
    ids = [problem.id for problem in ArithmeticTask().problems("test", limit=6, seed=0)]
    evaluate(settings(checkpoint, tmp_path, thresholds=[0.5], batch_size=2))
    rows = [json.loads(line) for line in (tmp_path / "out" / "responses.jsonl").read_text().splitlines()]
    assert [(row["policy"], row["id"]) for row in rows] == [
        (policy, name) for policy in ("topk:1", "entropy:0.5") for name in ids
    ]


def test_a_picture_that_cannot_be_drawn_costs_no_result(checkpoint, tmp_path, monkeypatch):
    def failing(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tad_ext.jobs.evaluate.run.plot_accuracy_curve", failing)
    with pytest.raises(OSError, match="No space left") as error:
        evaluate(settings(checkpoint, tmp_path, thresholds=[0.5], limit=2))
    assert error.value.__notes__ == [f"what this run has written is in {tmp_path / 'out'}"]
    assert len((tmp_path / "out" / "responses.jsonl").read_text().splitlines()) == 2 * 2
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["problems"] == 2


def test_an_earlier_evaluation_stands_until_the_next_is_complete(checkpoint, tmp_path, monkeypatch):
    evaluate(settings(checkpoint, tmp_path, thresholds=[], limit=1))
    output = tmp_path / "out"
    earlier = {path.name: path.read_bytes() for path in output.iterdir()}

    def stopping(*arguments, **options):
        yield from list(decode_stream(*arguments, **options))[:2]
        time.sleep(0.5)  # until they are judged
        raise KeyboardInterrupt

    with pytest.raises(ValueError, match=r"holds a finished evaluation of another command, with problems = 1; this"):
        evaluate(settings(checkpoint, tmp_path))
    assert {path.name: path.read_bytes() for path in output.iterdir()} == earlier
    with monkeypatch.context() as stopped:
        stopped.setattr("tad_ext.evaluation.measure.decode_stream", stopping)
        with pytest.raises(KeyboardInterrupt):
            evaluate(settings(checkpoint, tmp_path, overwrite=True))
    (journal,) = output.glob(".rows-*.jsonl")
    assert len(journal.read_text().splitlines()) == 1 + 2
    assert {path.name: path.read_bytes() for path in output.iterdir() if path != journal} == earlier
    evaluate(settings(checkpoint, tmp_path, overwrite=True))
    assert {path.name for path in output.iterdir()} == earlier.keys()
    assert json.loads((output / "evaluation.json").read_text())["problems"] == 6


def test_evaluation_asks_other_problems_than_collection_by_default():
    assert (EvaluateConfig(model="m", output="o").split, CollectConfig(model="m", output="o").split) == (
        "test",
        "train",
    )
