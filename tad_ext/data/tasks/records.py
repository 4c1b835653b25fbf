"""The records of a problem file, or of a data set on the Hugging Face hub, each with its place for messages.

`--data` names one of

    problems.jsonl     one JSON object a line; problems.jsonl.gz the same, packed
    problems.parquet   one record a row
    hub                the data set that the task is usually loaded from
    hub:NAME           another one of the same columns, such as hub:HuggingFaceH4/MATH-500
    hub:NAME:CONFIG    one of its configurations
"""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tad_ext.data.jsonl import read_jsonl
from tad_ext.settings.kinds import shortened

Record = dict[str, Any]

_HUB = "hub"


@dataclass(frozen=True)
class HubDataset:
    """Where a task's records are on the hub. It is read by the package `datasets`, an extra."""

    name: str  #: such as "openai/gsm8k"
    configs: tuple[str | None, ...] = (None,)  #: all of them are read, one after the other
    splits: Mapping[str, str] = field(
        default_factory=lambda: {"train": "train", "test": "test"}
    )  #: what ours are there

    def records(self, split: str) -> Iterator[tuple[str, Record]]:
        """Every record of a split. ValueError for a split that is not there; what `load_dataset` raises otherwise."""
        if split not in self.splits:
            raise ValueError(f"split is {split!r}, but {self.name} has {' and '.join(self.splits)} only")
        for config in self.configs:
            rows = _datasets().load_dataset(self.name, config, split=self.splits[split])
            source = f"{self.name}{f', {config}' if config else ''}, split {self.splits[split]}"
            for number, row in enumerate(rows, 1):
                yield f"{source}, record {number}", dict(row)


def read_records(data: str | Path, split: str, usual: HubDataset | None) -> list[tuple[str, Record]]:
    """The records that `data` names; a file is every split.

    Raises FileNotFoundError for no such file, ValueError for one that cannot be read (naming the line) or holds no
    record; ModuleNotFoundError for the hub without `datasets`, which says how to install it.
    """
    dataset = _hub_dataset(str(data), usual)
    if dataset is not None:
        records = list(dataset.records(split))
    elif Path(data).suffix == ".parquet" and Path(data).is_file():
        records = _read_parquet(data)
    else:
        return read_jsonl(data, argument="data")
    if not records:
        raise ValueError(f"data is '{data}', which holds no record")
    return records


def text_of(place: str, record: Mapping[str, Any], *keys: str) -> str:
    """The text under the first of the keys that the record has. ValueError if it is no text, or a blank one."""
    key = next((key for key in keys if record.get(key) is not None), keys[0])
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{place}: {key!r} must be a text that is not empty, got {shortened(repr(value))}")
    return value


def _hub_dataset(data: str, usual: HubDataset | None) -> HubDataset | None:
    """The data set that `data` names; None for a file, which may have any name."""
    kind, named, rest = data.partition(":")
    if kind != _HUB or Path(data).exists():
        return None
    if named:
        name, _, config = rest.partition(":")
        return HubDataset(name, (config or None,))
    if usual is None:
        raise ValueError("data is 'hub', but this task has no usual data set there; expected a file or hub:NAME")
    return usual


def _read_parquet(path: str | Path) -> list[tuple[str, Record]]:
    import pyarrow.lib
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.lib.ArrowException, OSError) as error:
        raise ValueError(f"data is '{path}', which is no parquet file: {error}") from error
    return [(f"{path}, record {number}", row) for number, row in enumerate(rows, 1)]


def _datasets() -> Any:
    try:
        return importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "data names the hub, which is read by the package datasets: pip install datasets; or give a file"
        ) from error
