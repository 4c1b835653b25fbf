"""token_statistics against the reference and hand-worked rows."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_checks import CUDA_ON_HOST, on

from tad_ext.ops import margin_log_odds, pack_offsets, reference, token_statistics
from tad_ext.ops.philox import gumbel_noise


def assert_same(ours, expected, *, rtol: float = 1e-5, atol: float = 2e-6) -> None:  # type: ignore[no-untyped-def]
    for name in ours._fields:
        torch.testing.assert_close(
            getattr(ours, name), getattr(expected, name), rtol=rtol, atol=atol, equal_nan=True,
            msg=lambda text, name=name: f"{name}: {text}",
        )  # fmt: skip


@pytest.mark.parametrize("vocabulary", [1, 2, 43, 512, 513, 3000])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_agrees_with_the_reference(device: str, dtype: torch.dtype, vocabulary: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    logits = (torch.randn(3, 7, vocabulary, dtype=torch.float64, generator=generator) * 3).to(device, dtype)
    options = {
        "temperature": temperature,
        "suppress_tokens": torch.tensor([0, vocabulary // 2], device=device)[: min(vocabulary - 1, 2)],
        "query_tokens": torch.tensor([vocabulary - 1, 0], device=device),
        "seeds": torch.arange(3, device=device)[:, None] - 1,
        "offsets": pack_offsets(5, torch.arange(7, device=device)),
    }
    ours = token_statistics(logits, **options)
    assert_same(ours, reference.token_statistics(logits, **options))
    assert ours.query_logits.dtype == dtype
    exact = reference.token_statistics(logits.double(), **options)
    torch.testing.assert_close(ours.entropy.double(), exact.entropy.double(), rtol=1e-5, atol=1e-6)


@given(peak=st.integers(0, 29_999), height=st.floats(0, 25), spread=st.floats(0.1, 3), seed=st.integers(0, 2**31))
def test_the_entropy_of_a_peaked_row(device: str, peak: int, height: float, spread: float, seed: int) -> None:
    """Nearly certain rows: a small difference of large numbers, where sums are relative to anything but the peak."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, 30_000, generator=generator) * spread
    logits[0, peak] = logits.max() + height
    found = token_statistics(logits.to(device)).entropy.cpu()
    exact = reference.token_statistics(logits.double()).entropy
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=5e-7)


def test_a_hand_worked_row(device: str) -> None:
    row = torch.tensor([0.1, 0.4, 0.2, 0.3], device=device).log()
    found = token_statistics(row[None], suppress_tokens=torch.tensor([1], device=device))
    assert found.token.item() == 3
    assert found.second_token.item() == 2
    assert found.confidence.item() == pytest.approx(0.3)
    assert found.margin.item() == pytest.approx(0.1)
    assert found.entropy.item() == pytest.approx(-sum(p * math.log(p) for p in (0.1, 0.2, 0.3, 0.4)))
    assert found.logsumexp.item() == pytest.approx(0.0, abs=1e-6)


def test_ties_go_to_the_lowest_index(device: str, dtype: torch.dtype) -> None:
    logits = torch.zeros(2, 1500, dtype=dtype, device=device)
    logits[1, [700, 900, 1400]] = 1
    found = token_statistics(logits)
    assert found.token.tolist() == [0, 700]
    assert found.second_token.tolist() == [1, 900]
    assert found.margin.tolist() == [0, 0]
    suppressed = token_statistics(logits, suppress_tokens=torch.tensor([700, 0, 1], device=device))
    assert suppressed.token.tolist() == [2, 900]
    assert suppressed.second_token.tolist() == [3, 1400]


