"""From the original problem file to a distilled checkpoint under its original names, by the commands a user types.

The models are tiny and random, with the architectures, key names and tokenizers of LLaDA and Dream, so their answers
are wrong: every trajectory is kept instead of the right ones. At the end: the answers of MATH in other spellings.
"""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny_checkpoints
import torch
from problem_files import gsm8k_train, original
from safetensors.torch import load_file

from tad_ext.cli import main
from tad_ext.data.answers.math_answers import extract_math_answer, same_math_answer
from tad_ext.data.jsonl import read_jsonl
from tad_ext.data.tasks.gsm8k import Gsm8kTask
from tad_ext.data.trajectories.files import read_trajectories
from tad_ext.decoding import DecodeConfig, decode
from tad_ext.jobs.collect import run as collection
from tad_ext.models.loading import load_model, load_tokenizer

LIMIT, GEN_LENGTH, BLOCK_LENGTH = 3, 16, 8
CANVAS = ["--gen-length", str(GEN_LENGTH), "--block-length", str(BLOCK_LENGTH), "--device", "cpu"]
# What the original configurations call the sizes and special tokens.
FIELDS = {
    "llada": "model_type architectures d_model n_heads n_kv_heads n_layers mlp_hidden_size embedding_size vocab_size "
    "max_sequence_length rope_theta rms_norm_eps mask_token_id",
    "dream": "model_type architectures hidden_size num_attention_heads num_key_value_heads num_hidden_layers "
    "intermediate_size vocab_size max_position_embeddings rope_theta mask_token_id",
}


@dataclass(frozen=True)
class Chain:
    """What a run of the whole chain left behind."""

    shape: str
    teacher_prompt: str
    checkpoint: tiny_checkpoints.TinyCheckpoint
    data: Path
    folder: Path

    def tad(self, *arguments: str | Path) -> int:
        """Runs a command."""
        return main([str(argument) for argument in arguments])

    def collect(self, output: Path, *, data: Path | None = None) -> int:
        """`tad collect` of the first problems, wrong answers included."""
        source = ["--model", self.checkpoint.folder, "--task", "gsm8k", "--data", data or self.data]
        shown = ["--teacher-prompt", self.teacher_prompt, "--keep", "all"]
        return self.tad("collect", *source, *shown, "--limit", str(LIMIT), *CANVAS, "--output", output)

    def distill(self, output: Path, *options: str) -> int:
        """A few steps of `tad distill`."""
        source = ["--model", self.checkpoint.folder, "--trajectories", self.folder / "trajectories"]
        small = ["--rank", "2", "--alpha", "8", "--learning-rate", "0.02", "--max-steps", "3", "--delta", "4"]
        return self.tad("distill", *source, *small, "--device", "cpu", "--output", output, *options)


@pytest.fixture(scope="module", params=[("llada", "user"), ("dream", "system")], ids=lambda param: param[0])
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    shape, teacher_prompt = request.param
    folder, data = tmp_path_factory.mktemp(shape), gsm8k_train()
    write = {"llada": tiny_checkpoints.write_llada, "dream": tiny_checkpoints.write_dream}[shape]
    texts = [f"{problem.question} {problem.reference}" for problem in Gsm8kTask(str(data)).problems("train", limit=50)]
    chain = Chain(shape, teacher_prompt, write(folder / "base", texts=texts), data, folder)
    assert chain.collect(folder / "trajectories") == 0
    assert chain.distill(folder / "distill", "--keep", "all") == 0
    adapter = folder / "distill" / "adapter"
    merge = ["--model", chain.checkpoint.folder, "--adapter", adapter, "--output", folder / "merged"]
    assert chain.tad("merge", *merge) == 0
    return chain


def test_the_trajectories(chain: Chain) -> None:
    (metadata,), rows = read_trajectories(chain.folder / "trajectories")
    task = Gsm8kTask(str(chain.data), teacher_prompt_form=chain.teacher_prompt)
    problems, tokenizer = task.problems("train", limit=LIMIT), load_tokenizer(chain.checkpoint.folder)
    assert [row.id for row in rows] == [problem.id for problem in problems]
    assert (metadata.task, metadata.gen_length, metadata.policy) == ("gsm8k", GEN_LENGTH, "topk:1")
    assert metadata.mask_token_id == chain.checkpoint.config["mask_token_id"]
    for row, problem in zip(rows, problems, strict=True):
        student, teacher = tokenizer.decode(row.prompt_ids), tokenizer.decode(row.teacher_prompt_ids)
        assert problem.question in student
        assert problem.question in teacher
        assert row.reference == problem.reference
        assert row.reference in teacher
        assert row.reference not in student
        assert "####" not in student
        assert row.num_steps == GEN_LENGTH
        assert not row.correct
        assert metadata.mask_token_id not in row.response_ids
    (file,) = (chain.folder / "trajectories").iterdir()
    assert pq.read_table(file)["correct"].to_pylist() == [False] * LIMIT


