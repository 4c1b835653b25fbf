"""Everything that is wrong with some trajectory files, where reading them would stop at the first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tad_ext.data.trajectories.files import Part, mixtures, part_files, read_part, repeats
from tad_ext.data.trajectories.fits import misfits, run_misfits


class Fault(NamedTuple):
    """Something that is wrong with a file, or with a folder."""

    path: Path
    text: str


@dataclass(frozen=True)
class Validation:
    """What was found in some folders."""

    files: int
    trajectories: int  #: in files that can be read
    faults: list[Fault]


def validate_folders(
    folders: Sequence[str | Path], config: Any = None, tokenizer_hash: str | None = None
) -> Validation:
    """Reads every file; with a model's configuration and `tokenizer_hash`, trajectories are to fit it, too.

    ValueError for a folder that is none.
    """
    files = {Path(folder): part_files(folder) for folder in folders}
    faults = [
        Fault(folder, "holds no trajectory files, part-*.parquet") for folder, found in files.items() if not found
    ]
    parts: list[Part] = []
    for path in (path for found in files.values() for path in found):
        try:
            parts.append(read_part(path))
        except ValueError as error:
            faults.append(Fault(path, str(error).removeprefix(f"{path}: ")))
    faults += [Fault(*fault) for fault in (*repeats(parts), *mixtures(parts))]
    for part in parts:
        faults += [Fault(part.path, text) for text in _of_part(part, config, tokenizer_hash)]
    return Validation(sum(map(len, files.values())), sum(len(part.trajectories) for part in parts), faults)


def _of_part(part: Part, config: Any, tokenizer_hash: str | None) -> Iterator[str]:
    mask = part.metadata.mask_token_id
    for item in part.trajectories:
        if (item.response_ids == mask).any():
            yield f"record {item.id!r}, sample {item.sample}: is unfinished, response_ids holds the mask id {mask}"
    if config is None or tokenizer_hash is None:
        return
    faults = [f"trajectories {text}" for text in run_misfits(part.metadata, config, tokenizer_hash)]
    yield from faults
    if not faults:  # ids of another tokenizer mean nothing here
        for item in part.trajectories:
            for text in misfits(item, config):
                yield f"record {item.id!r}, sample {item.sample}: {text}"
