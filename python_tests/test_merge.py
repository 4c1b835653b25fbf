"""`tad merge`: the files of a merged checkpoint are those of its model, for whatever code reads that."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_checkpoints import write_dream, write_llada
from transformer_formula import llada_logits

from tad_ext.jobs.merge.config import MergeConfig
from tad_ext.jobs.merge.run import merge
from tad_ext.models import add_lora, load_model, save_adapter
from tad_ext.models.lora import load_merged

IDS = torch.arange(12)


def merged(folder: Path, dtype: str = "auto") -> Path:
    """The checkpoint in folder/base, merged with an adapter that changes it."""
    adapted = add_lora(load_model(folder / "base"), rank=4, alpha=8.0)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    save_adapter(adapted, folder / "adapter")
    paths = {name: str(folder / name) for name in ("adapter", "output")}
    merge(MergeConfig(model=str(folder / "base"), dtype=dtype, **paths))  # type: ignore[arg-type]
    return folder / "output"


def layout(folder: Path) -> dict[str, Any]:
    """Weight -> its file, shape and dtype; None -> the index."""
    found: dict[Any, Any] = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            assert weights.metadata() == {"format": "pt"}
            for name in weights.keys():  # noqa: SIM118
                part = weights.get_slice(name)
                found[name] = (file.name, part.get_shape(), part.get_dtype())
    index = folder / "model.safetensors.index.json"
    return {**found, None: json.loads(index.read_text()) if index.exists() else ""}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"shards": 3}, {"shards": 3, "tied": True}, {"tied": True}], ids=str)
@pytest.mark.parametrize("write", [write_llada, write_dream])
def test_every_weight_stands_in_the_file_that_it_had(
    tmp_path: Path, write: Any, options: dict[str, Any], dtype: torch.dtype
) -> None:
    written = write(tmp_path / "base", dtype=dtype, **options)
    output = merged(tmp_path)
    assert layout(output) == layout(tmp_path / "base")
    with torch.no_grad():
        found, wanted = load_model(output)(IDS[None]).logits, load_merged(tmp_path / "base", tmp_path / "adapter")
        assert torch.equal(found, wanted(IDS[None]).logits)
        assert not torch.equal(found, load_model(written.folder)(IDS[None]).logits)


def test_a_formula_of_the_authors_names_reads_the_shards(tmp_path: Path) -> None:
    written = write_llada(tmp_path / "base", shards=4)
    output = merged(tmp_path)
    weights = {name: weight for file in output.glob("*.safetensors") for name, weight in load_file(file).items()}
    config = json.loads((output / "config.json").read_text())
    assert {name: config[name] for name in written.config if name != "transformers_version"} == {
        name: value for name, value in written.config.items() if name != "transformers_version"
    }
    wanted = llada_logits(weights, config, IDS, dtype=torch.float64, rotation=torch.float64)
    torch.testing.assert_close(load_model(output)(IDS[None]).logits[0].double(), wanted, rtol=0, atol=1e-4)


def test_another_dtype_has_the_same_files(tmp_path: Path) -> None:
    write_llada(tmp_path / "base", dtype=torch.bfloat16, shards=3)
    output = merged(tmp_path, dtype="float32")
    index, found = layout(tmp_path / "base").pop(None), layout(output)
    assert found[None]["weight_map"] == index["weight_map"]
    assert found.pop(None)["metadata"]["total_size"] == 2 * index["metadata"]["total_size"]
    assert {dtype for _, _, dtype in found.values()} == {"F32"}
    assert json.loads((output / "config.json").read_text())["torch_dtype"] == "float32"


def test_the_authors_code_goes_with_the_configuration_that_names_it(tmp_path: Path) -> None:
    write_llada(tmp_path / "base")
    (tmp_path / "base" / "modeling_llada.py").write_text("raise SystemExit('never run here')\n")
    output = merged(tmp_path)
    assert "modeling_llada.LLaDAModelLM" in json.loads((output / "config.json").read_text())["auto_map"].values()
    assert (output / "modeling_llada.py").read_text() == "raise SystemExit('never run here')\n"
