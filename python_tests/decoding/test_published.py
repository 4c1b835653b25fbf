"""What carries a published name decodes as published: tokens, reveal steps and forwards of the loops in `published`."""

from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import pytest
import torch
from published import (
    adablock,
    block_schedule,
    cad,
    d3llm_cache,
    daedal,
    dream,
    fast_dllm,
    freedave,
    klass,
    learn2pd,
    llada,
    lopa,
    prophet,
    rho_eos,
    saber,
    sched,
)
from published.block_schedule import confidence_above, confidence_from, entropy_below
from published.models import BlockWindows, PackageModel
from safetensors.torch import save_file

from python_tests.decoding.conftest import EOS, MASK, RAGGED, UNUSED, MixingModel, random_transformer
from tad_ext.decoding import (
    DAEDAL,
    KLASS,
    AdaBlock,
    ConfidenceAdaptive,
    ConfidenceByEntropy,
    ConfidenceThreshold,
    DecodeConfig,
    DreamOrder,
    DualCache,
    EntropyThreshold,
    FastDLLMDream,
    LearnedFilter,
    LLaDASteps,
    PrefixCache,
    Prophet,
    RhoEOS,
    Saber,
    SchED,
    decode,
    parse_policy,
    preset,
)
from tad_ext.decoding.policies.by_step import _step_of_each
from tad_ext.ops import DecodeState, pack_offsets, token_statistics, uniform_noise

pytestmark = pytest.mark.slow

LENGTH, BLOCK = 16, 4


class SureModel(MixingModel):
    """Logits so far apart that most probabilities are 1 in float32."""

    def row_logits(self, tokens):
        return 10 * super().row_logits(tokens)


@dataclass(frozen=True)
class Case:
    """A configuration, and the loop that says what it decodes. The settings' range both accepts and rejects."""

    config: DecodeConfig
    loop: Any  # loop(predict or model, prompt, gen_length=..., mask_id=..., ...)
    settings: dict[str, Any] = field(default_factory=dict)


def lengths(block_length=BLOCK):
    return {"gen_length": LENGTH, "block_length": block_length}


def block_case(name, rule, forced, *, add=None, decoded=None, **changes):
    """A preset of the block schedule, with thresholds of its own where given."""
    config = preset(name, **lengths(), **changes)
    if add is not None:
        config = replace(config, block_add_threshold=add, decoded_token_threshold=decoded)
    return Case(
        config,
        block_schedule.loop,
        {
            "rule": rule,
            "forced": forced,
            "block_length": BLOCK,
            "block_add_threshold": config.block_add_threshold,
            "decoded_token_threshold": config.decoded_token_threshold,
            "hide_future_blocks": config.hide_future_blocks or config.block_causal,
        },
    )


def one_block(policy, loop, **settings):
    return Case(DecodeConfig(**lengths(LENGTH), policy=policy), loop, settings)


def in_blocks(policy, loop, **settings):
    return Case(DecodeConfig(**lengths(), policy=policy), loop, {"block_length": BLOCK, **settings})


def resizing(policy, loop, **changes):
    """A policy that changes the canvas's length, with several ends of sequence: one is predicted too rarely."""
    settings = {field.name: getattr(policy, field.name) for field in fields(policy)}
    config = DecodeConfig(**lengths(LENGTH) | changes, policy=policy, eos_token_ids=SEVERAL_ENDS)
    return Case(config, loop, settings | {"ends": SEVERAL_ENDS} | changes)


SEVERAL_ENDS = (EOS, 1, 3, 5)
SCHEDULES = [(None, None), (0.5, 0.5), (0.25, 0.75)]
ENTROPIES, CONFIDENCES = (1.2, 1.7), (0.35, 0.55)

