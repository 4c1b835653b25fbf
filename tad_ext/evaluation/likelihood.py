"""The log-likelihood of an answer under a masked diffusion model, which has no factor per token to multiply.

For a prompt p and an answer r of L tokens, let t be uniform on 1 .. L, and r_t the answer with t of its tokens masked,
every choice of them as likely as any other. Then (Nie et al., arXiv 2502.09992, the lower-variance form of its bound)

    log P(r | p)  >=  E over t and r_t of  (L / t) * sum over the masked i of log p(r[i] | p, r_t).

The expectation is a mean over drawn masks, or, where there are no more masks than would be drawn, the sum over all.
Of a model that attends block-causally the blocks before r[i]'s stand finished in r_t: masks of the whole answer order
each block's tokens at random, as those of a block alone would, so it is the sum of the blocks' bounds.
"""

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tad_ext.data.ragged import Ragged, ragged
from tad_ext.decoding import DecodeConfig, TopK, decode
from tad_ext.models.base import evaluation_mode
from tad_ext.ops import token_statistics
from tad_ext.settings import Between, Kind, kinds_of

_ROWS = 1024  # of logits at a time: 0.5 GB in float32 at LLaDA's vocabulary

Ids = list[int]
Pair = tuple[Sequence[int], Sequence[int]]  # token ids of a prompt and of an answer to it


class _Masked(NamedTuple):
    """An answer with some of its tokens masked."""

    pair: int  # which
    columns: tuple[int, ...]  # of the answer, ascending
    weight: float  # of the sum of its log-probabilities


def log_likelihoods(
    model: Any,
    pairs: Sequence[Pair],
    *,
    mc_num: int = 128,
    seed: int = 0,
    batch_size: int = 32,
    guidance: float = 0.0,
) -> Iterator[tuple[int, float]]:
    """The number of each pair and its log-likelihood in nats, as each is finished; longest first.

    The masks of a pair depend on `seed` and its tokens alone: not on the batch size nor on the other pairs, and neither
    does the result, up to the rounding of the model's own arithmetic.

    Args:
        model: a `MaskedDiffusionMixin`, which is put in evaluation mode while it is used.
        pairs: prompt and answer, which may be empty (its log-likelihood is 0), without mask tokens; together no longer
            than the model's positions.
        mc_num: masks drawn for an answer. Their counts t are spread evenly over 1 .. L from a random start, each one
            uniform, as published within a batch. An answer with no more than so many masks, 2^L - 1, gets all.
        seed: of the masks.
        batch_size: masked sequences in a forward.
        guidance: as `DecodeConfig.guidance`.

    Raises:
        ValueError, TypeError: before any work, naming the argument: a wrong setting, a pair that is too long, ids
            outside the vocabulary or of the mask.
    """
    mc_num = Kind(int, Between(1)).checked("mc_num", mc_num)
    kinds = kinds_of(DecodeConfig)
    seed, batch_size = kinds["seed"].checked("seed", seed), kinds["batch_size"].checked("batch_size", batch_size)
    guidance = kinds["guidance"].checked("guidance", guidance)
    _check_pairs(model, pairs)
    return _estimates(model, pairs, mc_num, seed, batch_size, guidance)


def are_greedy(model: Any, pairs: Sequence[Pair], *, batch_size: int = 32, guidance: float = 0.0) -> list[bool]:
    """Whether each answer is what the model writes in its place, one token per forward, the most confident first.

    As published for LLaDA: the canvas has the answer's length.

    Raises:
        ValueError, TypeError: as `log_likelihoods`, and for an answer to an empty prompt, which `decode` does not take.
    """
    _check_pairs(model, pairs)
    own = getattr(model.config, "causal_block_length", None)
    if own is not None:
        raise ValueError(
            f"model attends to blocks of {own}, and what it writes in an answer's place is not found out here: "
            f"expected a model that attends to all, or no check of greediness"
        )
    for number, (prompt, answer) in enumerate(pairs):
        if len(answer) and not len(prompt):
            raise ValueError(f"pairs[{number}] has an empty prompt: expected at least one token before the answer")
    length = max((len(answer) for _, answer in pairs), default=0)
    asked = [number for number, (_, answer) in enumerate(pairs) if len(answer)]
    greedy = [True] * len(pairs)
    if asked:
        config = DecodeConfig(
            gen_length=length, block_length=length, policy=TopK(1), infill=True, stop_at_eos=False,
            batch_size=batch_size, guidance=guidance,
        )  # fmt: skip
        mask = int(model.config.mask_token_id)
        prompts = [[*pairs[number][0], *[mask] * len(pairs[number][1])] for number in asked]
        for number, canvas in zip(asked, decode(model, prompts, config).canvases(), strict=True):
            greedy[number] = list(pairs[number][1]) == canvas
    return greedy