def test_broken_and_empty_rows(device: str) -> None:
    logits = torch.zeros(5, 600, device=device)
    logits[0] = -torch.inf
    logits[1, 599] = torch.nan
    logits[2, 3] = torch.inf
    logits[3, :599] = -torch.inf
    found = token_statistics(logits)
    assert found.valid.tolist() == [True, False, False, True, True]
    assert found.confidence.tolist() == pytest.approx([0, 0, 0, 1, 1 / 600])
    assert found.token[0] == 0
    assert found.token[3] == 599
    assert found.entropy[:3].tolist() == [torch.inf] * 3
    assert found.entropy[3] == 0
    assert found.logsumexp[0] == -torch.inf
    assert found.logsumexp[1].isnan()
    assert ((found.token >= 0) & (found.token < 600)).all()
    assert found.second_token[3] == 0
    only = token_statistics(logits[:1], suppress_tokens=torch.tensor([0, 1], device=device))
    assert (only.token.item(), only.second_token.item()) == (2, 3)


@pytest.mark.parametrize("pattern", [0x7FC00001, 0x7F800001, 0x7FFFFFFF, -1])
def test_every_nan_is_noticed(device: str, pattern: int) -> None:
    logits = torch.randn(2, 700, device=device)
    logits[1, 600] = torch.tensor(pattern, dtype=torch.int32, device=device).view(torch.float32)
    found = token_statistics(logits)
    assert found.valid.tolist() == [True, False]
    assert found.confidence[1] == 0


def test_statistics_carry_no_gradient(device: str) -> None:
    logits = torch.randn(2, 9, requires_grad=True, device=device)
    for function in (token_statistics, reference.token_statistics):
        found = function(logits, query_tokens=torch.tensor([1], device=device))
        assert not any(field.requires_grad for field in found)


def test_padding_of_no_rows_at_all(device: str) -> None:
    rows, queries = torch.tensor([-1], device=device), torch.tensor([1], device=device)
    found = token_statistics(torch.zeros(0, 5, device=device), rows=rows, query_tokens=queries)
    assert found.valid.tolist() == [False]
    assert found.query_logits.shape == (1, 1)


def test_padding_rows(device: str) -> None:
    logits = torch.randn(6, 50, device=device)
    rows, queries = torch.tensor([[5, -1], [0, 5]], device=device), torch.tensor([1], device=device)
    found = token_statistics(logits, rows=rows, query_tokens=queries)
    assert_same(found, reference.token_statistics(logits, rows=rows, query_tokens=queries))
    assert found.valid.tolist() == [[True, False], [True, True]]
    assert found.token[0, 0] == found.token[1, 1]


def test_philox_is_the_published_generator(device: str) -> None:
    """Known-answer vectors of Random123 for philox4x32-10."""
    from tad_ext.ops.philox import _philox

    zero, ones = torch.tensor(0, device=device), torch.tensor(0xFFFFFFFF, device=device)
    assert _philox([zero] * 4, [zero] * 2).tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert _philox([ones] * 4, [ones] * 2).tolist() == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def test_samples_follow_the_distribution_and_depend_on_seed_and_offset_alone(device: str) -> None:
    draws, tolerance = (2000, 0.038) if CUDA_ON_HOST else (20000, 0.012)
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05], device=device)
    logits = probabilities.log().expand(draws, 4)
    seeds = torch.arange(draws, device=device)
    offsets = pack_offsets(2, torch.full_like(seeds, 9))
    found = token_statistics(logits, temperature=1.0, seeds=seeds, offsets=offsets)
    share = torch.bincount(found.token, minlength=4) / draws
    torch.testing.assert_close(share, probabilities, atol=tolerance, rtol=0)
    one = token_statistics(logits[7:8], temperature=1.0, seeds=seeds[7:8], offsets=offsets[7:8])
    assert one.token == found.token[7]
    assert one.confidence.item() == pytest.approx([0.5, 0.3, 0.15, 0.05][one.token])
    other = token_statistics(logits, temperature=1.0, seeds=seeds, offsets=offsets + 1)
    assert (other.token != found.token).any()


