"""The order in which tokens were revealed: a line of trace.jsonl per prompt."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tad_ext.data.jsonl import read_jsonl
from tad_ext.decoding.result import DecodedSequence

TRACE = "trace.jsonl"


@dataclass(frozen=True)
class Trace:
    """How one canvas was filled.

    Attributes:
        index: number of the prompt, from 0.
        token_ids, token_texts: of the whole canvas.
        reveal_step: the 1-based forward that revealed each position.
        forwards: that it took.
        block_length: positions per block.
        response_length: tokens up to and including the end of the response; what stands behind it was filled in.
    """

    index: int
    token_ids: list[int]
    token_texts: list[str]
    reveal_step: list[int]
    forwards: int
    block_length: int
    response_length: int

    @classmethod
    def of(cls, sequence: DecodedSequence, block_length: int, tokenizer: Any) -> Trace:
        """Of a finished response."""
        return cls(
            index=sequence.number,
            token_ids=sequence.canvas,
            token_texts=[tokenizer.decode([token]) for token in sequence.canvas],
            reveal_step=sequence.reveal_step,
            forwards=sequence.forwards,
            block_length=block_length,
            response_length=sequence.response_length,
        )

    def to_json(self) -> dict[str, Any]:
        """Its line of trace.jsonl."""
        return dataclasses.asdict(self)


def read_traces(path: str | Path, *, argument: str = "input") -> list[Trace]:
    """The traces in a file, or in the trace.jsonl of a folder, in order of their prompts.

    Raises:
        FileNotFoundError, ValueError: no such file, or something else than traces of one canvas size in it; naming
            `argument`, file and line.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / TRACE).is_file():
            raise FileNotFoundError(f"{argument} is '{path}', a folder without {TRACE}; tad generate --trace writes it")
        path = path / TRACE
    traces = [_trace(place, sequence) for place, sequence in read_jsonl(path, argument=argument)]
    sizes = {(len(trace.reveal_step), trace.block_length) for trace in traces}
    if len(sizes) > 1:
        raise ValueError(f"{path} holds canvases of different (positions, block length), {sorted(sizes)}; expected one")
    return sorted(traces, key=lambda trace: trace.index)


def _trace(place: str, sequence: dict[str, Any]) -> Trace:
    fields = [field.name for field in dataclasses.fields(Trace)]
    foreign = ValueError(f"{place}: expected a line of {TRACE} as tad generate --trace writes it, with {fields}")
    if set(sequence) != set(fields):
        raise foreign
    for name in ("index", "forwards", "block_length", "response_length"):
        if type(sequence[name]) is not int or not (name != "index") <= sequence[name] < 2**31:
            raise foreign
    for name, kind in (("token_ids", int), ("token_texts", str), ("reveal_step", int)):
        if not isinstance(sequence[name], list) or not all(type(value) is kind for value in sequence[name]):
            raise foreign
    lengths = {len(sequence[name]) for name in ("token_ids", "token_texts", "reveal_step")}
    if len(lengths) > 1 or 0 in lengths or min(lengths) % sequence["block_length"]:
        raise foreign
    if not 1 <= min(sequence["reveal_step"]) <= max(sequence["reveal_step"]) <= sequence["forwards"]:
        raise foreign
    return Trace(**sequence)
