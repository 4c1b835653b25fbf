"""The filter of Learn2PD: what it is trained on, its file, and the command that trains one."""

import json
import pickle

import collection_runs
import pytest
import torch
from published.canvas import Canvas, Prediction
from safetensors import safe_open
from safetensors.torch import save_file
from torch.testing import assert_close

from python_tests.decoding.conftest import MASK, RAGGED, UNUSED, MixingModel
from tad_ext.cli import main
from tad_ext.decoding import DecodeConfig, LearnedFilter, decode, parse_policy
from tad_ext.decoding.policies.base import fingerprint_of
from tad_ext.decoding.policies.learned import FilterNetwork, read_filter
from tad_ext.jobs.train_filter.run import measures
from tad_ext.jobs.train_filter.states import BlockStates, block_states
from tad_ext.models.loading import load_model

LENGTH, BLOCK = 12, 6


def oracle(model, prompt, answer):
    """Confidence, mask and rightness of the block's positions in each forward, the answer being known; a plain loop."""
    canvas = Canvas(prompt, LENGTH, MASK, ())
    for first in range(0, LENGTH, BLOCK):
        block = range(first, first + BLOCK)
        while masks := canvas.masks(first, first + BLOCK):
            said = Prediction.of(model.row_logits(canvas.ids), canvas, [UNUSED])
            right = [i for i in block if said.token[i] == answer[i]]
            yield [said.confidence[i] for i in block], [i in masks for i in block], [i in right for i in block]
            canvas.reveal({i: answer[i] for i in masks if i in right} or {i: answer[i] for i in masks}, 1)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_states_are_those_of_an_oracle(mixing_model, batch_size):
    given = []  # masks of blocks in which none is right
    for seed in (0, 3, 4):
        config = DecodeConfig(gen_length=LENGTH, block_length=BLOCK, stop_at_eos=False, batch_size=batch_size)
        answers = decode(mixing_model(seed), RAGGED, config).canvases()
        states = block_states(mixing_model(seed), RAGGED, config)
        for number, (prompt, answer) in enumerate(zip(RAGGED, answers, strict=True)):
            own = states.of(torch.tensor([number]))
            confidence, masked, right = zip(*oracle(MixingModel(seed), prompt, answer), strict=True)
            assert_close(own.confidence, torch.tensor(confidence))
            assert own.masked.tolist() == list(masked)
            assert own.right.tolist() == list(right)
            given += own.masked[~(own.masked & own.right).any(dim=1)].sum(dim=1).tolist()
    assert {1, 3} <= set(given)


def test_only_masks_are_measured():
    network = FilterNetwork(2, 1)
    torch.nn.init.eye_(network.linear1.weight)
    torch.nn.init.constant_(network.linear1.bias, -0.5)  # accepts p > 0.5 at the threshold 0.5
    states = BlockStates(
        problem=torch.tensor([0, 0, 1]),
        confidence=torch.tensor([[0.9, 0.8], [0.7, 0.1], [0.2, 0.3]]),
        masked=torch.tensor([[True, True], [False, True], [True, True]]),
        right=torch.tensor([[True, False], [True, True], [False, False]]),
    )
    found = measures(network, states, 0.5)
    assert (found["states"], found["masks"], found["right"], found["accepted"]) == (3, 5, 0.4, 0.4)
    assert (found["accuracy"], found["precision"], found["recall"]) == (0.6, 0.5, 0.5)
    assert measures(network, states, 0.99)["precision"] is None


