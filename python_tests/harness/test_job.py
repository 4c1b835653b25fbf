"""`tad lm-eval`: the harness's results with our counts, and what is refused before the model is loaded."""

import contextlib
import functools
import importlib
import json
import sqlite3
import sys

import pytest

pytest.importorskip("lm_eval")

from forks import forks

from tad_ext import DecodeConfig, decode, load_model, load_tokenizer
from tad_ext.cli import main
from tad_ext.jobs.lm_eval import run
from tad_ext.jobs.lm_eval.config import LmEvalConfig
from tad_ext.models import hub
from tad_ext.models.lora import add_lora, save_adapter

TASKS = ("words", "choice", "perplexity")


@pytest.fixture(autouse=True)
def only_our_tasks(monkeypatch):
    """The harness's own are thousands of files, which take seconds to find."""
    monkeypatch.setattr(run, "TaskManager", functools.partial(run.TaskManager, include_defaults=False))


@pytest.fixture
def arguments(words, task_folder, tmp_path):
    """arguments(tasks=..., output=..., ...): of the command."""

    def words_of(**changes):
        given = {
            "model": words, "tasks": "words", "include-path": task_folder, "output": tmp_path / "out",
            "gen-length": 8, "block-length": 4, "policy": "entropy:1.2", "batch-size": 2, "mc-num": 8,
        }  # fmt: skip
        return [f"--{name}={value}" for name, value in (given | changes).items() if value is not None]

    return words_of


def results(folder):
    """The results file, and the samples of each task."""
    (file,) = folder.rglob("results_*.json")
    samples = {}
    for path in folder.rglob("samples_*.jsonl"):
        samples[path.name.split("_")[1]] = [json.loads(line) for line in path.read_text().splitlines()]
    return json.loads(file.read_text()), samples


def test_tasks_of_every_kind_are_answered_and_counted(arguments, words, tmp_path, capsys):
    assert main(["lm-eval", *arguments(tasks=",".join(TASKS)), "--log-samples", "--apply-chat-template"]) == 0
    found, samples = results(tmp_path / "out")
    assert set(found["results"]) == set(samples) == set(TASKS)
    assert 0 <= found["results"]["choice"]["acc,none"] <= 1
    assert found["results"]["perplexity"]["word_perplexity,none"] > 1

    # The counts are those of our own decoding.
    model, tokenizer = load_model(words, device="cpu"), load_tokenizer(words)
    prompts = [sample["arguments"]["gen_args_0"]["arg_0"] for sample in samples["words"]]
    assert prompts[0] == " one one two three"  # in the template
    config = DecodeConfig(gen_length=8, block_length=4, policy="entropy:1.2", stop_strings=("two two",))
    decoded = decode(model, [tokenizer.encode(prompt) for prompt in prompts], config, tokenizer=tokenizer)
    assert [sample["forwards"] for sample in samples["words"]] == [[one] for one in decoded.forwards.tolist()]
    assert [sample["response_tokens"] for sample in samples["words"]] == [
        [one] for one in decoded.response_lengths.tolist()
    ]
    assert "forwards" not in samples["choice"][0]
    ours = found["tad_ext"]
    assert ours["generation"] == {
        "words": {
            "responses": 5,
            "response_tokens": decoded.response_lengths.sum().item(),
            "forwards": decoded.total_forwards(),
            "tokens_per_forward": pytest.approx(decoded.mean_tokens_per_forward()),
        }
    }
    assert (ours["settings"]["policy"], ours["settings"]["mc_num"], ours["truncated_prompts"]) == ("entropy:1.2", 8, 0)
    assert len(ours["model_fingerprint"]) == 16
    assert found["n-samples"]["words"] == {"original": 5, "effective": 5}
    assert found["chat_template"] == tokenizer.chat_template
    out = capsys.readouterr().out
    assert "|words" in out
    assert f"{decoded.mean_tokens_per_forward():.2f}" in out
    assert f"written to {tmp_path / 'out'}" in out


def test_a_run_that_is_repeated_finds_its_responses_and_another_does_not(arguments, tmp_path):
    cached = {"use-cache": tmp_path / "cache", "limit": 2, "tasks": "words,choice"}
    for name, changes, decoded in (("first", {}, 2), ("again", {}, 0), ("other", {"policy": "topk:1"}, 2)):
        folder = tmp_path / name
        assert main(["lm-eval", *arguments(**cached, **changes, output=folder)]) == 0
        generation = results(folder)[0]["tad_ext"]["generation"]
        assert generation.get("words", {"responses": 0})["responses"] == decoded, name
    files = list(tmp_path.glob("cache-*.db"))
    assert len(files) == 2
    for file in files:
        with contextlib.closing(sqlite3.connect(file)) as database:
            values = [json.loads(value) for (value,) in database.execute("SELECT value FROM unnamed")]
        assert len(values) == 6  # two texts, and four answers, each with whether it is the greedy one


