"""Rows of statistics for the tests of policies, every named policy, and values for their parameters."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

from tad_ext.decoding import NamedPolicy, parse_policy
from tad_ext.decoding.policies import policies_by_name
from tad_ext.decoding.policies.base import resizes, verifies
from tad_ext.ops import DecodeState, TokenStatistics
from tad_ext.settings import Kind, kinds_of

# Of blocks of 4 positions: two layers of random weights, drawn once.
FILTER = str(Path(__file__).with_name("filter_of_4.safetensors"))

# Every policy once, with values at which random rows reveal some positions and not others.
EVERY_POLICY = [
    "adablock:threshold=0.5,delimiter_threshold=0.4,delimiters=1+3,block=3,window=0.5",
    "block-edit:threshold=0.5,editing_threshold=0.4",
    "block-steps:strategy=dynamic,threshold=0.5,steps=3",
    "block-steps:strategy=sequential,steps=3",
    "block-steps:static",
    "cad:threshold=0.4,most=2",
    "confidence:0.5",
    "confidence:threshold=0.5,accept=above",
    "credit:threshold=0.6",
    "daedal:threshold=0.5,low=0.4,enough=0.1,full=0.5,watched=3,masks=3,initial=4",
    "dmax:threshold=0.5,sure=0.6",
    "dream:entropy",
    "dream:order=maskgit_plus,steps=9",
    "dream:origin",
    "dream:topk_margin",
    "entropy:0.5",
    "entropy-budget:0.5",
    "factor:1.0",
    "factor:factor=1.0,variant=code",
    "fast-dllm-dream:0.5",
    "fast-dllm-v2:threshold=0.5,part=2",
    "hierarchical:threshold=0.8,low=0.3",
    "klass:threshold=0.3,divergence=0.5,forwards=1",
    f"learn2pd:filter={FILTER},threshold=0.5",
    "llada:steps=7",
    "llada:steps=9,remasking=random",
    "llada:steps=11,ends=last",
    "localleap:threshold=0.8,relaxed=0.4,radius=2",
    "lopa:0.5",
    "margin:0.25",
    "prophet:early=1.0,mid=0.8,late=0.6",
    "prophet:early=1.0,mid=0.8,late=0.6,start=2,length=3,steps=9",
    "rho-eos:threshold=0.5,low=0.3,high=0.5,unit=1,block=5,initial=6",
    "saber:2",
    "sched:high=1.0,low=0.5,schedule=exp",
    "topk:2",
    "wino:threshold=0.5,keep=0.6",
]
SEVERAL_BLOCKS = [text for text in EVERY_POLICY if parse_policy(text).sees != "block"]
OF_ONE_LENGTH = [text for text in EVERY_POLICY if not resizes(parse_policy(text))]
WITH_CACHES = [text for text in OF_ONE_LENGTH if not verifies(parse_policy(text))]
WITH_PREPARE = [text for text in EVERY_POLICY if hasattr(parse_policy(text), "prepare")]


def entries(
    confidence, entropy=None, *, margin=None, gap=None, valid=None, positions=None, gen_length=None, block_length=None
):
    """(statistics, state) of rows of eligible entries; only what policies read is filled with meaning."""
    confidence = torch.tensor(confidence)
    margin = torch.zeros_like(confidence) if margin is None else torch.tensor(margin)
    gap = (confidence / (confidence - margin)).log() if gap is None else torch.tensor(gap)
    zeros = torch.zeros(confidence.shape, dtype=torch.int64)
    columns = gen_length or confidence.shape[1]
    state = DecodeState.start(len(confidence), columns, block_length=block_length or columns)
    state.seeds = torch.arange(len(confidence))
    state.positions = torch.arange(confidence.shape[1]).expand(confidence.shape)
    if positions is not None:
        state.positions = torch.tensor(positions)
    return TokenStatistics(
        token=zeros,
        confidence=confidence,
        log_odds=confidence.double().logit().float(),
        top_token=zeros,
        second_token=zeros + 1,
        margin=margin,
        gap=gap,
        entropy=torch.zeros_like(confidence) if entropy is None else torch.tensor(entropy),
        logsumexp=torch.zeros_like(confidence),
        valid=state.eligible if valid is None else torch.tensor(valid),
        query_logits=confidence.new_zeros(*confidence.shape, 0),
    ), state


def accepted(policy, *arguments, **options):
    """What the policy accepts of `entries(...)`, as rows of 0 and 1; the form of its answer is checked."""
    return answer(policy, *entries(*arguments, **options))


def answer(policy, statistics, state):
    """What the policy accepts, as rows of 0 and 1; the form of its answer is checked."""
    score, accept = policy(statistics, state)
    assert score.shape == accept.shape == state.positions.shape
    assert score.is_floating_point()
    assert accept.dtype == torch.bool
    return accept.int().tolist()


def _values(kind: Kind) -> st.SearchStrategy[Any]:
    if kind.is_list:
        return st.lists(_values(replace(kind, is_list=False)), max_size=3).map(tuple)
    if kind.form:
        return st.just(FILTER)  # the only policy with a text is of one
    low, high = kind.bounds.at_least, kind.bounds.at_most
    if kind.words:
        return st.sampled_from(kind.words)
    if kind.type is int:
        return st.integers(int(low), int(min(high, 10**9)))
    return st.floats(low, min(high, 1e300))


def named_policies() -> st.SearchStrategy[NamedPolicy]:
    """Every named policy, with any values of its parameters."""
    return st.sampled_from(sorted(policies_by_name)).flatmap(
        lambda name: st.fixed_dictionaries(
            {field: _values(kind) for field, kind in kinds_of(policies_by_name[name]).items()}
        ).map(lambda values: policies_by_name[name](**values))
    )