def test_pruned_sampling_misses_no_winner(device: str) -> None:
    """Wide vocabularies with few likely tokens, where almost no noise is drawn, against noise for every token."""
    logits = torch.randn(40, 4096, device=device) * torch.linspace(0.1, 8, 40, device=device)[:, None]
    seeds, offsets = torch.arange(40, device=device), torch.arange(40, device=device)
    found = token_statistics(logits, temperature=0.9, seeds=seeds, offsets=offsets)
    keys = logits.double() / 0.9 + gumbel_noise(seeds, offsets, 4096)
    assert torch.equal(found.token, keys.argmax(-1))


def test_same_bits_at_any_batch_size_and_thread_count(device: str) -> None:
    logits = torch.randn(32, 5000, device=device)
    whole = token_statistics(logits)
    try:
        torch.set_num_threads(4)
        threaded = token_statistics(logits)
    finally:
        torch.set_num_threads(1)
    one = token_statistics(logits, rows=torch.tensor([9], device=device))
    for a, b, c in zip(whole, threaded, one):
        assert torch.equal(a, b)
        assert torch.equal(a[9:10], c)


def test_autocast_changes_nothing(device: str) -> None:
    logits = torch.randn(4, 600, device=device)
    plain = token_statistics(logits)
    with torch.autocast(device, dtype=torch.bfloat16):
        under = token_statistics(logits)
    assert all(torch.equal(a, b) for a, b in zip(plain, under))


def test_opcheck(device: str) -> None:
    logits = torch.randn(4, 30, device=device)
    ids = torch.tensor([1, 2], device=device)
    plain = (logits, None, 0.0, None, None, None, None)
    rows = torch.tensor([[0, -1], [3, 1]], device=device)
    full = (logits, rows, 0.7, ids, ids, torch.ones_like(rows), torch.ones_like(rows))
    for arguments in (plain, full):
        torch.library.opcheck(torch.ops.tad_ext.token_statistics.default, arguments)


def test_compiles_without_graph_breaks(device: str) -> None:
    logits = torch.randn(4, 30, device=device)
    compiled = torch.compile(lambda x: token_statistics(x + 1).entropy * 2, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(logits), token_statistics(logits + 1).entropy * 2)


@given(vocabulary=st.integers(1, 1600), scale=st.sampled_from([0.0, 1.0, 30.0, 1e4]), seed=st.integers(0, 2**31))
def test_property_agrees_with_float64(device: str, vocabulary: int, scale: float, seed: int) -> None:
    logits = (torch.randn(3, vocabulary, generator=torch.Generator().manual_seed(seed)) * scale).to(device)
    logits[1, ::3] = -torch.inf
    exact = reference.token_statistics(logits.double())
    exact = exact._replace(query_logits=exact.query_logits.float())
    ours = token_statistics(logits)
    far = exact.log_odds > 80  # the others leave float32
    assert (ours.log_odds[far] > 80).all()
    ours, exact = (each._replace(log_odds=each.log_odds.masked_fill(far, 0)) for each in (ours, exact))
    assert_same(ours, exact, rtol=1e-5, atol=5e-6)


