"""The last layer computes the wanted positions alone, and of these what it would compute with all others."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from every_family import every_family, write
from torch import Tensor

from tad_ext.models.cache import KeyValueCache
from tad_ext.models.loading import load_model

IDS = torch.randint(0, 6, (3, 13), generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([13, 9, 11])
# Of each row its own ones; -1 is padding.
POSITIONS = torch.tensor([[0, 4, 12, -1], [13 + 8, 13 + 3, -1, -1], [26 + 1, 26 + 2, 26 + 3, 26 + 10]])


@contextmanager
def computed_by_each_mlp(model: Any) -> Iterator[list[int]]:
    """The positions of a row that every layer's MLP is given."""
    counts: list[int] = []
    handles = [
        layer.mlp.register_forward_hook(lambda _module, inputs, _output: counts.append(inputs[0].shape[1]))
        for layer in model.model.layers
    ]
    yield counts
    for handle in handles:
        handle.remove()


def agree(found: Tensor, expected: Tensor) -> bool:
    """Where anything was wanted."""
    wanted = POSITIONS >= 0
    return torch.allclose(found[wanted], expected.view(found.shape)[wanted], rtol=1e-9, atol=1e-9)


@every_family
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "padded"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_wanted_positions_alone(family: str, lengths: Tensor | None, attention: str, tmp_path: Path) -> None:
    model = load_model(write(family, tmp_path / family), device="cpu").double()
    model.set_attn_implementation(attention)
    with torch.no_grad(), computed_by_each_mlp(model) as counts:
        expected = model.hidden_rows(IDS, lengths=lengths).flatten(0, 1)[POSITIONS.flatten()]
        assert counts == [13] * len(counts)
        del counts[:]
        found = model.hidden_rows(IDS, lengths=lengths, positions=POSITIONS)
        assert counts == [13] * (len(counts) - 1) + [4]
        assert found.shape == (3, 4, model.config.hidden_size)
        assert found.isfinite().all()
        assert agree(found, expected)
        logits = model(IDS, lengths=lengths, positions=POSITIONS).logits
        assert torch.equal(logits, model.lm_head(found))
        many = POSITIONS.repeat(1, 2)  # more than half of all: nothing to win
        del counts[:]
        of_many = model.hidden_rows(IDS, lengths=lengths, positions=many)
        assert counts == [13] * len(counts)
        assert agree(of_many[:, 4:].contiguous(), expected)


@every_family
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "padded"])
def test_of_a_flat_list_too(family: str, lengths: Tensor | None, tmp_path: Path) -> None:
    """In any order, with gradients: those of a forward that computes every position."""
    model = load_model(write(family, tmp_path / family), device="cpu").double()
    flat = POSITIONS[POSITIONS >= 0].flip(0).roll(2)
    gradients = []
    for chosen in (True, False):
        model.zero_grad()
        with computed_by_each_mlp(model) as counts:
            hidden = model.hidden_rows(IDS, lengths=lengths, positions=flat if chosen else None)
        assert counts[-1] == (4 if chosen else 13)
        rows = hidden if chosen else hidden.flatten(0, 1)[flat]
        (rows * torch.linspace(-1, 1, rows.numel()).view_as(rows).double()).sum().backward()
        gradients.append([rows.detach(), *(one.grad for one in model.parameters() if one.grad is not None)])
    assert len(gradients[0]) > 10
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


def test_many_or_none_of_a_flat_list(tmp_path: Path) -> None:
    model = load_model(write("llada", tmp_path / "llada"), device="cpu").double()
    with torch.no_grad(), computed_by_each_mlp(model) as counts:
        assert len(model.hidden_rows(IDS, positions=torch.zeros(0, dtype=torch.int64))) == 0
        everything = model.hidden_rows(IDS, positions=torch.arange(39))
        assert counts == [13] * len(counts)
        assert torch.equal(everything, model.hidden_rows(IDS).flatten(0, 1))


@every_family
def test_in_a_window_beside_kept_keys_and_values(family: str, tmp_path: Path) -> None:
    model = load_model(write(family, tmp_path / family), device="cpu").double()
    kept, again = KeyValueCache(3, 13), KeyValueCache(3, 13)
    first = torch.tensor([2, 0, 1])
    columns = torch.minimum(first[:, None] + torch.arange(9), torch.tensor([10, 8, 9])[:, None])
    wanted = torch.tensor([[3, 9, -1], [13 + 1, 13 + 5, 13 + 8], [26 + 4, 26 + 2, -1]])
    changed = IDS.clone()
    changed[:, 5] = (IDS[:, 5] + 1) % 6
    with torch.no_grad(), computed_by_each_mlp(model) as counts:
        for cache in (kept, again):
            model.hidden_rows(IDS, lengths=LENGTHS, cache=cache)
        del counts[:]
        options: dict[str, Any] = {"lengths": LENGTHS, "columns": columns}
        expected = model.hidden_rows(changed, positions=wanted.flatten(), cache=kept, **options)
        found = model.hidden_rows(changed, positions=wanted, cache=again, **options)
    layers = len(model.model.layers)
    assert counts == [9] * (2 * layers - 1) + [3]
    real = wanted >= 0
    torch.testing.assert_close(found[real], expected.view(found.shape)[real], rtol=1e-9, atol=1e-9)
    for one, other in zip(kept._layers, again._layers, strict=True):  # all columns' keys and values are kept
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@every_family
def test_gradients_are_the_same(family: str, tmp_path: Path) -> None:
    model = load_model(write(family, tmp_path / family), device="cpu").double()
    wanted = torch.where(POSITIONS < 0, 13 * torch.arange(3)[:, None], POSITIONS)
    gradients = []
    for positions in (wanted, wanted.flatten()):
        model.zero_grad()
        model.hidden_rows(IDS, lengths=LENGTHS, positions=positions).square().sum().backward()
        gradients.append([weight.grad.clone() for weight in model.model.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


@every_family
def test_no_layer_is_divided_among_devices(family: str, tmp_path: Path) -> None:
    model = load_model(write(family, tmp_path / family), device="cpu")
    assert {type(layer).__name__ for layer in model.model.layers} <= set(model._no_split_modules)
