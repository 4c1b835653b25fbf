"""What `cuda_graphs` "auto" comes to: small steps, on a GPU, where the host does nothing but launch."""

from dataclasses import dataclass, replace

import pytest
import torch
from policy_cases import EVERY_POLICY, OF_ONE_LENGTH

from python_tests.decoding.conftest import random_transformer
from tad_ext.decoding import DecodeConfig, TopK, decode, inputs, parse_policy
from tad_ext.decoding.cuda_graphs import MOST_COLUMNS, most_recorded
from tad_ext.models.lora import add_lora
from tad_ext.ops import backend_info
from tad_ext.settings import MAX_COUNT

CONFIG = DecodeConfig(gen_length=8, block_length=4)
compiled = pytest.mark.skipif(not backend_info()["compiled"], reason="the reference operators look at values")


@pytest.fixture
def model():
    return random_transformer("llada", 1, "cpu")


@pytest.fixture
def gpu(monkeypatch):
    """A CPU that passes for one."""
    monkeypatch.setattr(inputs, "GRAPH_DEVICES", ("cpu",))


def left_to_right(statistics, state):
    return -state.positions.float(), torch.zeros_like(state.eligible)


@compiled
@pytest.mark.parametrize("text", EVERY_POLICY)
def test_built_in_policies_are_recorded(gpu, model, text):
    expected = MOST_COLUMNS if text in OF_ONE_LENGTH else 0
    assert most_recorded(model, replace(CONFIG, policy=parse_policy(text))) == expected


def test_policies_of_ones_own_are_recorded_if_asked_for(gpu, model, registry):
    @dataclass(frozen=True)
    class MyTopK(TopK, name="my-topk", rule="of a test", source="a test"):
        """A user's, though it is made of one of ours."""

    for policy in (left_to_right, MyTopK(1)):
        assert most_recorded(model, replace(CONFIG, policy=policy)) == 0
        assert most_recorded(model, replace(CONFIG, policy=policy, cuda_graphs=True)) == MAX_COUNT


def test_off_is_off(gpu, model):
    assert most_recorded(model, replace(CONFIG, cuda_graphs=False)) == 0


def test_a_cpu_has_no_graphs(model, mixing_model):
    assert CONFIG.cuda_graphs == "auto"
    assert most_recorded(model, CONFIG) == 0
    decode(model, [[1]], CONFIG)
    cpu_model = mixing_model()
    cpu_model.device = torch.device("cpu")
    for each in (model, cpu_model):
        with pytest.raises(ValueError, match="cuda_graphs is True and the model is on cpu"):
            decode(each, [[1]], replace(CONFIG, cuda_graphs=True))


@compiled
def test_an_adapter_is_recorded(gpu, model):
    adapted = add_lora(model, rank=2, alpha=4, target_modules=["q_proj"])
    assert most_recorded(adapted, CONFIG) == MOST_COLUMNS


def hooked(model):
    model.model.layers[1].register_forward_hook(lambda *_: None)


def hooked_before(model):
    model.lm_head.register_forward_pre_hook(lambda *_: None)


def wrapped(model):
    """As accelerate does it, where a model does not fit on one device."""
    layer = model.model.layers[0]
    layer.forward = layer.forward


def on_two_devices(model):
    model.lm_head.to("meta")


@compiled
@pytest.mark.parametrize("changed", [hooked, hooked_before, wrapped, on_two_devices])
def test_a_model_that_does_more_than_launch_is_not_recorded(gpu, model, changed):
    assert most_recorded(model, CONFIG) == MOST_COLUMNS
    changed(model)
    assert most_recorded(model, CONFIG) == 0


@compiled
def test_nor_is_one_in_autocast_or_with_operators_that_look_at_values(gpu, model, monkeypatch):
    with torch.autocast("cpu", torch.bfloat16):
        assert most_recorded(model, CONFIG) == 0
    assert most_recorded(model, CONFIG) == MOST_COLUMNS
    monkeypatch.setenv("TAD_EXT_DEBUG", "1")
    assert most_recorded(model, CONFIG) == 0


def test_nor_is_a_model_that_is_not_this_packages(gpu, mixing_model):
    assert most_recorded(mixing_model(), CONFIG) == 0
