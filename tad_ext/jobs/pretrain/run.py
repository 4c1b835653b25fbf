"""Train TinyDiffusionLM from scratch on the arithmetic task: the demo's base model.

The objective is LLaDA's (arXiv 2502.09992) in its supervised form: the prompt is never masked. With t
uniform in (0, 1] and every response token masked with probability t,

    L = E_t [ (1 / t) * mean over response positions i of  1[i is masked] * CE(model(masked sequence)_i, token_i) ],

an upper bound of the negative log-likelihood per token. With `causal_block_length` the model attends block-causally,
and learns each block behind finished ones (`MaskedDiffusionMixin.hidden_rows`, `clean`).
"""

import math
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from tad_ext.data.ragged import Ragged, ragged
from tad_ext.data.tasks.arithmetic import ArithmeticTask, arithmetic_tokenizer, encode, training_texts
from tad_ext.files import rescued, tried_folder
from tad_ext.jobs.pretrain.config import PretrainConfig
from tad_ext.models.device import resolve_device
from tad_ext.models.loading import save_model
from tad_ext.models.tiny import TinyDiffusionConfig, TinyDiffusionLM
from tad_ext.settings import values_of

BETAS = (0.9, 0.98)
EMBEDDING_RANGE, HEAD_RANGE = 0.5, 0.02  # standard deviations of the initial weights


def pretrain(config: PretrainConfig) -> TinyDiffusionLM:
    """Train the model; write checkpoint, tokenizer and `training.json` (settings and loss curve) to `config.output`.

    On one machine the same settings give the same weights, whatever the global random state. The folder appears
    complete or not at all.

    Raises ValueError for a setting or an output that will not do, FileExistsError for an output that is not empty, both
    before the training; OSError, which says where the checkpoint is instead, if it could not be written.
    """
    # 1. The model and its optimizer.
    device = resolve_device(config.device)
    output = tried_folder(config.output, empty=True)
    tokenizer = arithmetic_tokenizer()
    model = _new_model(config, tokenizer).to(device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=BETAS, weight_decay=config.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, config))
    random = torch.Generator().manual_seed(config.seed)

    # 2. The training.
    curve: list[dict[str, float]] = []
    losses: list[Tensor] = []  # since the last point of the curve; to read each would wait for the device at every step
    progress = tqdm(islice(_batches(config, tokenizer, random), config.steps), "pretrain", config.steps, unit="step")
    for step, batch in enumerate(progress, start=1):
        loss = diffusion_loss(model, batch.to(device))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
        if step % config.log_every == 0 or step == config.steps:
            curve.append({"step": step, "loss": float(torch.stack(losses).mean())})
            losses.clear()
            progress.set_postfix(loss=f"{curve[-1]['loss']:.3f}")
            if not math.isfinite(curve[-1]["loss"]):
                raise FloatingPointError(f"the loss became {curve[-1]['loss']} by step {step}; lower learning_rate")

    # 3. The checkpoint.
    model.eval()
    reports = {"training.json": {"settings": values_of(config), "curve": curve}}
    rescued(lambda path: save_model(model, tokenizer, path, reports=reports), output)
    tqdm.write(f"checkpoint written to {config.output} (loss {curve[-1]['loss']:.3f})")
    return model


class Batch(NamedTuple):
    """Sequences of prompt and response, with some response tokens masked: N in all."""

    sequences: Ragged  #: B of them, and the masked entries
    labels: Tensor  #: (N,) int64 the tokens that were there
    weights: Tensor  #: (N,) float32 factor of each entry's cross-entropy: 1 / (t of its sequence * B * response tokens)
    clean: Tensor | None  #: (B, L) int64 the same sequences without masks, for a model that attends block-causally

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        clean = None if self.clean is None else self.clean.to(device)
        return Batch(self.sequences.to(device), self.labels.to(device), self.weights.to(device), clean)


def diffusion_loss(model: TinyDiffusionLM, batch: Batch) -> Tensor:
    """The objective of this module on one batch: a scalar, in nats per response token."""
    logits = model(**batch.sequences._asdict(), clean=batch.clean).logits
    return (F.cross_entropy(logits.float(), batch.labels, reduction="none") * batch.weights).sum()


def make_batch(
    prompts: list[list[int]], responses: Tensor, *, mask_token_id: int, pad_token_id: int, min_mask_ratio: float,
    generator: torch.Generator, blocks: bool = False,
) -> Batch:  # fmt: skip
    """Join prompts and responses, and mask the responses.

    Args:
        responses: (B, G) int64, filled up with end-of-sequence tokens.
        min_mask_ratio: lower end of t. The B values of t are spread evenly over (0, 1] with one common random shift,
            which makes the gradient less noisy than independent ones.
        blocks: for a model that attends block-causally.
    """
    count, gen_length = responses.shape
    shift = torch.rand((), generator=generator)
    ratio = ((torch.randperm(count, generator=generator) + shift) / count).clamp(min=min_mask_ratio)[:, None]
    masked = torch.rand(count, gen_length, generator=generator) < ratio
    columns = [len(prompt) + entries.nonzero()[:, 0] for prompt, entries in zip(prompts, masked, strict=True)]

    def sequences(shown: Tensor) -> Ragged:
        texts = [prompt + response for prompt, response in zip(prompts, shown.tolist(), strict=True)]
        return ragged(texts, columns, pad_token_id)

    return Batch(
        sequences=sequences(torch.where(masked, mask_token_id, responses)),
        clean=sequences(responses).input_ids if blocks else None,
        labels=responses[masked],
        weights=(1.0 / (ratio * count * gen_length)).expand(count, gen_length)[masked],
    )


def _batches(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase, generator: torch.Generator) -> Iterator[Batch]:
    names = ("reference_share", "rare_weight", "short_share")
    texts = training_texts(config.seed, **{name: getattr(config, name) for name in names})
    gen_length = ArithmeticTask().gen_length
    while True:
        chosen = list(islice(texts, config.batch_size))
        responses = [encode(tokenizer, text.response) for text in chosen]
        yield make_batch(
            [encode(tokenizer, text.prompt) for text in chosen],
            torch.tensor([ids + [tokenizer.eos_token_id] * (gen_length - len(ids)) for ids in responses]),
            mask_token_id=tokenizer.mask_token_id,
            pad_token_id=tokenizer.pad_token_id,
            min_mask_ratio=config.min_mask_ratio,
            generator=generator,
            blocks=config.causal_block_length is not None,
        )


def _new_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> TinyDiffusionLM:
    """Fresh weights from the seed; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = TinyDiffusionLM(
            TinyDiffusionConfig(
                vocab_size=len(tokenizer),
                hidden_size=config.hidden_size,
                intermediate_size=2 * config.hidden_size,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                num_key_value_heads=config.heads,
                causal_block_length=config.causal_block_length,
                mask_token_id=tokenizer.mask_token_id,
                eos_token_ids=[tokenizer.eos_token_id],
                suppress_token_ids=[tokenizer.pad_token_id],
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        # Distinct tokens and an unopinionated start: with one common range the tables take about twice as many steps.
        torch.nn.init.normal_(model.get_input_embeddings().weight, std=EMBEDDING_RANGE)
        torch.nn.init.normal_(model.lm_head.weight, std=HEAD_RANGE)
        return model


def _rate(step: int, config: PretrainConfig) -> float:
    """Factor of the learning rate after `step` steps: a linear rise, then a cosine from 1 to 0.05."""
    rise = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    return rise * (0.525 + 0.475 * math.cos(math.pi * step / config.steps))
