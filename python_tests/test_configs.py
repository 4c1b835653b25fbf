"""The YAML files that come with the package are understood by the commands they are named after."""

from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from tiny_checkpoints import write_llada

import tad_ext
from tad_ext.decoding import PRESETS
from tad_ext.jobs import jobs
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.models import LLaDAConfig, LLaDAModelLM, add_lora
from tad_ext.settings import load_yaml, options_of

FILES = sorted((Path(tad_ext.__file__).parent / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_key_is_known_and_of_the_right_type(path):
    command = path.stem.partition("-")[0]
    options = {option.name: option for option in options_of(jobs()[command].settings)}
    assert load_yaml(path, options)


def test_there_is_one_for_every_main_job():
    commands = {path.stem.partition("-")[0] for path in FILES}
    assert commands >= {"collect", "distill", "evaluate", "generate"}


def test_the_published_evaluation_decodes_as_the_preset_does():
    path = next(path for path in FILES if path.name == "evaluate.yaml")
    options = {option.name: option for option in options_of(jobs()["evaluate"].settings)}
    published = PRESETS["tad"].fields()
    settings = load_yaml(path, options)
    shared = settings.keys() & published.keys() - {"policy"}
    assert shared >= {"gen_length", "block_length", "block_add_threshold", "decoded_token_threshold"}
    assert {name: settings[name] for name in shared} == {name: published[name] for name in shared}
    assert f"{settings['policy']}:{settings['thresholds'][2]}" == str(published["policy"])


def test_the_published_recipe_is_what_distill_does_by_default():
    path = next(path for path in FILES if path.name == "distill-quality.yaml")
    options = {option.name: option for option in options_of(DistillConfig)}
    settings = load_yaml(path, options)
    assert settings.pop("dtype") == "bfloat16"
    assert settings == {name: options[name].default for name in settings}


def settings_in(name):
    options = {option.name: option for option in options_of(DistillConfig)}
    return load_yaml(next(path for path in FILES if path.name == name), options)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("distill-llada-as-run.yaml", {"target_modules": ("q_proj", "k_proj", "v_proj", "up_proj")}),
        ("distill-dream-as-run.yaml", {"delta": 6, "max_grad_norm": 1 / 8}),
    ],
)
def test_what_really_ran_differs_from_what_is_described_in_what_the_file_says(name, changes):
    assert settings_in(name) == settings_in("distill-quality.yaml") | changes


def test_half_of_the_adapter_was_trained_on_llada(tmp_path):
    """peft ignored the names that LLaDA's modules do not have, as the original checkpoint does not."""
    adapted = set(settings_in("distill-llada-as-run.yaml")["target_modules"])
    original = {name.split(".")[-2] for name in write_llada(tmp_path).weights}
    assert adapted == original & set(LLaDAModelLM.linear_names)
    sizes = {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 32, "num_attention_heads": 32}
    counts = []
    for targets in (adapted, None):
        with torch.device("meta"):
            model = add_lora(LLaDAModelLM(LLaDAConfig(**sizes)), rank=128, alpha=128.0, target_modules=targets)
        counts.append(sum(weight.numel() for weight in model.parameters() if weight.requires_grad))
    assert [round(count / 1e6) for count in counts] == [168, 336]


def test_accelerate_reads_its_file():
    found = load_config_from_file(str(FILES[0].parent / "accelerate" / "8-gpus.yaml"))
    assert (found.distributed_type, found.num_processes, found.mixed_precision) == ("MULTI_GPU", 8, "no")
    assert found.deepspeed_config == found.fsdp_config == found.megatron_lm_config == {}  # which distill refuses
