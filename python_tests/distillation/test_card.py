"""The model card beside an adapter, and the picture of its loss."""

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import peft
import pytest
import yaml
from peft import PeftModel

from tad_ext.distillation.curve import write_curve
from tad_ext.distillation.trainer import StepRecord
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill
from tad_ext.models.identity import model_fingerprint
from tad_ext.models.loading import load_model
from tad_ext.settings import made, options_of, values_of


def tables(text: str) -> dict[str, dict[str, str]]:
    """The card's sections, each a table of names and values."""
    found: dict[str, dict[str, str]] = {}
    for section in text.split("\n## ")[1:]:
        title, *lines = section.splitlines()
        rows = [line.strip("| ").split(" | ", 1) for line in lines if line.startswith("| ") and "---" not in line]
        found[title] = {name: value for name, value in (row for row in rows if len(row) == 2)}
    return found


def test_it_says_what_the_adapter_is(job: Callable[..., DistillConfig]) -> None:
    config = job(max_steps=12, delta=5, kl_weight=0.25, log_every=6, learning_rate=2e-3)
    result = distill(config)
    text = (result.adapter / "README.md").read_text()
    _, front, _ = text.split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert (metadata["base_model"], metadata["library_name"]) == (config.model, "peft")
    assert metadata["tags"] == [f"base_model:adapter:{config.model}", "lora", "masked-diffusion"]

    found = tables(text)
    assert found["Base model"]["fingerprint"] == model_fingerprint(config.model)
    data, objective, training = found["Data"], found["Objective"], found["Training"]
    assert (data["tasks"], data["trajectories"], data["states"], len(data["hash"])) == ("made-up", "4", "32", 16)
    assert (objective["objective"], objective["delta"], objective["kl_weight"]) == ("tad", "5", "0.25")
    assert objective.keys() >= {"ce_weight", "temperature", "normalization", "group_size"}
    assert (found["Adapter"]["rank"], found["Adapter"]["alpha"]) == ("4", "8")
    assert (training["steps"], training["epochs"], training["states per step"]) == ("12", "3", "8")
    assert (training["learning_rate"], training["seed"]) == ("0.002", "0")
    loss = found["Loss, mean of steps 3 to 12"]
    for name in ("loss", "ce", "kl"):
        values = [record.loss if name == "loss" else record.parts[name] for record in result.history[2:]]
        assert float(loss[name]) == pytest.approx(sum(values) / 10, rel=1e-5)
    looked_at = found["Training data before the update of step 12, means"]
    expected = result.history[-1].watched["near"]["confidence"]
    assert float(looked_at["near confidence"]) == pytest.approx(expected, rel=1e-5)
    assert found["Framework versions"]["peft"] == peft.__version__


def test_the_same_data_has_the_same_hash(job: Callable[..., DistillConfig], tmp_path: Path) -> None:
    first, second = (
        distill(job(max_steps=1, seed=seed, output=str(tmp_path / f"{seed}"))).adapter / "README.md" for seed in (0, 1)
    )
    one, other = tables(first.read_text()), tables(second.read_text())
    assert one["Data"] == other["Data"]
    assert one["Training"]["seed"] != other["Training"]["seed"]


def test_the_hub_and_peft_read_it(job: Callable[..., DistillConfig]) -> None:
    hub = pytest.importorskip("huggingface_hub")
    config = job(max_steps=1)
    folder = distill(config).adapter
    card = hub.ModelCard.load(folder / "README.md")
    assert (card.data.base_model, card.data.library_name) == (config.model, "peft")
    adapted = PeftModel.from_pretrained(load_model(config.model), folder)
    adapted.save_pretrained(folder)  # peft writes into the card that it finds
    again = hub.ModelCard.load(folder / "README.md")
    assert again.data.base_model == config.model
    assert "## Objective" in again.text


def test_what_an_adapter_was_started_from(job: Callable[..., DistillConfig], tmp_path: Path) -> None:
    first = distill(job(max_steps=1, output=str(tmp_path / "first"))).adapter
    config = job(max_steps=1, output=str(tmp_path / "second"))
    of_lora = {option.name for option in options_of(DistillConfig) if option.group == "lora"}
    given = {name: values_of(config)[name] for name in config.given - of_lora}
    second = distill(made(DistillConfig, given | {"adapter": str(first)})).adapter
    assert tables((second / "README.md").read_text())["Adapter"] == {"adapter": str(first)}


def record(step: int) -> StepRecord:
    return StepRecord(step, 0.5, 2.0 / step, {"ce": 1.0 / step, "kl": 1.0 / step}, {"states": 1}, 1e-3, 1.0)


def test_the_picture_is_a_small_svg(tmp_path: Path) -> None:
    labels = {"ce": "CE < nats", "kl": "KL & more"}
    sizes = []
    for count in (1, 200, 5000):
        path = tmp_path / f"{count}.svg"
        write_curve(path, [record(step) for step in range(1, count + 1)], labels)
        words = "".join(ElementTree.parse(path).getroot().itertext())
        assert all(word in words for word in ("loss", "CE < nats", "KL & more", "optimizer step"))
        assert ("means of 17" in words) == (count == 5000)
        sizes.append(path.stat().st_size)
    assert max(sizes) < 50_000


def test_the_curve_of_a_training(job: Callable[..., DistillConfig]) -> None:
    config = job(max_steps=2)
    distill(config)
    words = "".join(ElementTree.parse(Path(config.output, "loss.svg")).getroot().itertext())
    assert "KL of distant entries" in words
