"""Masks behind a row, which predict what stands there from everything else."""

from pathlib import Path

import pytest
import torch
from every_family import write
from tiny_checkpoints import write_llada
from transformer_formula import llada_logits, stored_weights

from tad_ext.models.cache import KeyValueCache
from tad_ext.models.loading import load_model

IDS = torch.randint(0, 6, (2, 9), generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([9, 6])
SHADOW = torch.tensor([[5, 6, 7], [4, 5, -1]])
unshifted = pytest.mark.parametrize("family", ["llada", "sdar", "llada_moe", "tiny"])


def model_of(family: str, folder: Path):  # type: ignore[no-untyped-def]
    model = load_model(write(family, folder / family), dtype="float64")
    model.config.causal_block_length = None
    return model


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_logits_are_those_of_the_formula(attention: str, tmp_path: Path) -> None:
    """A row and its masks are one text, whose tokens stand, and see each other, as is written out here."""
    written = write_llada(tmp_path)
    model = load_model(tmp_path, dtype="float64")
    model.set_attn_implementation(attention)
    logits = model(IDS, lengths=LENGTHS, shadow=SHADOW).logits
    for row, (length, columns) in enumerate([(9, [5, 6, 7]), (6, [4, 5])]):
        places = [*range(length), *columns]
        ids = torch.tensor([*IDS[row, :length].tolist(), *[model.config.mask_token_id] * len(columns)])
        attends = torch.ones(len(places), len(places), dtype=torch.bool)
        attends[:length, length:] = False
        for number, column in enumerate(columns):
            attends[length + number, column] = False
        exact = {"dtype": torch.float64, "rotation": torch.float64, "places": torch.tensor(places)}
        wanted = llada_logits(stored_weights(written.folder), written.config, ids, attends=attends, **exact)
        found = torch.cat((logits[row, :length], logits[row, 9 : 9 + len(columns)]))
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
        seeing_all = llada_logits(stored_weights(written.folder), written.config, ids, **exact)
        assert (wanted - seeing_all)[:length].abs().max() > 1e-3
        assert (wanted - seeing_all)[length:].abs().max() > 1e-3


@torch.no_grad()
@unshifted
def test_one_mask_through_one_layer_is_a_row_with_a_mask_in_its_place(family: str, tmp_path: Path) -> None:
    model = model_of(family, tmp_path)
    del model.model.layers[:-1]
    model.model.layers[0].self_attn.layer_idx = 0
    mask = model.config.mask_token_id
    ids = IDS.where(mask != IDS, (mask + 1) % 6)
    for column in (0, 3, 5):
        masked = ids.clone()
        masked[:, column] = mask
        shadow = torch.full((2, 1), column)
        wanted = model.hidden_rows(masked, lengths=LENGTHS)[:, column]
        found = model.hidden_rows(ids, lengths=LENGTHS, shadow=shadow)
        torch.testing.assert_close(found[:, 9], wanted, rtol=1e-9, atol=1e-9)
        of_row = model.hidden_rows(ids, lengths=LENGTHS)[:, column]
        assert (of_row - wanted).abs().max() > 1e-3


@torch.no_grad()
@unshifted
def test_a_row_does_not_see_its_shadow(family: str, tmp_path: Path) -> None:
    """Nor does padding of either kind, or the choice of positions, change anything."""
    model = model_of(family, tmp_path)
    close = {"rtol": 1e-9, "atol": 1e-9}
    whole = model.hidden_rows(IDS, lengths=LENGTHS, shadow=SHADOW)
    assert whole.shape[:2] == (2, 12)
    row = model.hidden_rows(IDS, lengths=LENGTHS)
    torch.testing.assert_close(whole[0, :9], row[0], **close)
    torch.testing.assert_close(whole[1, :6], row[1, :6], **close)
    alone = model.hidden_rows(IDS[1:, :6], shadow=SHADOW[1:, :2])
    torch.testing.assert_close(whole[1:, [*range(6), 9, 10]], alone, **close)
    for positions in (torch.tensor([2, 10, 12 + 9, -1]), torch.tensor([[0, 9], [12 + 10, -1]])):
        found = model.hidden_rows(IDS, lengths=LENGTHS, shadow=SHADOW, positions=positions)
        torch.testing.assert_close(found[positions >= 0], whole.flatten(0, 1)[positions[positions >= 0]], **close)
    assert whole.isfinite().all()


def test_what_is_refused(tmp_path: Path) -> None:
    model, dream = (load_model(write(family, tmp_path / family)) for family in ("llada", "dream"))
    message = "shadow needs attention in both directions, and no shift, no cache and no shares"
    for options in ({"blocks": IDS * 0}, {"cache": KeyValueCache(2, 9)}, {"shares": torch.ones(2, 9)}):
        with pytest.raises(ValueError, match=message):
            model.hidden_rows(IDS, shadow=SHADOW, **options)
    with pytest.raises(ValueError, match=message):
        dream(IDS, shadow=SHADOW)
    with pytest.raises(ValueError, match="and no cache, no shares and no shadow"):
        model(IDS, shadow=SHADOW, blocks=IDS * 0, clean=IDS)
    with pytest.raises(TypeError, match=r"shadow must be an int64 tensor, got torch.int32"):
        model(IDS, shadow=SHADOW.int())
    with pytest.raises(ValueError, match="shadow must have one row per row of input_ids, 2, got 1"):
        model(IDS, shadow=SHADOW[:1])
