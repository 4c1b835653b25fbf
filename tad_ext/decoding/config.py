"""How to decode: the settings of one `decode` call, and the decoding options of every command that decodes."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from tad_ext.settings import (
    Between,
    Count,
    ForcedProgress,
    Index,
    Matching,
    NonNegative,
    Probability,
    Read,
    Seed,
    Settings,
    Switch,
    setting,
)

Text = Annotated[str, Matching(r"(?s).+", "text of at least one character")]
StopWhen = Literal["revealed", "reached", "block"]
PolicyText = Annotated[Any, Read("tad_ext.decoding.policies:parse_policy")]
CacheText = Annotated[Any, Read("tad_ext.decoding.caches:parse_cache")]


def whole_blocks(positions: int, block_length: int) -> int:
    """Positions of the fewest blocks that so many take up."""
    return -(-positions // block_length) * block_length


@dataclass(frozen=True)
class DecodeConfig(Settings):
    """Settings of `decode`. A wrong one is a TypeError or ValueError that names it, its value and what was expected.

    The canvas has `gen_length` positions, all masked at first; or up to so many, where the policy changes its length.
    `tad_ext.commit_reveal` says when blocks of `block_length` are created and fully active, and what `forced_progress`
    reveals. With both thresholds at 1.0 this is block-by-block decoding.

    Prompt number i samples with the seed `seed + i`, whatever its batch is. Policies see confidences at temperature 1,
    of the whole vocabulary. With `guidance` w, logits are u + (w + 1) * (c - u), with c as they are and u with the
    prompt masked; a step is two forwards of the model then, counted as one.
    """

    gen_length: Count = setting(
        256,
        help="positions to generate, a multiple of block_length; infilling: at most so many from the first mask on; at "
        "most so many as well with a policy that chooses their number",
    )
    block_length: Count = setting(32, help="positions per block")
    policy: PolicyText = setting(
        "topk:1", help="unmasking policy, such as topk:1, confidence:0.9 or entropy:0.5; tad policies lists them"
    )
    block_add_threshold: Probability = setting(
        1.0, help="revealed share of the newest block at which the next one is added; 1: one block at a time"
    )
    decoded_token_threshold: Probability = setting(
        1.0,
        help="revealed share of a block from which the next one is fully active; matters to forced_progress blocks",
    )
    forced_progress: ForcedProgress = setting(
        "row",
        help="what a forward reveals though the policy did not: row (TAD: the row's best, and the first block's), "
        "block (the first block's best) or blocks (D2F: the best of each active block)",
    )
    stop_at_eos: bool = setting(
        True,
        help="once an end-of-sequence token is revealed, all behind it becomes that token, and the response is "
        "finished as soon as no mask stands before it; false: it is a token like any other",
    )
    stop_when: StopWhen = setting(
        "revealed",
        help="when stop_at_eos ends a response: revealed: at once, as said there; reached: when no mask stands before "
        "the token, which is one like any other until then; block: when the token's block is finished, as always with "
        "a policy that changes tokens",
    )
    eos_token_ids: tuple[Index, ...] | None = setting(
        None, help="ids of the end-of-sequence tokens; none: the model's own"
    )
    stop_strings: tuple[Text, ...] = setting(
        (), help="texts that end a response, which is cut before them; special tokens have no text", commas=True
    )
    infill: bool = setting(
        False,
        help="reveal the masks that prompts contain: the canvas is a prompt's part from its first mask on; together "
        "with --no-stop-at-eos",
    )
    min_length: Index = setting(
        0, help="no end-of-sequence token is chosen, nor counted, for the first so many positions"
    )
    temperature: NonNegative = setting(0.0, help="sampling temperature; 0: greedy")
    top_k: Count | None = setting(None, help="sample from the so many most probable tokens; none: from all")
    top_p: Annotated[float, Between(above=0, at_most=1)] = setting(
        1.0, help="sample from the fewest tokens that together have this probability (at the temperature)"
    )
    seed: Seed = setting(0, help="of sampling; prompt number i samples with seed + i")
    drafts: Count = setting(
        1,
        help="canvases of a prompt that a forward computes: its own, and guesses of its next steps, which count as far "
        "as they come true (FreeDave): fewer forwards, and no result changes; with a policy such as topk:1 or entropy",
    )
    branches: Count = setting(
        1,
        help="canvases of a prompt that a forward computes: its own, and copies with one more mask revealed, of those "
        "that it was most certain of; the one whose masks are the most certain goes on (LoPA): fewer forwards, and "
        "results change; with a policy such as lopa, topk:1 or entropy",
    )
    guidance: NonNegative = setting(0.0, help="scale of classifier-free guidance, two passes per forward; 0: off")
    cache: CacheText = setting(
        "none",
        help="keys and values kept between forwards, which is faster and changes results: none, prefix, dual, delayed "
        "(each also with the forwards between refreshes, dual:8) or d3llm:DELAY,REFRESH; with block-causal attention "
        "block, which changes none, or block-parts:PART, with the policy fast-dllm-v2",
    )
    hide_future_blocks: bool = setting(
        False, help="leave blocks that are not created yet out of the forward: faster, and results change"
    )
    block_causal: bool = setting(
        False,
        help="a block sees the prompt, itself and earlier blocks only: for students of D2F; models that were made so "
        "do it of their own",
    )
    cuda_graphs: Switch = setting(
        "auto",
        help="record steps as CUDA graphs and replay them; auto: small steps, on a GPU, with a policy of tad_ext's; a "
        "policy of your own must not wait for the host",
    )
    sync_every: Count = setting(
        1,
        help="forwards between two looks of the host at the sequences, when finished ones leave; more spares a GPU the "
        "waiting, and no result changes; 1 with a cache, stop strings, drafts or branches",
    )
    batch_size: Count = setting(32, help="prompts decoded at a time; one that finishes makes room for the next")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gen_length % self.block_length:
            raise ValueError(
                f"gen_length must be a multiple of block_length, got gen_length={self.gen_length} and "
                f"block_length={self.block_length}"
            )
        if self.min_length > self.gen_length:
            raise ValueError(f"min_length must be at most gen_length, {self.gen_length}, got {self.min_length}")
        if self.temperature == 0 and (self.top_k is not None or self.top_p < 1):
            name, value = ("top_p", self.top_p) if self.top_k is None else ("top_k", self.top_k)
            raise ValueError(f"{name} is {value} and temperature is 0, which takes the most probable token anyway")
        if isinstance(self.policy, type) or not callable(self.policy):
            raise TypeError(
                f"policy must be a callable such as TopK(1), EntropyThreshold(0.5) or a function of (statistics, "
                f"state), or a text such as 'entropy:0.5', got {self.policy!r}"
            )
        if hasattr(self.policy, "revise") and getattr(self.policy, "sees", None) != "block":
            raise ValueError(f'policy {self.policy} has a revise method: expected sees = "block"')
        if getattr(self.policy, "sees", None) == "block" and self.block_add_threshold != 1:
            raise ValueError(
                f"policy {self.policy} sees one block, and block_add_threshold is {self.block_add_threshold}: "
                f"expected 1"
            )
        if hasattr(self.policy, "resize"):
            self._check_resizing()
        if getattr(self.policy, "verifies", False):
            if getattr(self.policy, "sees", None) != "block":
                raise ValueError(f'policy {self.policy} verifies tokens: expected sees = "block"')
            for name, expected in (("cache", None), ("guidance", 0.0), ("block_causal", False)):
                if (given := getattr(self, name)) != expected:
                    raise ValueError(
                        f"policy {self.policy} verifies tokens, and {name} is {given}: expected {expected}"
                    )
        if self.infill and (self.stop_at_eos or self.stop_strings):
            name = "stop_strings" if self.stop_strings else "stop_at_eos"
            raise ValueError(
                f"infill is True and {name} is {getattr(self, name)!r}, which would overwrite what stands behind: "
                f"expected stop_at_eos=False and no stop_strings"
            )
        for name in ("hide_future_blocks", "block_causal"):
            if self.infill and getattr(self, name):
                raise ValueError(f"infill and {name} are True: what is given behind would not be seen")
        if self.cache is not None and (isinstance(self.cache, type) or not hasattr(self.cache, "window")):
            raise TypeError(f"cache must be None or a scheme such as DualCache(), got {self.cache!r}")
        several = [f"{name} is {getattr(self, name)}" for name in ("drafts", "branches") if getattr(self, name) > 1]
        if self.sync_every > 1 and (self.cache is not None or self.stop_strings or several):
            other = f"stop_strings are {self.stop_strings!r}" if self.stop_strings else " and ".join(several)
            other = other if self.cache is None else f"cache is {self.cache}"
            raise ValueError(f"sync_every is {self.sync_every} and {other}: expected 1 with these")
        if several:
            if len(several) > 1:
                raise ValueError(f"{' and '.join(several)}: expected one of them to be 1")
            if not hasattr(self.policy, "selection") or hasattr(self.policy, "revise"):
                raise ValueError(
                    f"{several[0]} and policy is {self.policy}: expected one that goes by this forward's confidence, "
                    f"margin or entropy alone, such as topk:1"
                )
            if self.cache is not None or self.cuda_graphs is True:
                other = "cuda_graphs is True" if self.cache is None else f"cache is {self.cache}"
                raise ValueError(f"{several[0]} and {other}: expected 1 with these")
        if self.cache is not None and self.guidance:
            raise ValueError(f"guidance is {self.guidance} and cache is {self.cache}: expected no cache with guidance")
        part = getattr(self.cache, "part", None)
        if part is not None and (getattr(self.policy, "part", None) != part or self.block_add_threshold != 1):
            raise ValueError(
                f"cache is {self.cache}, policy {self.policy}, block_add_threshold {self.block_add_threshold}: "
                f"expected a policy that goes through a block in parts of {part}, such as fast-dllm-v2:part={part}, "
                f"and 1"
            )
        one_block_opened_at_once = getattr(self.policy, "opens_blocks", False) and self.block_add_threshold == 1
        if getattr(self.cache, "starts_at_block", False) and not one_block_opened_at_once:
            raise ValueError(
                f"cache is {self.cache}, policy {self.policy}, block_add_threshold {self.block_add_threshold}: "
                f"expected a policy that reveals a block's first position at once, such as fast-dllm-dream, and 1"
            )

    def in_blocks_of(self, own: int | None, given: Collection[str] = ()) -> "DecodeConfig":
        """The same in the blocks of a model that has its own, `own` positions each, unless block_length is `given`.

        A canvas whose length is not given is whole ones.
        """
        if own is None or "block_length" in given:
            return self
        whole = self.gen_length if "gen_length" in given else whole_blocks(self.gen_length, own)
        return replace(self, block_length=own, gen_length=whole)

    def _check_resizing(self) -> None:
        """ValueError for what a policy that changes the canvas's length does not go with."""
        expected: dict[str, Any] = {
            "cache": None, "block_causal": False, "hide_future_blocks": False, "infill": False, "guidance": 0.0,
            "min_length": 0, "sync_every": 1, "drafts": 1, "branches": 1,
        }  # fmt: skip
        found = {name: getattr(self, name) for name in expected}
        if self.cuda_graphs is True:
            expected["cuda_graphs"], found["cuda_graphs"] = "auto or false", True
        for name, value in found.items():
            if value != expected[name]:
                raise ValueError(
                    f"{name} is {value}, and policy {self.policy} changes the canvas's length: expected "
                    f"{expected[name]}"
                )
        for other in ("revise", "verifies"):
            if getattr(self.policy, other, False):
                raise ValueError(f"policy {self.policy} has both resize and {other}: expected one of them")
