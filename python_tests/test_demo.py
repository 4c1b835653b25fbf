import dataclasses
import json

import pytest
import torch

from tad_ext.data.trajectories.files import read_trajectories
from tad_ext.evaluation import accuracy_at, accuracy_under_parallelism
from tad_ext.jobs.demo import run as demo
from tad_ext.jobs.demo.config import SMOKE, DemoConfig
from tad_ext.jobs.demo.run import COMPARED, ONE_PER_STEP, SWEEP

pytestmark = pytest.mark.slow

torch.set_num_threads(1)

SHORTEST = {
    "pretrain_steps": 2, "pretrain_batch_size": 4, "collect_problems": 4, "distill_steps": 2, "distill_batch_size": 4,
    "lora_rank": 2, "evaluate_problems": 3, "decay_trajectories": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(report, output folder, printed text) of the chain with hardly any training, where every answer counts as right:
    a model that has learned nothing would leave no trajectories to distill."""
    output = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tad_ext.data.tasks.arithmetic.ArithmeticTask.is_correct", lambda self, problem, text: True)
        printed: list[str] = []
        patch.setattr(demo.Console, "print", lambda self, *objects, **options: printed.extend(map(str, objects)))
        report = demo.demo(DemoConfig(output=str(output), **SHORTEST))
    return report, output, printed


def test_the_whole_chain_leaves_its_files(finished):
    report, output, _ = finished
    names = {path.name for path in output.iterdir()}
    assert names == {*demo.OWN_FILES, demo.MARKER}
    assert json.loads((output / "demo.json").read_text()) == report
    for name in ("curve.png", "confidence_decay.png"):
        assert (output / name).read_bytes().startswith(b"\x89PNG")


def test_the_report_compares_models_on_common_ground(finished):
    report, _, _ = finished
    for name in ("base", "distilled", demo.PLAIN):
        assert [point["policy"] for point in report[name]["points"]] == list(SWEEP)
        assert {point["problems"] for point in report[name]["points"]} == {3}
        curve = [
            (1.0 if point["policy"] == ONE_PER_STEP else point["tokens_per_forward"], point["accuracy"])
            for point in report[name]["points"]
        ]
        assert report[name]["aup"] == accuracy_under_parallelism(curve, report[name]["best_accuracy"])
        assert report[name]["accuracy_at"] == {"2": accuracy_at(curve, 2.0), "3": accuracy_at(curve, 3.0)}
        assert report[name]["best_accuracy"] == 100.0
    assert [point["policy"] for point in report["teacher"]["points"]] == [ONE_PER_STEP]
    assert set(report["confidence_decay"]) == {"base", "distilled"}
    assert list(report["stage_seconds"]) == list(demo.STAGES)


def test_the_distilled_model_is_the_merged_one(finished):
    report, output, _ = finished
    assert report["confidence_decay"]["base"] != report["confidence_decay"]["distilled"]
    from tad_ext.models.lora import load_merged

    canvas = torch.tensor([[10, 4, 19, 21, 21]])
    with torch.inference_mode():
        base, distilled, adapted = (
            load_merged(output / model, adapter)(canvas).logits
            for model, adapter in (("base", None), ("distilled", None), ("base", output / "distill" / "adapter"))
        )
    assert torch.allclose(distilled, adapted, atol=1e-5)
    assert not torch.equal(base, distilled)


def test_references_reach_only_the_models_that_learn_from_them(finished):
    _, output, _ = finished
    for folder, shown in (("trajectories", True), ("trajectories-plain", False)):
        runs, trajectories = read_trajectories(output / folder)
        assert runs[0].teacher_prompt == ("own" if shown else "none")
        assert {one.teacher_prompt_ids.tolist() != one.prompt_ids.tolist() for one in trajectories} == {shown}
    jobs = demo.job_settings(DemoConfig(output=str(output)))
    assert (jobs.pretraining.rare_weight, jobs.collection.teacher_prompt) == (0.0, "user")
    same = dataclasses.replace(
        jobs.plain_distillation, trajectories=jobs.distillation.trajectories, output=jobs.distillation.output
    )
    assert same == jobs.distillation


def test_without_right_answers_there_is_nothing_to_learn_from(tmp_path, monkeypatch):
    """Of the base alone: the demo says so, and shows the base."""
    right = "tad_ext.data.tasks.arithmetic.ArithmeticTask.is_correct"
    collect = demo.collect

    def nothing_kept(config):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(right, lambda self, problem, text: config.teacher_prompt != "none")
            return collect(config)

    monkeypatch.setattr(demo, "collect", nothing_kept)
    printed: list[str] = []
    monkeypatch.setattr(demo.Console, "print", lambda self, *objects, **options: printed.extend(map(str, objects)))
    report = demo.demo(DemoConfig(output=str(tmp_path / "out"), **SHORTEST))
    assert any("without references there is nothing to learn from" in line for line in printed)
    assert report[demo.PLAIN]["points"] == report["base"]["points"]


def test_the_settings_are_recorded(finished):
    report, output, _ = finished
    assert report["settings"] == json.loads((output / demo.MARKER).read_text())
    assert report["settings"]["lora_rank"] == 2


def test_the_table_shows_what_was_measured():
    point = {"policy": ONE_PER_STEP, "accuracy": 57.64, "standard_error": 2.46, "tokens_per_forward": 0.996}
    fast = point | {"policy": COMPARED, "accuracy": 55.0, "tokens_per_forward": 1.213}
    side = {
        "points": [point, fast], "aup": 66.61, "problems": 400, "best_accuracy": 60.0, "best_accuracy_from": "both",
        "definitions": {"tokens_per_forward": "tokens / forwards"}, "accuracy_at": {"2": 52.25, "3": None},
    }  # fmt: skip
    console = demo.Console(record=True, width=160)
    aups = {"base": 66.61, "distilled": 250.0, demo.PLAIN: 111.0}
    report = {name: side | {"aup": aup} for name, aup in aups.items()} | {"teacher": side}
    demo._print(console, DemoConfig(), report | {"stage_seconds": {"collect": 3.0}}, demo.Path("runs"))
    lines = console.export_text().splitlines()
    for name, aup in aups.items():
        line = next(line for line in lines if name in line and f"{aup:.1f}" in line)
        cells = [cell for cell in line.replace(name, "").split() if cell not in "│┃|"]
        assert cells == ["57.6", "±", "2.5", "1.00", "55.0", "±", "2.5", "1.21", "52.2", "-", f"{aup:.1f}"]


def test_smoke_replaces_only_what_was_left_alone():
    assert DemoConfig().with_smoke() == DemoConfig()
    changed = DemoConfig(smoke=True, distill_steps=77).with_smoke()
    assert changed.distill_steps == 77
    for name, value in SMOKE.items():
        if name != "distill_steps":
            assert getattr(changed, name) == value
            assert value < getattr(DemoConfig(), name) or name in ("pretrain_learning_rate", "pretrain_reference_share")


def test_smoke_names_real_settings():
    assert set(SMOKE) <= {field.name for field in dataclasses.fields(DemoConfig)}


@pytest.mark.parametrize("name", ["pretrain_steps", "collect_problems", "lora_rank", "evaluate_problems", "threads"])
def test_numbers_below_one_are_named(name, tmp_path):
    with pytest.raises(ValueError, match=f"{name} must be an integer .*, got 0"):
        demo.demo(DemoConfig(output=str(tmp_path), **{name: 0}))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "precious").write_text("data")
    with pytest.raises(ValueError, match="holds other files"):
        demo.demo(DemoConfig(output=str(tmp_path)))
    assert (tmp_path / "base" / "precious").read_text() == "data"


@pytest.fixture
def earlier(tmp_path):
    """A folder with an earlier demo's files, and one that is somebody else's."""
    for name in demo.OWN_FILES:
        if "." in name:
            (tmp_path / name).write_text("old")
        else:
            (tmp_path / name).mkdir()
            (tmp_path / name / "file").write_text("old")
    (tmp_path / demo.MARKER).write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    return tmp_path


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_an_earlier_demos_files_are_replaced_and_nothing_else(earlier, monkeypatch):
    monkeypatch.setattr(
        demo, "_run_stages", lambda config, output: {"seen": [one.name for one in output.glob("[a-z]*")]}
    )
    assert demo.demo(DemoConfig(output=str(earlier))) == {"seen": ["notes.txt"]}
    assert contents(earlier) == {"notes.txt": "mine"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_demo_that_fails_costs_no_earlier_one(earlier, monkeypatch, error):
    def failing(config):
        (earlier / "base").mkdir()
        (earlier / "base" / "file").write_text("new")
        raise error

    before = contents(earlier)
    monkeypatch.setattr("tad_ext.jobs.demo.run.pretrain", failing)
    with pytest.raises(error):
        demo.demo(DemoConfig(output=str(earlier)))
    assert contents(earlier) == before
    assert {path.name for path in earlier.iterdir()} == {*demo.OWN_FILES, demo.MARKER, "notes.txt"}


@pytest.mark.parametrize(
    "changes", [{"distill_learning_rate": -1.0}, {"device": "tpu"}, {"pretrain_learning_rate": 0.0}]
)
def test_wrong_settings_cost_no_earlier_demo(tmp_path, changes):
    (tmp_path / demo.MARKER).write_text("{}")
    (tmp_path / "base").mkdir()
    with pytest.raises(ValueError, match=r"learning_rate|device"):
        demo.demo(DemoConfig(output=str(tmp_path), **SHORTEST, **changes))
    assert (tmp_path / "base").is_dir()
