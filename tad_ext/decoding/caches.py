"""Cache schemes: which columns of a sequence a forward computes, while keys and values of the others are kept.

Where attention is in both directions, keys and values depend on every token. Kept ones are of an earlier canvas: a
cache changes results, except with `refresh_every=1`. Only block-causal attention has one that is exact, `BlockCache`.
A scheme sees one sequence, so results do not depend on the batch.
"""

from dataclasses import dataclass, fields
from typing import ClassVar, Protocol

from tad_ext.settings import Count, Index, Settings

from .sequence import SequenceProgress


class CacheScheme(Protocol):
    """What the decoding loop asks before every forward."""

    def window(self, sequence: SequenceProgress, blocks: int) -> tuple[int, int] | None:
        """The blocks of the canvas [first, end) to compute, 0 <= first < end <= `blocks`, those that the sequence sees.

        All blocks with eligible masks must be among them. None: the whole sequence, prompt included. A scheme may keep
        numbers for the next forward in `sequence.notes`.

        A scheme may also have columns(sequence, block_length), asked before every forward: the columns of the canvas
        [first, end) to compute instead. Masks outside of these get logits that mean nothing. None: the blocks.
        """


class NamedScheme(Settings, CacheScheme):
    """A scheme with a text form: its name and its fields, "never" for None; the name alone where that is all."""

    named_by_class = True
    name: ClassVar[str]

    def __str__(self) -> str:
        values = [getattr(self, field.name) for field in fields(self)]  # type: ignore[arg-type]
        texts = ["never" if value is None else str(value) for value in values]
        return self.name if values in ([], [None]) else f"{self.name}:{','.join(texts)}"


@dataclass(frozen=True)
class PrefixCache(NamedScheme):
    """Keeps the prompt and the finished blocks before the first unfinished one; everything from there on is computed.

    The whole sequence is computed every `refresh_every` forwards, None being never, and when the first unfinished block
    is another one than at the last time. Fast-dLLM, arXiv 2505.22618.
    """

    refresh_every: Count | None = None
    name = "prefix"

    def window(self, sequence: SequenceProgress, blocks: int) -> tuple[int, int] | None:
        """From the first unfinished block to the end."""
        return None if self._is_due(sequence, in_new_block=True) else (sequence.unfinished, blocks)

    def _is_due(self, sequence: SequenceProgress, *, in_new_block: bool = False) -> bool:
        if sequence.refreshed is None or (in_new_block and sequence.history[sequence.refreshed] != sequence.unfinished):
            return True
        return self.refresh_every is not None and sequence.forwards - sequence.refreshed >= self.refresh_every


@dataclass(frozen=True)
class DualCache(PrefixCache):
    """A `PrefixCache` that keeps the blocks behind the newest created one, too. Fast-dLLM, arXiv 2505.22618."""

    name = "dual"

    def window(self, sequence: SequenceProgress, blocks: int) -> tuple[int, int] | None:
        """From the first unfinished block to the newest."""
        return super().window(sequence, sequence.created)


@dataclass(frozen=True)
class DelayedCache(PrefixCache):
    """Keeps the prompt and each block from `delay` forwards after it, and all before it, have finished.

    Until then a finished block takes in what is revealed around it. Only `refresh_every` makes a forward compute the
    whole sequence. The scheme is this package's own; the idea of a delay is d3LLM's.
    """

    refresh_every: Count | None = 32
    delay: Index = 2
    name = "delayed"

    def window(self, sequence: SequenceProgress, blocks: int) -> tuple[int, int] | None:
        """From the first block that is not kept yet to the end."""
        before = [0] * self.delay + sequence.history + [sequence.unfinished]
        return None if self._is_due(sequence) else (before[-1 - self.delay], blocks)


@dataclass(frozen=True)
class D3LLMCache(NamedScheme):
    """Keeps the prompt and finished blocks, one after the other, each `delay` forwards after it has finished.

    While a finished block (at first the prompt) waits, forwards compute the whole sequence. The forward that ends its
    wait computes it once more, with all behind it; from then on it is kept, and the next block's wait may begin.
    Forwards whose number is a multiple of `refresh_every` compute the whole sequence, too, unless a wait ends in them.

    d3LLM's code for LLaDA, which publishes delay 2, refresh 3 for GSM8K; 1, never for MATH and MBPP; 2, 4 for
    HumanEval. Its code for Dream is not this: there a window's first column gets the logits of the one behind it.
    """

    delay: Count = 2
    refresh_every: Count | None = 3
    name = "d3llm"

    def window(self, sequence: SequenceProgress, blocks: int) -> tuple[int, int] | None:
        """From the first block that is not kept yet to the end, or the whole sequence."""
        notes, number = sequence.notes, sequence.forwards + 1
        kept = notes.get("kept", 0)  # the prompt and the canvas's blocks
        now, waits = kept, False
        while now <= sequence.unfinished and not waits:  # what comes next is finished
            since = notes.setdefault("finished", number if now else 0)
            waits = number - since < self.delay
            if not waits:
                now += 1
                del notes["finished"]
        notes["kept"] = now
        refreshes = self.refresh_every is not None and number % self.refresh_every == 0
        if kept == 0 or (now == kept and (waits or refreshes)):
            return None
        return kept - 1, blocks


