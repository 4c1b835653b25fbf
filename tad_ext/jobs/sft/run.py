"""`tad sft`: prompts, responses and a model in, a LoRA adapter and its loss curve out."""

from tad_ext.data.own_responses import read_responses
from tad_ext.data.trajectories.fits import misfits
from tad_ext.distillation.adapter_run import AdapterRun, TrainedAdapter
from tad_ext.jobs.common import held_out
from tad_ext.jobs.sft.config import SFTConfig
from tad_ext.models.loading import load_config, load_tokenizer


def sft(config: SFTConfig) -> TrainedAdapter:
    """Train a LoRA adapter on a user's own responses (`tad_ext.data.own_responses`) by the objective sft.

    What it writes, how it goes on, what it raises: see `AdapterRun`; ValueError also, naming the line, for a record
    that cannot be learnt, or does not fit the model.
    """
    run = AdapterRun(config)
    tokenizer, model_config = load_tokenizer(config.model), load_config(config.model)
    responses = read_responses(
        config.data,
        tokenizer,
        prompt_format=config.prompt_format,
        eos_token_ids=model_config.eos_token_ids or (),
        gen_length=config.gen_length,
    )
    for one in responses:
        for fault in misfits(one, model_config, prompts=("prompt_ids",)):
            raise ValueError(f"{config.data}, {one.id}: {fault}")
    notes = [f"{len(responses)} responses, on canvases of {len(responses[0].response_ids)}"]
    return run.train(responses, notes, held_out(config, responses, tokenizer, model_config))