def test_the_teacher_decoded_its_own_prompt(chain: Chain) -> None:
    _, rows = read_trajectories(chain.folder / "trajectories")
    model = load_model(chain.checkpoint.folder, device="cpu")
    settings = DecodeConfig(GEN_LENGTH, BLOCK_LENGTH, stop_at_eos=False)
    result = decode(model, [row.teacher_prompt_ids.tolist() for row in rows], settings)
    assert result.canvases() == [row.response_ids.tolist() for row in rows]


def test_collection_goes_on_after_the_problem_file_has_moved(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(collection, "load_model", None)  # nothing is left to decode
    moved = Path(shutil.copy(chain.data, tmp_path / "moved and renamed.jsonl"))
    assert chain.collect(chain.folder / "trajectories", data=moved) == 0
    assert f"{LIMIT} answers are there already" in capsys.readouterr().out
    changed = tmp_path / "changed.jsonl"
    changed.write_text(moved.read_text(encoding="utf-8").replace('"answer": "', '"answer": "Look: '), encoding="utf-8")
    assert chain.collect(chain.folder / "trajectories", data=changed) == 2
    assert "was collected from other problems or prompts" in capsys.readouterr().err


def test_only_right_answers_are_trained_on_by_default(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chain.distill(tmp_path / "out") == 2
    assert "hold no trajectory with a correct answer" in capsys.readouterr().err


def test_the_merged_checkpoint_has_the_original_names(chain: Chain) -> None:
    base, merged = chain.checkpoint.weights, load_file(chain.folder / "merged" / "model.safetensors")
    assert {name: weight.shape for name, weight in merged.items()} == {
        name: weight.shape for name, weight in base.items()
    }
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    projections = {name for name, weight in base.items() if weight.ndim == 2 and ("blocks" in name or "layers" in name)}
    assert changed == projections
    assert len(changed) == 7 * 2
    config = json.loads((chain.folder / "merged" / "config.json").read_text())
    for name in FIELDS[chain.shape].split():
        assert config.get(name) == chain.checkpoint.config[name], name


def test_the_merged_checkpoint_decodes(chain: Chain, tmp_path: Path) -> None:
    question = ["--prompt", "How many apples are 2 + 3 apples?", *CANVAS, "--policy", "topk:2"]
    answers = {}
    for name, model in {
        "merged": ["--model", chain.folder / "merged"],
        "adapter": ["--model", chain.checkpoint.folder, "--adapter", chain.folder / "distill" / "adapter"],
        "base": ["--model", chain.checkpoint.folder],
    }.items():
        assert chain.tad("generate", *model, *question, "--output", tmp_path / name) == 0
        ((_, answers[name]),) = read_jsonl(tmp_path / name / "generations.jsonl", argument="output")
    assert answers["merged"] == answers["adapter"]
    assert answers["merged"]["response"] != answers["base"]["response"]


@pytest.mark.parametrize("prompt", ["student", "teacher"])
def test_the_merged_checkpoint_is_evaluated(chain: Chain, tmp_path: Path, prompt: str) -> None:
    asked = ["--task", "gsm8k", "--data", chain.data, "--limit", "2", "--thresholds", "0.5", "--prompt", prompt]
    model = ["--model", chain.folder / "merged"]
    assert chain.tad("evaluate", *model, *asked, *CANVAS, "--output", tmp_path / "out") == 0
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (report["task"], report["problems"]) == ("gsm8k", 2)
    assert [point["policy"] for point in report["points"]] == ["topk:1", "entropy:0.5"]
    ids = {response["id"] for _, response in read_jsonl(tmp_path / "out" / "responses.jsonl", argument="output")}
    assert ids == {problem.id for problem in Gsm8kTask(str(chain.data)).problems("test", limit=2)}


@pytest.mark.parametrize("adapted", [False, True])
def test_the_window_of_the_base_model_and_of_the_adapted_one(chain: Chain, tmp_path: Path, adapted: bool) -> None:
    adapter = ["--adapter", chain.folder / "distill" / "adapter"] if adapted else []
    source = ["--model", chain.checkpoint.folder, *adapter, "--trajectories", chain.folder / "trajectories"]
    assert chain.tad("window", *source, "--keep", "all", "--device", "cpu", "--output", tmp_path / "out") == 0
    report = json.loads((tmp_path / "out" / "window.json").read_text())
    assert report["problems"] == LIMIT
    assert set(report["distances"]) <= set(range(1, GEN_LENGTH + 1))


def test_bad_problem_files_are_refused_before_the_model_is_loaded(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("the model was loaded")

    for name in ("tad_ext.jobs.collect.run.load_model", "tad_ext.jobs.common.ModelSettings.load"):
        monkeypatch.setattr(name, refuse)
    broken, empty = tmp_path / "broken.jsonl", tmp_path / "empty.jsonl"
    broken.write_text('{"question": "q", "answer": "a\\n#### 1"}\n{"question": "r"}\n')
    empty.write_text("")
    refused: list[tuple[list[Any], str]] = [
        (["--task", "gsm8k"], "task 'gsm8k' needs data"),
        (["--task", "gsm8k", "--data", tmp_path / "none.jsonl"], "none.jsonl', which is not a file"),
        (["--task", "gsm8k", "--data", empty], "empty.jsonl', which is empty"),
        (["--task", "gsm8k", "--data", broken], "broken.jsonl, line 2: 'answer' must be a text"),
        (["--task", "arithmetic", "--data", chain.data], "task 'arithmetic' has no option 'data'"),
    ]
    for arguments, message in refused:
        for command in ("collect", "evaluate"):
            model = ["--model", chain.checkpoint.folder, *CANVAS, "--output", tmp_path / "out"]
            assert chain.tad(command, *model, *arguments) == 2
            error = capsys.readouterr().err
            assert message in error
            assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def math_answers() -> list[str]:
    """The right answers of 5,000 problems of MATH."""
    pytest.importorskip("math_verify", reason="needs math-verify, which the extra 'math' installs")
    return [row["answer"] for _, row in read_jsonl(str(original("math_problems.jsonl")), argument="data")]


@pytest.mark.parametrize(
    "response", [r"As $x > 2$, it is $\boxed{%s}$. So $7$.", "Since $2$:\n#### %s", r"Thus \(%s\)."]
)
def test_right_answers_of_math_are_found_and_accepted(math_answers: list[str], response: str) -> None:
    for answer in (" ".join(answer.split()) for answer in math_answers):
        found = extract_math_answer(response % answer)
        assert found is not None, answer
        assert same_math_answer(answer, found), (answer, found)


RESPELLED: dict[str, Callable[[str], str]] = {
    "fractions": lambda answer: re.sub(
        r"\\[dt]?frac\b", r"\\cfrac", re.sub(r"frac\{(.)\}\{(.)\}", r"frac\1\2", answer)
    ),
    "spaces": lambda answer: re.sub(r"([-+=()\[\]])", r" \1\\, ", answer),
    "brackets": lambda answer: answer.replace(r"\left", "").replace(r"\right", ""),
    "full stop": lambda answer: f"${answer}$.",
    "no unit": lambda answer: re.sub(r"(?<=\S)\s*\\(text|mbox) ?\{(?! ?and| ?a.m)[^{}]*\}(\^\d)?$", "", answer),
    "a unit": lambda answer: answer + r"\text{ units}" if re.fullmatch(r"[-0-9.]+", answer) else answer,
    "a name": lambda answer: f"x = {answer}" if re.fullmatch(r"[^=<A-Za-z]*(\\[a-z]*frac[^=]*)?", answer) else answer,
    "minus": lambda answer: answer.replace("-", "\N{MINUS SIGN}"),
}


@pytest.mark.parametrize("respell", RESPELLED.values(), ids=RESPELLED)
def test_right_answers_of_math_in_another_spelling(math_answers: list[str], respell: Callable[[str], str]) -> None:
    changed = [answer for answer in math_answers if respell(answer) != answer]
    assert len(changed) > 10
    assert [answer for answer in changed if not same_math_answer(answer, respell(answer))] == []


@pytest.mark.slow
def test_the_next_problem_of_math_has_another_answer(math_answers: list[str]) -> None:
    neighbours = [pair for pair in pairwise(math_answers) if pair[0] != pair[1]]
    same = [pair for pair in neighbours if same_math_answer(*pair)]
    assert same == [(r"144 \mbox{ m}^3", r"144^\circ")]  # units are left out
