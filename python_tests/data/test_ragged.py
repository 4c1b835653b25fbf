"""Rows are padded on the right, and flat positions point at the columns that were asked for."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tad_ext.data.ragged import Ragged, ragged, to_device

PAD = 7
FORMS = {
    "list": list,
    "array": lambda row: np.array(row, dtype=np.int32),
    "tensor": lambda row: torch.tensor(row).long(),
}


@given(st.data())
def test_every_row_and_every_wanted_entry_is_found_again(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(sorted(FORMS)))
    rows = data.draw(st.lists(st.lists(st.integers(0, 99), max_size=6), max_size=5))
    columns = [data.draw(st.lists(st.integers(0, len(row) - 1)) if row else st.just([])) for row in rows]
    ids, lengths, positions = ragged(list(map(FORMS[form], rows)), list(map(FORMS[form], columns)), PAD)

    width = max(map(len, rows), default=0)
    assert ids.tolist() == [row + [PAD] * (width - len(row)) for row in rows]
    assert ids.shape == (len(rows), width)
    assert (lengths is None) == all(len(row) == width for row in rows)
    assert lengths is None or lengths.tolist() == list(map(len, rows))
    assert positions.tolist() == [number * width + column for number, wanted in enumerate(columns) for column in wanted]
    assert ids.flatten()[positions].tolist() == [
        row[column] for row, wanted in zip(rows, columns, strict=True) for column in wanted
    ]
    assert {tensor.dtype for tensor in (ids, positions, *([] if lengths is None else [lengths]))} == {torch.int64}


def test_columns_of_another_number_of_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        ragged([[1, 2]], [[0], [1]])


def test_a_batch_goes_to_a_device_as_a_whole() -> None:
    batch = ragged([[1, 2], [3]], [[1], [0]])
    there = batch.to("meta")
    assert isinstance(there, Ragged)
    assert [tensor.device.type for tensor in there if tensor is not None] == ["meta"] * 3
    assert ragged([[1, 2]], [[1]]).to("meta").lengths is None
    assert to_device([[1, 2]], "cpu").tolist() == [[1, 2]]
    assert to_device([], "cpu").dtype == torch.int64
