"""`tad train-filter`: a network that says of a block's predictions, by their confidences, which are final.

The states it learns from are an oracle's (`states.py`). The objective is binary cross-entropy, its mean over masks.

Learn2PD (arXiv 2509.25188), whose code also counts revealed positions, which the filter is never asked about: they are
nearly all right, and make what it measures look better. It draws the states that it measures on from all; here they are
of problems that were held out, as those of one problem are much alike.
"""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from tad_ext.decoding import DecodeConfig
from tad_ext.decoding.inputs import SpecialTokens, causal_block_length, check_prompts
from tad_ext.decoding.policies.learned import FILTER_FILE, FilterNetwork
from tad_ext.files import atomic_folder, rescued, tried_folder, write_json
from tad_ext.jobs.train_filter.config import TrainFilterConfig
from tad_ext.jobs.train_filter.states import BlockStates, block_states
from tad_ext.models.hub import hub_note
from tad_ext.models.identity import model_fingerprint
from tad_ext.models.loading import load_config, load_tokenizer
from tad_ext.settings import values_of

REPORT = "training.json"
STATES_PER_STEP = 4096
LOG_EVERY = 100


def train_filter(config: TrainFilterConfig) -> dict[str, Any]:
    """Writes filter.safetensors, with the settings in its metadata, and training.json; returns what the latter holds.

    The folder appears complete or not at all. Raises, before the model is loaded, ValueError for settings, prompts or a
    model that will not do, FileNotFoundError for no such problem file, FileExistsError for an output that holds files;
    what `load_merged` and `decode` raise.
    """
    # 1. The problems, and whether the model takes them.
    output = tried_folder(config.output, empty=True)
    prompts, decoding = _prompts(config)

    # 2. What the model says on the way to its answers.
    states = block_states(config.load(), prompts, decoding, progress=True)
    random = torch.Generator().manual_seed(config.seed)
    order = torch.randperm(len(prompts), generator=random)
    count = min(max(round(config.holdout * len(prompts)), 1), len(prompts) - 1)
    held_out, rest = states.of(order[:count]), states.of(order[count:])

    # 3. The filter, and what it makes of the problems that were held out.
    network, curve = _trained(rest, config, random)
    measured = measures(network, held_out, config.threshold)
    report: dict[str, Any] = {
        "held_out": {"problems": count, **measured},
        "trained_on": {"problems": len(prompts) - count, "states": len(rest.problem), "masks": int(rest.masked.sum())},
        "curve": curve,
        "model_fingerprint": model_fingerprint(config.model),
        **hub_note(config.model),
        "settings": values_of(config) | {name: getattr(decoding, name) for name in ("gen_length", "block_length")},
    }
    print(_told(measured, network))
    rescued(partial(_write, network, report), output)
    print(f"written to {config.output}: --policy learn2pd:{output / FILTER_FILE}")
    return report


def measures(network: FilterNetwork, states: BlockStates, threshold: float) -> dict[str, Any]:
    """How right a filter is about masks: which of those it accepts at a threshold hold the answer's token.

    `right`: share of the masks that do; `accepted`: share that it accepts; `accuracy`: share of which it is right;
    `precision`: share of the accepted that do; `recall`: share of these that it accepts. None where there are none.
    """
    with torch.no_grad():
        accepted = (network(states.confidence).sigmoid() > threshold)[states.masked]
    right = states.right[states.masked]
    both = accepted & right
    shares = {
        "right": (right, right.numel()),
        "accepted": (accepted, right.numel()),
        "accuracy": (accepted == right, right.numel()),
        "precision": (both, int(accepted.sum())),
        "recall": (both, int(right.sum())),
    }
    found = {name: int(part.sum()) / whole if whole else None for name, (part, whole) in shares.items()}
    return {"states": len(states.problem), "masks": right.numel(), "threshold": threshold, **found}


def _prompts(config: TrainFilterConfig) -> tuple[list[list[int]], DecodeConfig]:
    """The problems as the model is to see them, and how it answers them: one token per step."""
    task, problems, lengths = config.problems(config.seed)
    if len(problems) < 2:
        raise ValueError(f"limit is {config.limit}, and there is {len(problems)} problem: expected 2, one to hold out")
    decoding = replace(config.decoding, policy="topk:1", stop_at_eos=config.stop_at_eos, **lengths)
    tokenizer = load_tokenizer(config.model)
    prompts = [task.student_prompt(problem, tokenizer) for problem in problems]
    only_configured: Any = SimpleNamespace(config=load_config(config.model))
    if causal_block_length(only_configured) is not None:
        raise ValueError("model attends block-causally: expected one that attends in both directions, as Learn2PD has")
    mask = SpecialTokens.of(only_configured, decoding).mask
    check_prompts(prompts, model=only_configured, config=decoding, mask=mask)
    return prompts, decoding


def _trained(
    states: BlockStates, config: TrainFilterConfig, random: torch.Generator
) -> tuple[FilterNetwork, list[dict[str, float]]]:
    """The network, and the loss in nats on the way; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = FilterNetwork(states.confidence.shape[1], config.layers)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate)
    count, curve = len(states.problem), []
    steps = tqdm(range(1, config.steps + 1), "training", unit="step")
    for step in steps:
        rows: Any = slice(None)
        if count > STATES_PER_STEP:
            rows = torch.randint(count, (STATES_PER_STEP,), generator=random)
        loss = _loss(network, states.confidence[rows], states.masked[rows], states.right[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % LOG_EVERY == 0 or step == config.steps:
            curve.append({"step": step, "loss": loss.item()})
            steps.set_postfix(loss=f"{curve[-1]['loss']:.3f}", refresh=False)
    return network, curve


def _loss(network: FilterNetwork, confidence: Tensor, masked: Tensor, right: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(network(confidence)[masked], right[masked].float())


def _told(measured: dict[str, Any], network: FilterNetwork) -> str:
    def percent(name: str) -> str:
        return "none" if measured[name] is None else f"{100 * measured[name]:.1f} %"

    size = sum(weight.numel() for weight in network.parameters())
    return (
        f"filter of {size:,} weights, on {measured['masks']:,} masks held out, of which {percent('right')} hold the "
        f"answer's token: accepts {percent('accepted')} at {measured['threshold']:g}; accuracy "
        f"{percent('accuracy')}, precision {percent('precision')}, recall {percent('recall')}"
    )


def _write(network: FilterNetwork, report: dict[str, Any], output: Path) -> None:
    with atomic_folder(output) as folder:
        noted = {name: report[name] for name in ("settings", "model_fingerprint", "held_out")}
        save_file(network.state_dict(), folder / FILTER_FILE, metadata={"format": "pt", "learn2pd": json.dumps(noted)})
        write_json(folder / REPORT, report)
