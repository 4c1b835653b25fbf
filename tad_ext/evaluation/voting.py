"""A problem decoded with several block lengths, and the answer that most of them give.

HEX (arXiv 2510.05040): models answer differently in blocks of different lengths, and what most answer is right more
often than the answers of any one length.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from tad_ext.data.tasks.task import Problem, Task
from tad_ext.decoding import DecodeConfig, DecodedSequence, decode_stream
from tad_ext.decoding.policies.base import resizes
from tad_ext.evaluation.measure import prompts_of, response_text
from tad_ext.evaluation.metrics import accuracy_percent
from tad_ext.models.base import evaluation_mode
from tad_ext.ops import token_statistics


@dataclass(frozen=True)
class Ballot:
    """What the decodes of a problem answered, by block length, and which answer is the vote's."""

    id: str  # the problem's
    answers: Mapping[int, str | None]  # as the task extracts them; None: there is none
    correct: Mapping[int, bool]  # whether the response is right
    forwards: Mapping[int, int]
    nll: Mapping[int, float]  # of a tied vote, nats per position, of the decodes that gave a tied answer
    elected: int | None  # the block length whose response stands for the vote; None: there was no answer at all

    @property
    def answer(self) -> str | None:
        """The vote."""
        return None if self.elected is None else self.answers[self.elected]

    @property
    def is_correct(self) -> bool:
        """Whether it is right."""
        return self.elected is not None and self.correct[self.elected]


@dataclass(frozen=True)
class VotedEvaluation:
    """The ballots of all problems."""

    ballots: Sequence[Ballot]

    @property
    def accuracy(self) -> float:
        """Percent of the problems whose vote is right."""
        return accuracy_percent(sum(one.is_correct for one in self.ballots), len(self.ballots))

    def accuracy_of(self, block_length: int) -> float:
        """The same of a block length alone. KeyError if it took no part."""
        return accuracy_percent(sum(one.correct[block_length] for one in self.ballots), len(self.ballots))

    @property
    def forwards(self) -> int:
        """Of all decodes, each counted while its sequence was unfinished."""
        return sum(sum(one.forwards.values()) for one in self.ballots)

    @property
    def ties(self) -> int:
        """Votes that were decided by the likelihood."""
        return sum(bool(one.nll) for one in self.ballots)


def vote(
    model: nn.Module,
    tokenizer: Any,
    task: Task,
    problems: Sequence[Problem],
    block_lengths: Sequence[int],
    decoding: DecodeConfig,
    *,
    prompt: str = "student",
    progress: bool = False,
) -> VotedEvaluation:
    """Decodes all problems once per block length, and has the answers of each problem vote.

    The answer that the task extracts most often is elected; responses without one have no vote. Of answers that are
    equally frequent, that of the response with the lowest negative log-likelihood is: the mean over its canvas of
    -log p(token), as the model says it of the prompt and an empty canvas. That is one more forward for a tied problem,
    and not among those that are counted.

    HEX, whose code has this rule for ties, and another, the first block length. It decodes 256 positions by
    `llada:steps=128` in blocks of 8, 16, 32, 64 and 128.

    Args:
        model, tokenizer, task, prompt: as for `evaluate_model`.
        problems: at least one.
        block_lengths: divisors of the canvas's length, different ones, of which the first are preferred in doubt.
        decoding: every setting but the block length.

    Raises:
        ValueError, TypeError: before any decoding: no problems, no block lengths or one named twice, one that does not
            divide the canvas; a policy that changes the canvas's length; as `decode`.
    """
    if not problems:
        raise ValueError("problems is empty; expected at least one")
    if resizes(decoding.policy):
        raise ValueError(
            f"policy {decoding.policy} changes the canvas's length: expected another one, as ties are decided by one "
            f"empty canvas"
        )
    configs = {length: replace(decoding, block_length=length) for length in block_lengths}
    if not configs or len(configs) < len(block_lengths):
        raise ValueError(f"block_lengths is {list(block_lengths)}; expected at least one, and none twice")
    prompts = prompts_of(task, problems, tokenizer, prompt)
    streams = {
        length: decode_stream(model, prompts, config, tokenizer=tokenizer, progress=progress)
        for length, config in configs.items()
    }
    decoded = {length: {one.number: one for one in stream} for length, stream in streams.items()}
    ballots = []
    for number, problem in enumerate(problems):
        found = {length: by_number[number] for length, by_number in decoded.items()}
        texts = {length: response_text(one, tokenizer, decoding) for length, one in found.items()}
        answers = {length: task.extract_answer(text) for length, text in texts.items()}
        frequent = most_frequent(answers)
        tied = len({answers[length] for length in frequent}) > 1
        nll = _nll(model, {length: found[length] for length in frequent}) if tied else {}
        ballots.append(
            Ballot(
                id=problem.id,
                answers=answers,
                correct={length: bool(task.is_correct(problem, text)) for length, text in texts.items()},
                forwards={length: one.forwards for length, one in found.items()},
                nll=nll,
                elected=min(frequent, key=lambda length: nll.get(length, 0.0), default=None),
            )
        )
    return VotedEvaluation(ballots)


def most_frequent(answers: Mapping[int, str | None]) -> list[int]:
    """The keys of the answers that no other is more frequent than, in their order; those without an answer not."""
    counts = Counter(answer for answer in answers.values() if answer is not None)
    most = max(counts.values(), default=0)
    return [key for key, answer in answers.items() if answer is not None and counts[answer] == most]


def _nll(model: Any, decoded: Mapping[int, DecodedSequence]) -> dict[int, float]:
    """Of decodes of one prompt, in one forward: the mean of -log p(token | prompt, empty canvas), in nats."""
    prompt = next(iter(decoded.values())).prompt
    canvases = torch.tensor([one.canvas for one in decoded.values()], device=model.device)
    empty = [model.config.mask_token_id] * canvases.shape[1]
    ids = torch.tensor([[*prompt, *empty]], device=model.device)
    positions = torch.arange(len(prompt), ids.shape[1], device=model.device)[None]
    with torch.inference_mode(), evaluation_mode(list(model.modules()) if isinstance(model, nn.Module) else []):
        logits = model(ids, positions=positions).logits.flatten(0, -2)
        statistics = token_statistics(logits, query_tokens=canvases.T.contiguous())
        log_probability = statistics.query_logits.float() - statistics.logsumexp[:, None]
    return dict(zip(decoded, (-log_probability.mean(dim=0)).tolist(), strict=True))