CASES: dict[str, list[Case]] = {
    "tad": [
        block_case("tad", entropy_below(h), "row-and-block", add=a, decoded=d, policy=EntropyThreshold(h))
        for h in ENTROPIES
        for a, d in SCHEDULES
    ],
    "tad-dream": [
        block_case("tad-dream", entropy_below(h), "row-and-block", policy=EntropyThreshold(h)) for h in ENTROPIES
    ],
    "tad-one-per-step": [block_case("tad-one-per-step", entropy_below(0.0), "row-and-block")],
    "d3llm-llada": [
        block_case("d3llm-llada", entropy_below(h), "row-and-block", add=a, decoded=d, policy=EntropyThreshold(h))
        for h in ENTROPIES
        for a, d in SCHEDULES
    ],
    "d3llm-dream": [
        block_case("d3llm-dream", entropy_below(h), "block", add=a, decoded=d, policy=EntropyThreshold(h))
        for h in ENTROPIES
        for a, d in SCHEDULES
    ],
    "dparallel": [
        block_case("dparallel", entropy_below(h), "row-and-block", policy=EntropyThreshold(h)) for h in ENTROPIES
    ],
    "fast-dllm": [in_blocks(ConfidenceThreshold(p), fast_dllm.threshold, threshold=p) for p in CONFIDENCES],
    "fast-dllm-factor": [
        in_blocks(parse_policy(f"factor:factor={f},variant={variant}"), fast_dllm.factor, factor=f, variant=variant)
        for f in (1.0, 1.6)
        for variant in ("code", "paper")
    ],
    "cd4lm": [
        in_blocks(
            ConfidenceAdaptive(p, most, share),
            cad.loop,
            threshold=p,
            most=most,
            share=share,
            forbidden=[EOS],
        )
        for p, most, share in ((0.3, 4, 0.5), (0.45, 2, 0.3), (0.3, 3, 0.0))
    ],
    "freedave": [
        Case(
            preset("freedave", **lengths(block), drafts=drafts),
            freedave.loop,
            {"block_length": block, "drafts": drafts},
        )
        for drafts, block in ((2, BLOCK), (4, BLOCK), (4, 8), (8, 8))
    ],
    "lopa": [
        Case(
            config := replace(
                preset("lopa", **lengths(), policy=ConfidenceByEntropy(p), branches=branches),
                block_add_threshold=add,
                decoded_token_threshold=decoded,
                hide_future_blocks=hides,
            ),
            lopa.loop,
            {
                "threshold": p,
                **{
                    name: getattr(config, name)
                    for name in (
                        "branches",
                        "block_length",
                        "block_add_threshold",
                        "decoded_token_threshold",
                        "hide_future_blocks",
                    )
                },
            },
        )
        for p, branches, add, decoded, hides in (
            (0.35, 4, 0.1, 0.95, True),
            (0.55, 2, 0.5, 0.5, True),
            (0.55, 3, 1.0, 1.0, False),
            (0.9, 3, 0.0, 0.95, False),
        )
    ],
    "klass": [
        in_blocks(
            KLASS(threshold=p, divergence=kl, forwards=forwards),
            klass.loop,
            threshold=p,
            divergence=kl,
            forwards=forwards,
        )
        for p in (0.25, 0.4)
        for kl in (0.05, 0.2)
        for forwards in (1, 2, 3)
    ],
    "llada": [in_blocks(LLaDASteps(steps), llada.loop, steps=steps) for steps in (4, 8, 12, 16, 20)],
    "llada-ends-last": [
        in_blocks(LLaDASteps(steps, ends="last"), llada.loop, steps=steps, confidence_eos_eot_inf=[EOS])
        for steps in (8, 12)
    ],
    "dream": [
        one_block(DreamOrder(order, steps), dream.loop, steps=steps, order=order)
        for order in ("maskgit_plus", "topk_margin", "entropy")
        for steps in (5, 16, 23)
    ],
    "saber": [one_block(Saber(least), saber.loop, least=least) for least in (1, 2, 3, 4, 5)],
    "adablock": [
        one_block(
            AdaBlock(p, bound, delimiters, block, window),
            adablock.loop,
            threshold=p,
            delimiter_threshold=bound,
            delimiters=delimiters,
            block=block,
            window=window,
        )
        for p in CONFIDENCES
        for bound, delimiters in ((0.2, (1, 5)), (0.4, tuple(range(MASK))))
        for block, window in ((3, 0.25), (6, 0.7))
    ]
    + [
        one_block(AdaBlock(p, delimiters=(), block=BLOCK), fast_dllm.threshold, block_length=BLOCK, threshold=p)
        for p in CONFIDENCES
    ],
    "sched": [
        one_block(
            SchED(high, low, schedule, steps=steps, order=order),
            sched.loop,
            steps=steps,
            order=order,
            threshold=threshold(high, low),
        )
        for steps in (16, 30)
        for high, low in ((0.9, 0.3), (0.6, 0.5))
        for schedule, threshold, order in (
            ("cosine", sched.cosine, "entropy"),
            ("linear", sched.linear, "maskgit_plus"),
            ("exp", sched.exponential, "entropy"),
        )
    ],
    "rho-eos": [
        resizing(RhoEOS(0.4, low, high, unit, schedule, 3, initial, adjustments), rho_eos.loop)
        for low, high, unit, schedule, initial, adjustments in (
            (0.4, 0.6, 1, "exp", 8, 64),
            (0.3, 0.5, 2, "const", 5, 6),
            (0.3, 0.4, 1, "linear", 12, 9),
            (0.5, 0.8, 2, "exp", 9, 5),
        )
    ],
    "daedal": [
        resizing(DAEDAL(0.4, low, enough, full, watched, masks, initial), daedal.loop, block_length=BLOCK)
        for low, enough, full, watched, masks, initial in (
            (0.3, 0.15, 0.3, 4, 3, 5),
            (0.25, 0.3, 0.5, 6, 4, 8),
            (0.35, 0.05, 0.2, 3, 2, 4),
            (0.35, 0.1, 0.9, 2, 2, 3),
        )
    ],
    "prophet": [
        in_blocks(
            Prophet(1.0, 0.7, 0.4, start, count, steps),
            prophet.loop,
            steps=steps,
            span=(start, start + count),
            early=1.0,
            mid=0.7,
            late=0.4,
        )
        for steps in (8, 12, 16, 24)
        for start, count in ((5, 5), (0, 3), (13, 3))
    ],
}