def test_an_adapter_of_the_hub_has_a_cache_too_which_its_settings_are_part_of(arguments, words, tmp_path, monkeypatch):
    folder = tmp_path / "adapter"
    save_adapter(add_lora(load_model(words), rank=2, alpha=2.0, target_modules=["q_proj"]), folder)
    monkeypatch.setattr(hub, "_fetched", lambda name, *_: folder)
    given = arguments(adapter="org/adapter", limit=1, **{"use-cache": tmp_path / "cache"})
    assert main(["lm-eval", *given]) == 0
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 4}))
    assert main(["lm-eval", *given]) == 0
    assert len(list(tmp_path.glob("cache-*.db"))) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": "words,wrods"}, "tasks holds 'wrods', which is neither a YAML file nor a task"),
        ({"tasks": "nowhere.yaml"}, "tasks holds 'nowhere.yaml', which is neither"),
        ({"include-path": "nowhere"}, "include_path must be a folder of YAML files, got 'nowhere'"),
        ({"mc-num": 0}, "mc_num must be an integer in [1, "),
        ({"cuda-graphs": "true"}, "cuda_graphs is True and the model is on cpu"),
        ({"gen-length": 10}, "gen_length must be a multiple of block_length"),
        ({"model": "nowhere"}, "nowhere"),
    ],
)
def test_what_is_wrong_is_told_before_the_model_is_loaded(arguments, changes, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(LmEvalConfig, "load", lambda _: pytest.fail("loaded"))
    assert main(["lm-eval", *map(str, arguments(**changes))]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_things_that_are_refused_before(arguments, words, tmp_path, monkeypatch, capsys, write_task):
    monkeypatch.setattr(LmEvalConfig, "load", lambda _: pytest.fail("loaded"))
    unsafe = "unsafe_code: true\noutput_type: generate_until\ndoc_to_text: q\ndoc_to_target: a"
    task = write_task(tmp_path, "unsafe", unsafe, [{"q": "q"}])
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "config.json").touch()
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in words.iterdir():
        if file.name != "chat_template.jinja":
            (plain / file.name).symlink_to(file)
    for given, message in (
        (arguments(tasks=task), "task 'unsafe' would run what the model has written outside the sandbox"),
        (arguments(output=tmp_path / "taken"), "a checkpoint's folder; expected another one"),
        ([*arguments(model=plain), "--apply-chat-template"], "apply_chat_template is true, and the tokenizer in"),
    ):
        assert main(["lm-eval", *given]) == 2
        assert message in capsys.readouterr().err


def test_results_that_cannot_be_written_are_an_error(arguments, tmp_path, monkeypatch, capsys):
    """The harness itself would warn, and end as if all were well."""
    from lm_eval.loggers import EvaluationTracker

    def full(tracker, results, samples):
        tracker.date_id = "today"

    monkeypatch.setattr(EvaluationTracker, "save_results_aggregated", full)
    assert main(["lm-eval", *arguments(limit=1)]) == 2
    assert f"not all results could be written to {tmp_path / 'out'}" in capsys.readouterr().err


def test_a_missing_harness_is_told(monkeypatch):
    for module in [name for name in sys.modules if name.startswith("tad_ext.evaluation.harness")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ModuleNotFoundError, match=r"not installed: pip install 'tad_ext\[lm-eval\]'"):
        importlib.import_module("tad_ext.evaluation.harness")


def one_rank(arguments):
    """In a fork."""
    run.TaskManager = functools.partial(run.TaskManager, include_defaults=False)
    sys.exit(main(["lm-eval", *arguments]))


def test_two_processes_find_what_one_does(arguments, tmp_path):
    """Five problems: one process has three of them, the other two."""
    chosen = {"tasks": ",".join(TASKS), "output": tmp_path / "one"}
    assert main(["lm-eval", *arguments(**chosen), "--log-samples"]) == 0
    given = [*arguments(**chosen | {"output": tmp_path / "two"}), "--log-samples"]
    ranks = forks().start_ranks(2, f"{__name__}:one_rank", given)
    assert forks().end(*ranks, together=True) == [0, 0]
    (one, samples), (two, shared) = results(tmp_path / "one"), results(tmp_path / "two")
    assert two["tad_ext"]["generation"] == one["tad_ext"]["generation"]
    for task, found in one["results"].items():
        numbers = {name: value for name, value in found.items() if isinstance(value, float)}
        assert {name: two["results"][task][name] for name in numbers} == pytest.approx(numbers, rel=1e-5), task
    for task, found in samples.items():
        assert sorted(sample["doc_id"] for sample in shared[task]) == [0, 1, 2, 3, 4]
        by_document = {sample["doc_id"]: sample for sample in shared[task]}
        for sample in found:
            again = by_document[sample["doc_id"]]
            if task == "words":
                assert again["resps"][0][0] == sample["resps"][0][0]
                assert again["forwards"][0] == sample["forwards"][0]