def _check_pairs(model: Any, pairs: Sequence[Pair]) -> None:
    longest, vocabulary = model.config.max_position_embeddings, model.config.vocab_size
    for number, (prompt, answer) in enumerate(pairs):
        if len(prompt) + len(answer) > longest:
            raise ValueError(
                f"pairs[{number}] has {len(prompt)} + {len(answer)} tokens, more than the model's "
                f"max_position_embeddings of {longest}"
            )
        for token in map(int, itertools.chain(prompt, answer)):
            if token == model.config.mask_token_id or not 0 <= token < vocabulary:
                raise ValueError(
                    f"pairs[{number}] contains {token}: expected ids in [0, {vocabulary}), the vocabulary, but for "
                    f"{model.config.mask_token_id}, the mask"
                )


def _estimates(
    model: Any, pairs: Sequence[Pair], mc_num: int, seed: int, batch_size: int, guidance: float
) -> Iterator[tuple[int, float]]:
    order = sorted(range(len(pairs)), key=lambda number: -len(pairs[number][0]) - len(pairs[number][1]))
    sequences = (one for number in order for one in _masked(number, pairs[number], mc_num, seed))
    sums, modules = [0.0] * len(pairs), list(model.modules())
    finished = 0  # of `order`; the sequences come in it, too
    while batch := list(itertools.islice(sequences, batch_size)):
        with torch.inference_mode(), evaluation_mode(modules):
            found = iter(_log_probabilities(model, pairs, batch, guidance).tolist())
        for one in batch:
            while order[finished] != one.pair:
                yield order[finished], sums[order[finished]]
                finished += 1
            sums[one.pair] += one.weight * math.fsum(itertools.islice(found, len(one.columns)))
    yield from ((number, sums[number]) for number in order[finished:])


def _masked(number: int, pair: Pair, mc_num: int, seed: int) -> Iterator[_Masked]:
    """The masked answers of a pair, each once, with weights whose expectation makes the bound's."""
    length = len(pair[1])
    if 2**length - 1 <= mc_num:
        for count in range(1, length + 1):
            weight = 1 / (count * math.comb(length, count))  # (1 / L) / (L over t) * (L / t)
            for columns in itertools.combinations(range(length), count):
                yield _Masked(number, columns, weight)
        return
    text = repr((list(map(int, pair[0])), list(map(int, pair[1])))).encode()
    generator = np.random.default_rng([seed, *hashlib.sha256(text).digest()])
    start = int(generator.integers(length))
    weights: dict[tuple[int, ...], float] = {}
    for draw in range(mc_num):
        count = 1 + (start + draw * length // mc_num) % length
        columns = tuple(sorted(generator.permutation(length)[:count].tolist()))
        weights[columns] = weights.get(columns, 0.0) + length / count / mc_num
    for columns, weight in weights.items():
        yield _Masked(number, columns, weight)


def _log_probabilities(model: Any, pairs: Sequence[Pair], batch: Sequence[_Masked], guidance: float) -> Tensor:
    """(N,) float32 on the CPU, nats: of the masked tokens of all sequences, one after the other."""
    mask = int(model.config.mask_token_id)
    prompts, finished, answers, columns, tokens = [], [], [], [], []
    for one in batch:
        prompt, answer = (list(map(int, part)) for part in pairs[one.pair])
        prompts.append(prompt)
        finished.append(answer)
        answers.append([mask if column in one.columns else token for column, token in enumerate(answer)])
        tokens += [answer[column] for column in one.columns]
        columns.append([len(prompt) + column for column in one.columns])
    # Logits are made of the masked tokens' states alone, and of so many at a time.
    states = _states(model, prompts, answers, finished, columns).split(_ROWS)
    unprompted = states
    if guidance:
        hidden = [[mask] * len(prompt) for prompt in prompts]
        unprompted = _states(model, hidden, answers, finished, columns).split(_ROWS)
    labels = torch.tensor(tokens, device=model.device).split(_ROWS)
    found = []
    for own, other, label in zip(states, unprompted, labels, strict=True):
        logits = model.lm_head(own)
        if guidance:
            base = model.lm_head(other)
            logits = base + (guidance + 1) * (logits - base)
        statistics = token_statistics(logits, query_tokens=label[:, None])
        found.append(statistics.query_logits[:, 0].float() - statistics.logsumexp)
    return torch.cat(found).cpu()


def _states(
    model: Any, prompts: Sequence[Ids], answers: Sequence[Ids], finished: Sequence[Ids], columns: Sequence[Ids]
) -> Tensor:
    def together(those: Sequence[Ids]) -> Ragged:
        return ragged([prompt + one for prompt, one in zip(prompts, those, strict=True)], columns).to(model.device)

    behind = {} if model.config.causal_block_length is None else {"clean": together(finished).input_ids}
    return model.hidden_rows(**together(answers)._asdict(), **behind)