# With keys and values that are kept, on transformers. The loops ask a model for columns.
CACHED: dict[str, list[Case]] = {
    "d2f": [
        block_case("d2f", confidence_above(p), "every-block", add=a, decoded=d, policy=ConfidenceThreshold(p, "above"))
        for p in (0.4, 0.7)
        for a, d in SCHEDULES
    ],
    **{
        f"d3llm-llada-{name}": [
            Case(
                replace(
                    preset(f"d3llm-llada-{name}", **lengths(), policy=EntropyThreshold(h)),
                    block_add_threshold=add,
                    decoded_token_threshold=decoded,
                ),
                d3llm_cache.loop,
                {
                    "rule": entropy_below(h),
                    "forced": "row-and-block",
                    "block_length": BLOCK,
                    "block_add_threshold": add,
                    "decoded_token_threshold": decoded,
                    "delay": delay,
                    "refresh_interval": refresh,
                },
            )
            for h in (0.8, 1.4)
            for add, decoded in thresholds
        ]
        for name, delay, refresh, thresholds in (
            ("gsm8k", 2, 3, [(0.1, 0.95), (0.5, 0.5)]),
            ("math", 1, None, [(0.1, 0.95), (0.5, 0.5)]),
            ("humaneval", 2, 4, [(1.0, 1.0), (0.1, 0.95)]),
        )
    },
    **{
        f"fast-dllm-dream-{kind}": [
            Case(
                preset(f"fast-dllm-dream-{kind}", **lengths(), policy=FastDLLMDream(p)),
                fast_dllm.dream_cached,
                {"block_length": BLOCK, "kind": kind, "threshold": p},
            )
            for p in (0.4, 0.7)
        ]
        for kind in ("prefix", "dual")
    },
    **{
        f"fast-dllm-{cache}": [
            Case(
                replace(preset("fast-dllm", **lengths(), policy=ConfidenceThreshold(p)), cache=cache),
                fast_dllm.threshold,
                {"block_length": BLOCK, "threshold": p},
            )
            for p in (0.4, 0.7)
        ]
        for cache in (PrefixCache(), DualCache())
    },
}


def compare(model, ask, case, *, stops):
    """Decodes ragged prompts in a batch, and each by itself with the loop. Returns the forwards of each."""
    config = replace(case.config, stop_at_eos=stops, batch_size=3)
    result = decode(model, RAGGED, config)
    ends = case.config.eos_token_ids or (EOS,)
    special = {"mask_id": MASK, "suppress": [UNUSED], "eos_ids": ends if stops else ()}
    for number, prompt in enumerate(RAGGED):
        expected = case.loop(ask(prompt), prompt, gen_length=LENGTH, **special, **case.settings)
        assert result.canvases()[number] == expected.tokens, (config, number)
        behind = [0] * (LENGTH - len(expected.tokens))
        assert result.reveal_step[number].tolist() == expected.reveal_step + behind, (config, number)
        assert result.forwards[number] == expected.forwards
    return result.forwards.tolist()