@dataclass(frozen=True)
class BlockCache(NamedScheme):
    """Keeps the prompt and finished blocks, with block-causal attention: no result changes.

    What a finished block's keys and values depend on, the tokens up to its end, never changes again. They are those of
    the forward after the one that finished it, which is the next block's first.
    """

    name = "block"

    def window(self, sequence: SequenceProgress, blocks: int) -> tuple[int, int] | None:
        """From the block that was the first unfinished one before the last forward."""
        return (sequence.history[-1], blocks) if sequence.history else None


@dataclass(frozen=True)
class BlockPartsCache(BlockCache):
    """A `BlockCache` that also keeps, within the block being decoded, all but the current part, which changes results.

    A part is `part` positions. The whole block is computed while the first position of its first part with masks is a
    mask, and in the first forward that has the block's first token: until then none of the block is kept. Otherwise a
    forward computes that part alone. It has no logits for the part's first position, where the model predicts shifted
    by one, and needs none.

    Fast-dLLM v2, arXiv 2509.26328, `use_block_cache` of its code, where any row of a batch makes all compute the block.
    """

    part: Count = 8
    name = "block-parts"

    def columns(self, sequence: SequenceProgress, block_length: int) -> tuple[int, int] | None:
        """The current part, or None, for what `window` says."""
        block, place = divmod(sequence.first_mask, block_length)
        kept = sequence.notes.get("kept") == block
        if place > 0:  # the block's first token is there: this forward's keys and values, or earlier ones, are kept
            sequence.notes["kept"] = block
        if not kept or place % self.part == 0:
            return None
        first = place - place % self.part
        return block * block_length + first, block * block_length + min(first + self.part, block_length)


class PrefixCacheAtBlock(PrefixCache):
    """A `PrefixCache` whose windows begin at the block itself, even for a model that predicts shifted by one.

    Such a window has no logits for its first position, so the policy must reveal that in the block's first forward, as
    `FastDLLMDream` does. Fast-dLLM's code for Dream.
    """

    name = "prefix-at-block"
    starts_at_block = True


class DualCacheAtBlock(DualCache):
    """The same of `DualCache`."""

    name = "dual-at-block"
    starts_at_block = True


SCHEMES: dict[str, type[NamedScheme]] = {
    scheme.name: scheme
    for scheme in (
        PrefixCache,
        DualCache,
        DelayedCache,
        D3LLMCache,
        BlockCache,
        BlockPartsCache,
        PrefixCacheAtBlock,
        DualCacheAtBlock,
    )
}


def parse_cache(text: str) -> NamedScheme | None:
    """The cache scheme that a command line or a YAML file names; the inverse of `str`.

    "none" or a scheme's name; behind a colon the values of its fields in order, "never" for no refresh: "dual:8",
    "delayed:32,2", "d3llm:2,never". TypeError for no string, ValueError for an unknown name or a value out of range.
    """
    if not isinstance(text, str):
        raise TypeError(f'cache must be a string such as "dual", got {text!r}')
    if text.strip() == "none":
        return None
    expected = f"expected none, {', '.join(map(_form, SCHEMES.values()))}"
    name, _, rest = (part.strip() for part in text.partition(":"))
    if name not in SCHEMES:
        raise ValueError(f"cache {text!r}: unknown name {name!r}; {expected}")
    if rest and not fields(SCHEMES[name]):  # type: ignore[arg-type]
        raise ValueError(f"cache {text!r}: {name} has no numbers; {expected}")
    try:
        values = [None if part.strip() == "never" else int(part) for part in rest.split(",")] if rest else []
        return SCHEMES[name](*values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"cache {text!r}: {error}; {expected}") from None


def _form(scheme: type[NamedScheme]) -> str:
    """How a scheme is written: its name, and its numbers, which may be left out."""
    names = ",".join(field.name.upper() for field in fields(scheme))  # type: ignore[arg-type]
    return f"{scheme.name}[:{names}]" if names else scheme.name
