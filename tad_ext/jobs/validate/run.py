"""`tad validate`: whatever is wrong with trajectory files, a line each."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from tad_ext.data.trajectories.validation import validate_folders
from tad_ext.jobs.validate.config import ValidateConfig
from tad_ext.terminal import printable

_MOST_SHOWN = 5  # faults of one file


def validate(config: ValidateConfig) -> int:
    """Prints every fault, those of a file beyond five as a number; 0 if there is none, otherwise 1.

    Raises ValueError for a folder that is none, or a model that cannot be read.
    """
    model_config, own_hash = (None, None) if config.model is None else _model(config.model)
    found = validate_folders(config.trajectories, model_config, own_hash)
    by_path: dict[Path, list[str]] = defaultdict(list)
    for path, text in found.faults:
        by_path[path].append(text)
    for path, texts in sorted(by_path.items()):
        for text in texts[:_MOST_SHOWN]:
            print(printable(f"{path}: {text}"))
        if len(texts) > _MOST_SHOWN:
            print(f"{path}: and {len(texts) - _MOST_SHOWN} more")
    what = f"{found.files} files, {found.trajectories} trajectories"
    print(f"{what}: {len(found.faults)} faults in {len(by_path)} of them" if found.faults else f"{what}: no faults")
    return 1 if found.faults else 0


def _model(folder: str) -> tuple[Any, str]:
    from tad_ext.models.loading import load_config, load_tokenizer  # here, because they take seconds to import
    from tad_ext.models.tokenizers import tokenizer_hash

    return load_config(folder), tokenizer_hash(load_tokenizer(folder))
