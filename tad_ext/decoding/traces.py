"""The order in which tokens were revealed: a line of trace.jsonl per prompt."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tad_ext.data.jsonl import read_jsonl
from tad_ext.decoding.result import DecodedSequence
from tad_ext.settings import Count, Index, Settings

TRACE = "trace.jsonl"


@dataclass(frozen=True)
class Trace(Settings):
    """How one canvas was filled."""

    index: Index  # number of the prompt, from 0
    token_ids: tuple[Index, ...]  # of the whole canvas
    token_texts: tuple[str, ...]
    reveal_step: tuple[Count, ...]  # the 1-based step, which is a forward but with drafts, that revealed each position
    forwards: Count  # that it took
    block_length: Count  # positions per block
    response_length: Count  # tokens up to and including the response's end; what stands behind it was filled in
    prompt_positions: Index = 0  # of the first block, which the prompt ends in: of models with blocks of their own

    def __post_init__(self) -> None:
        super().__post_init__()
        positions = len(self.reveal_step)
        whole_blocks = positions > 0 and positions % self.block_length == 0
        if not whole_blocks or {len(self.token_ids), len(self.token_texts)} != {positions}:
            raise ValueError("token_ids, token_texts and reveal_step are not of the same whole blocks")
        if self.prompt_positions >= self.block_length:
            raise ValueError(f"prompt_positions is {self.prompt_positions}, expected fewer than block_length")

    @classmethod
    def of(cls, sequence: DecodedSequence, block_length: int, own_block: int | None, tokenizer: Any) -> "Trace":
        """Of a finished response, by a model whose own blocks, if it has any, are of `own_block` positions."""
        return cls(
            index=sequence.number,
            token_ids=tuple(sequence.canvas),
            token_texts=tuple(tokenizer.decode([token]) for token in sequence.canvas),
            reveal_step=tuple(sequence.reveal_step),
            forwards=sequence.forwards,
            block_length=block_length,
            response_length=sequence.response_length,
            prompt_positions=len(sequence.prompt) % own_block if own_block else 0,
        )


def read_traces(path: str | Path) -> list[Trace]:
    """The traces in a file, or in the trace.jsonl of a folder, in order of their prompts.

    FileNotFoundError, ValueError: there is no such file, or something else than traces of one canvas size in it.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / TRACE).is_file():
            raise FileNotFoundError(f"input is '{path}', a folder without {TRACE}; tad generate --trace writes it")
        path = path / TRACE
    traces = []
    for place, row in read_jsonl(path, argument="input"):
        try:
            traces.append(Trace(**row))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{place}: expected a line of {TRACE} as tad generate --trace writes it ({error})"
            ) from None
    sizes = {(len(trace.reveal_step), trace.block_length) for trace in traces}
    if len(sizes) > 1:
        raise ValueError(f"{path} holds canvases of different (positions, block length), {sorted(sizes)}; expected one")
    return sorted(traces, key=lambda trace: trace.index)