def check(cases, model_of, ask_of):
    """At least 100 rows, by several models, with and without a stop at the end of sequence."""
    forwards = []
    stops_too = cases[0].loop is not saber.loop
    for seed in range(-(-100 // ((1 + stops_too) * len(RAGGED) * len(cases)))):
        model = model_of(seed)
        for case in cases:
            for stops in (False, True) if stops_too else (False,):
                forwards += compare(model, ask_of(model, seed, case), case, stops=stops)
    assert len(forwards) >= 100
    return forwards


@pytest.mark.parametrize("name", CASES)
def test_what_is_decoded_is_what_is_published(mixing_model, name):
    forwards = check(CASES[name], mixing_model, lambda _, seed, __: lambda prompt: MixingModel(seed).row_logits)
    assert len(set(forwards)) > 1
    assert min(forwards) < LENGTH or name == "tad-one-per-step"


@pytest.mark.parametrize("name", CACHED)
def test_what_is_decoded_with_a_cache_is_what_is_published(device, name):
    def windows(model, _, case):
        if name == "d2f":
            return lambda prompt: partial(PackageModel(model).block_causal, start=len(prompt), block_length=BLOCK)
        if name.startswith("fast-dllm-dream") or name.startswith("d3llm"):
            return lambda prompt: PackageModel(model)
        return lambda prompt: BlockWindows(
            PackageModel(model), str(case.config.cache), prompt_length=len(prompt), block_length=BLOCK, mask_id=MASK
        )

    family = "dream" if "dream" in name else "llada"
    forwards = check(CACHED[name], lambda seed: random_transformer(family, seed, device), windows)
    assert len(set(forwards)) > 1
    assert min(forwards) < LENGTH


def test_learn2pd(mixing_model, tmp_path):
    torch.manual_seed(0)
    cases = []
    for depth in (1, 2, 4):
        weights = {
            f"linear{number}.{name}": 4 * torch.rand(shape) - 2
            for number in range(1, depth + 1)
            for name, shape in (("weight", (BLOCK, BLOCK)), ("bias", (BLOCK,)))
        }
        save_file(weights, tmp_path / f"{depth}")
        layers = [
            (weights[f"linear{number}.weight"].tolist(), weights[f"linear{number}.bias"].tolist())
            for number in range(1, depth + 1)
        ]
        cases += [
            in_blocks(LearnedFilter(str(tmp_path / f"{depth}"), p), learn2pd.loop, layers=layers, threshold=p)
            for p in (0.3, 0.6)
        ]
    forwards = check(cases, mixing_model, lambda _, seed, __: lambda prompt: MixingModel(seed).row_logits)
    assert len(set(forwards)) > 3


def seeds_state(number, positions):
    """The state that a policy draws its random numbers from: those of prompt `number`, whose seed is its own."""
    state = DecodeState.start(1, LENGTH, block_length=LENGTH)
    state.positions, state.seeds = torch.tensor([positions]), torch.tensor([number])
    return state


def test_llada_in_random_order(mixing_model):
    steps_of, columns = torch.arange(1, LENGTH + 1)[:, None], torch.arange(LENGTH)
    for steps in (8, 12, 16):
        config = DecodeConfig(**lengths(), policy=LLaDASteps(steps, "random"), stop_at_eos=False, batch_size=3)
        for seed in range(5):
            result = decode(mixing_model(seed), RAGGED, config)
            for number, prompt in enumerate(RAGGED):
                random = uniform_noise(torch.tensor(number), pack_offsets(steps_of, columns)).tolist()
                expected = llada.loop(
                    MixingModel(seed).row_logits, prompt, **lengths(), steps=steps,
                    random=lambda forward, i, random=random: random[forward - 1][i], mask_id=MASK, suppress=[UNUSED],
                )  # fmt: skip
                assert result.canvases()[number] == expected.tokens
                assert result.reveal_step[number].tolist() == expected.reveal_step


def test_dreams_random_order(mixing_model):
    """A position is revealed by the step that its number says; the loop counts steps that reveal nothing as well."""
    for steps in (6, 16, 40):
        config = DecodeConfig(**lengths(LENGTH), policy=DreamOrder("origin", steps), stop_at_eos=False, batch_size=3)
        for seed in range(5):
            result = decode(mixing_model(seed), RAGGED, config)
            for number, prompt in enumerate(RAGGED):
                when = _step_of_each(seeds_state(number, range(LENGTH)), steps)[0].tolist()
                expected = dream.loop(
                    MixingModel(seed).row_logits, prompt, gen_length=LENGTH, steps=steps, order="origin",
                    random=lambda step, i, when=when: 0.0 if when[i] == step - 1 else 1.0, mask_id=MASK,
                    suppress=[UNUSED],
                )  # fmt: skip
                assert result.canvases()[number] == expected.tokens
                revealing = sorted(set(expected.reveal_step))
                assert [revealing[step - 1] for step in result.reveal_step[number]] == expected.reveal_step


def test_dreams_random_numbers_hit_each_step_as_often_as_published():
    steps = 5
    state = DecodeState.start(4000, 10, block_length=10)
    state.positions, state.seeds = torch.arange(10).expand(4000, 10), torch.arange(4000)
    counts = _step_of_each(state, steps).flatten().bincount(minlength=steps)
    left = 1.0
    for step in range(steps):
        expected = 40_000 * left * dream.share(step + 1, steps)
        left *= 1 - dream.share(step + 1, steps)
        assert counts[step].item() == pytest.approx(expected, abs=5 * expected**0.5 + 1)


@pytest.mark.parametrize("forced", ["row-and-block", "block", "every-block"])
def test_sampled_tokens(mixing_model, forced):
    """TAD's forced token of a block is the most probable one, also when sampling."""
    setting = {"row-and-block": "row", "block": "block", "every-block": "blocks"}[forced]
    config = DecodeConfig(
        **lengths(), policy=EntropyThreshold(1.2), block_add_threshold=0.5, decoded_token_threshold=0.5,
        forced_progress=setting, temperature=1.0, stop_at_eos=False, batch_size=3,
    )  # fmt: skip
    for seed in range(15):
        result = decode(mixing_model(seed), RAGGED, config)
        for number, prompt in enumerate(RAGGED):

            def sample(forward, position, logits, number=number):
                return token_statistics(
                    logits[None], temperature=1.0, suppress_tokens=torch.tensor([MASK, UNUSED]),
                    seeds=torch.tensor([number]), offsets=pack_offsets(forward, torch.tensor([position])),
                ).token.item()  # fmt: skip

            expected = block_schedule.loop(
                MixingModel(seed).row_logits, prompt, **lengths(), rule=entropy_below(1.2), forced=forced,
                block_add_threshold=0.5, decoded_token_threshold=0.5, sample=sample, mask_id=MASK, suppress=[UNUSED],
            )  # fmt: skip
            assert result.canvases()[number] == expected.tokens
            assert result.reveal_step[number].tolist() == expected.reveal_step


@pytest.mark.parametrize(
    ("policy", "rule"),
    [
        ("topk:1", confidence_from(2.0)),
        ("llada", confidence_from(2.0)),
        ("confidence:threshold=1,accept=above", confidence_from(2.0)),  # forced progress alone
        ("factor:0", confidence_from(2.0)),
        ("entropy:0", entropy_below(0.0)),
    ],
)
def test_a_sure_model_is_decoded_in_the_order_of_float64(device, policy, rule):
    """One position a step, whose probabilities are 1 in float32: the loop ranks by float64's."""
    model_class = type("SureModel", (SureModel,), {"device": torch.device(device)})
    compared = 0
    for seed in range(6):
        config = DecodeConfig(**lengths(LENGTH), policy=parse_policy(policy), stop_at_eos=False)
        result = decode(model_class(seed), RAGGED, config)
        for number, prompt in enumerate(RAGGED):
            if result.forwards[number] < LENGTH:
                assert policy == "factor:0"  # which lets what is 1 in float32 pass
                continue
            expected = block_schedule.loop(
                SureModel(seed).row_logits, prompt, **lengths(LENGTH), rule=rule, forced="block", mask_id=MASK,
                suppress=[UNUSED],
            )  # fmt: skip
            assert result.reveal_step[number].tolist() == expected.reveal_step
            compared += 1
    assert compared == 6 * len(RAGGED) or policy == "factor:0"