def test_the_command(tmp_path, capsys):
    model, output = collection_runs.make_model(tmp_path / "base", seed=0), tmp_path / "filter"
    lengths = ["--gen-length", "12", "--block-length", "4"]
    options = ["--limit", "6", "--steps", "40", "--holdout", "0.3", "--device", "cpu"]
    assert main(["train-filter", "--model", model, "--output", str(output), *lengths, *options]) == 0
    printed = capsys.readouterr().out
    assert "filter of 40 weights" in printed
    assert f"--policy learn2pd:{output / 'filter.safetensors'}" in printed
    report = json.loads((output / "training.json").read_text())
    assert (report["held_out"]["problems"], report["trained_on"]["problems"]) == (2, 4)
    assert report["curve"][-1]["step"] == 40
    with safe_open(output / "filter.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["learn2pd"])["settings"] == report["settings"]

    config = DecodeConfig(gen_length=12, block_length=4, policy=f"learn2pd:{output}")
    result = decode(load_model(model, device="cpu"), [[5, 6], [7]], config)
    assert (result.reveal_step > 0).all()
    assert main(["train-filter", "--model", model, "--output", str(output), *options]) == 2
    assert "output must be a new or empty folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit", "1"], "limit is 1, and there is 1 problem: expected 2, one to hold out"),
        (["--gen-length", "200", "--block-length", "4"], "prompt"),
    ],
)
def test_the_command_refuses(tmp_path, capsys, options, message):
    model = collection_runs.make_model(tmp_path / "base", seed=0)
    assert main(["train-filter", "--model", model, "--output", str(tmp_path / "out"), "--device", "cpu", *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


WEIGHTS = FilterNetwork(4, 2).state_dict()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({**WEIGHTS, "linear1.weight": torch.ones(4, 3)}, r"weights of the wrong shape: linear1.weight \(4, 3\)"),
        ({**WEIGHTS, "linear4.bias": torch.ones(4)}, "unexpected weights: linear4.bias"),
        ({"lm_head.weight": torch.ones(2, 2)}, "missing weights: linear1.bias, linear1.weight"),
        ({**WEIGHTS, "linear2.bias": torch.tensor([0.0, torch.nan, 0, 0])}, "linear2.bias is not finite"),
    ],
)
def test_a_file_that_holds_no_filter(tmp_path, weights, message):
    save_file(weights, tmp_path / "other")
    with pytest.raises(ValueError, match=rf"policy 'learn2pd:.*{tmp_path / 'other'} holds no filter.*{message}"):
        parse_policy(f"learn2pd:{tmp_path / 'other'}")


def test_other_files(tmp_path):
    (tmp_path / "layer_2.pth").write_bytes(pickle.dumps(WEIGHTS))
    with pytest.raises(ValueError, match=r"layer_2.pth is damaged or not a safetensors file"):
        LearnedFilter(str(tmp_path / "layer_2.pth"))
    with pytest.raises(ValueError, match=f"there is no file {tmp_path / 'filter.safetensors'}"):
        LearnedFilter(str(tmp_path))
    with pytest.raises(ValueError, match=r"LearnedFilter.filter must be a path without , and =, got 'a,b'"):
        LearnedFilter("a,b")


def test_the_filter_is_of_blocks_of_one_length(tmp_path, mixing_model):
    save_file(WEIGHTS, tmp_path / "of_4")
    assert read_filter(tmp_path / "of_4").length == 4
    policy = LearnedFilter(str(tmp_path / "of_4"))
    with pytest.raises(
        ValueError, match=r"block_length is 6, and policy learn2pd:.*of_4 decodes blocks of 4: expected"
    ):
        decode(mixing_model(), [[1]], DecodeConfig(gen_length=12, block_length=6, policy=policy))


def test_a_filter_is_known_by_its_weights(tmp_path):
    """A path may come to hold another one, whose responses are others."""
    save_file(WEIGHTS, tmp_path / "one")
    first, again = (LearnedFilter(str(tmp_path / "one")) for _ in range(2))
    assert fingerprint_of(first) == fingerprint_of(again) == {"policy_fingerprint": first.fingerprint}
    save_file({name: weight + 1 for name, weight in WEIGHTS.items()}, tmp_path / "one")
    assert fingerprint_of(LearnedFilter(str(tmp_path / "one"))) != fingerprint_of(first)
    assert fingerprint_of(parse_policy("topk:1")) == {}
