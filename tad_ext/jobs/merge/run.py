"""`tad merge`: a model and its LoRA adapter become one plain checkpoint, which decodes faster."""

from typing import Any

from tad_ext.files import rescued, tried_folder
from tad_ext.jobs.merge.config import MergeConfig
from tad_ext.models.hub import hub_note
from tad_ext.models.identity import model_fingerprint
from tad_ext.models.loading import load_tokenizer, save_model


def merge(config: MergeConfig) -> dict[str, Any]:
    """Writes the merged checkpoint, complete or not at all, with the tokenizer and a record of where it came from.

    Weights stand in the same files as the model's, under the same names.

    Raises ValueError for an output that cannot be written to and FileExistsError for one that holds files, both before
    the model is loaded; what `load_merged` raises; OSError if the checkpoint could not be written, saying where it is.
    """
    output = tried_folder(config.output, empty=True)
    tokenizer = load_tokenizer(config.model)
    model = config.load()
    origin = {"model": config.model, "model_fingerprint": model_fingerprint(config.model), "adapter": config.adapter}
    origin |= hub_note(config.model)
    reports = {"merged_from.json": origin}
    rescued(lambda path: save_model(model, tokenizer, path, reports=reports, like=config.model), output)
    print(f"merged checkpoint written to {output}")
    return origin | {"output": str(output)}