def rows_with_a_peak(seed: int, dtype: torch.dtype, count: int = 8, vocabulary: int = 3000) -> torch.Tensor:
    """(count, vocabulary) logits; a token of each row stands 5 to 30 nats above all others."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, vocabulary, generator=generator)
    ahead = 5 + 25 * torch.rand(count, generator=generator)
    place = torch.randint(vocabulary, (count,), generator=generator)
    logits[torch.arange(count), place] = logits.amax(dim=1) + ahead
    return logits.to(dtype)


def beside_the_peak(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """In float64: the odds against each row's best token, and the row's entropy."""
    below = logits.double() - logits.double().amax(dim=1, keepdim=True)
    others = below.exp().scatter(1, below.argmax(dim=1, keepdim=True), 0)
    odds = others.sum(dim=1)
    return odds, odds.log1p() - (others * below).sum(dim=1) / (1 + odds)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("function", [token_statistics, reference.token_statistics])
def test_the_surest_row_is_float64s_where_all_probabilities_are_1(device: str, dtype: torch.dtype, function) -> None:  # type: ignore[no-untyped-def]
    ties = 0
    for seed in range(200):
        logits = rows_with_a_peak(seed, dtype)
        odds, entropy = beside_the_peak(logits)
        statistics = function(logits.to(device))
        order = statistics.log_odds.cpu().argsort(descending=True)
        assert order[0] == odds.argmin()
        in_order = odds[order]
        assert (in_order[1:] >= in_order[:-1] * (1 - 1e-4)).all()
        torch.testing.assert_close(statistics.entropy.cpu().double(), entropy, rtol=1e-5, atol=0)
        ties += int((statistics.confidence == 1).sum() > 1)
    assert ties > 150  # which the lowest position would win


@pytest.mark.parametrize("ahead", [3, 12, 24, 31])
def test_entropies_of_sure_rows_keep_their_digits(device: str, ahead: float) -> None:
    logits = torch.zeros(1, 40, dtype=torch.float32)
    logits[0, 17] = ahead
    p, other = 1 / (1 + 39 * math.exp(-ahead)), math.exp(-ahead) / (1 + 39 * math.exp(-ahead))
    expected = math.log1p(39 * math.exp(-ahead)) * p + 39 * other * -math.log(other)
    assert expected > 1e-12 / 2 or ahead < 30
    statistics = token_statistics(logits.to(device))
    assert statistics.entropy.item() == pytest.approx(expected, rel=1e-5)
    assert statistics.log_odds.item() == pytest.approx(ahead - math.log(39), rel=1e-6)


@pytest.mark.parametrize("other", [1, 300, 9000, 20_000])
def test_others_beyond_float32_are_nothing_wherever_they_lie(device: str, other: int) -> None:
    """In the same thread, block or slice as the best, or in another."""
    logits = torch.full((1, 24_000), -200.0, device=device)
    logits[0, 0], logits[0, other] = 0.0, -100.0
    statistics = token_statistics(logits)
    assert statistics.second_token.item() == other
    assert statistics.log_odds.item() == math.inf


def test_the_margins_order_is_float64s_where_all_margins_are_1(device: str) -> None:
    for seed in range(50):
        logits = rows_with_a_peak(seed, torch.float32)
        p = (logits.double() - logits.double().amax(dim=1, keepdim=True)).exp()
        second = p.topk(2, dim=1).values[:, 1]
        odds, _ = beside_the_peak(logits)
        missing = (odds + second) / (1 + odds)  # 1 - (p1 - p2)
        score = margin_log_odds(token_statistics(logits.to(device))).cpu()
        assert (missing[score.argsort(descending=True)].diff() >= -1e-4 * missing.max()).all()
        assert score.argmax() == missing.argmin()
        torch.testing.assert_close(score.double(), ((1 - missing) / missing).log(), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("indices_are_checked")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"temperature": -0.1}, ValueError, "temperature is -0.1"),
        ({"temperature": 1.0}, ValueError, "seeds and offsets"),
        ({"suppress_tokens": torch.tensor([5])}, ValueError, r"suppress_tokens\[0\] is 5"),
        ({"suppress_tokens": torch.arange(5)}, ValueError, "suppress_tokens names all 5"),
        ({"query_tokens": torch.tensor([-1])}, ValueError, r"query_tokens\[0\] is -1"),
        ({"query_tokens": torch.tensor(1)}, ValueError, "query_tokens has shape"),
        ({"query_tokens": torch.zeros(3, 2).long()}, ValueError, r"query_tokens has shape \[3, 2\]"),
        (
            {"temperature": 1.0, "seeds": torch.zeros(3).long(), "offsets": torch.zeros(4).long()},
            ValueError,
            r"seeds has shape \[3\]",
        ),
        ({"rows": torch.tensor([4])}, ValueError, r"rows\[0\] is 4"),
        ({"rows": torch.tensor([0.0])}, TypeError, "rows has dtype"),
    ],
)
def test_bad_arguments_are_named(device: str, arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        token_statistics(torch.zeros(4, 5, device=device), **on(device, arguments))
