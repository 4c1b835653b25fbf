"""`tad window`, from a checkpoint and trajectory files to the deltas that it names."""

import json
from dataclasses import replace

import collection_runs
import pytest

from tad_ext.cli import main
from tad_ext.data.trajectories.files import read_trajectories, write_part
from tad_ext.evaluation import ConfidenceDecay, DecaySettings, confidence_by_distance
from tad_ext.evaluation.decay import Delta
from tad_ext.jobs.collect.run import collect
from tad_ext.jobs.window.config import WindowConfig
from tad_ext.jobs.window.run import recommendation, window
from tad_ext.models.loading import load_model
from tad_ext.settings import made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model with random weights, and two collections of its trajectories: "base", "first", "second"."""
    folder = tmp_path_factory.mktemp("window")
    model = collection_runs.make_model(folder / "base", seed=0)
    canvas = {"gen_length": 12, "block_length": 12, "keep": "all", "limit": 4}
    collect(collection_runs.config(model, folder / "first", **canvas))
    collect(collection_runs.config(model, folder / "second", split="test", seed=1, **canvas))
    return folder


@pytest.fixture
def settings(folder, tmp_path):
    def make(*collections, **changes):
        paths = {"model": str(folder / "base"), "output": str(tmp_path / "out"), "keep": "all"}
        trajectories = [str(folder / name) for name in collections or ("first",)]
        return made(WindowConfig, {**paths, "trajectories": trajectories, "device": "cpu", **changes})

    return make


def changed(folder, path, **metadata):
    """The first collection in another folder, with other metadata."""
    (own,), trajectories = read_trajectories(folder / "first")
    path.mkdir()
    write_part(path / "part-00000-00000000.parquet", replace(own, **metadata), trajectories)
    return str(path)


def test_the_command(folder, tmp_path, capsys):
    source = ["--model", folder / "base", "--trajectories", folder / "first", folder / "second"]
    numbers = [
        "--keep",
        "all",
        "--max-distance",
        5,
        "--bootstrap-samples",
        100,
        "--quality-level",
        0.3,
        "--device",
        "cpu",
    ]
    assert main(["window", *map(str, [*source, *numbers, "--output", tmp_path / "out"])]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"window.json", "confidence_decay.png"}
    assert (tmp_path / "out" / "confidence_decay.png").read_bytes().startswith(b"\x89PNG")

    trajectories = [one for name in ("first", "second") for one in read_trajectories(folder / name)[1]]
    chosen = DecaySettings(max_distance=5, bootstrap_samples=100, quality_level=0.3)
    decay = confidence_by_distance(load_model(folder / "base", device="cpu"), trajectories, chosen)
    report = json.loads((tmp_path / "out" / "window.json").read_text())
    assert report["problems"] == 8
    assert {name: report[name] for name in decay.to_json() if name != "settings"} == {
        name: value for name, value in decay.to_json().items() if name != "settings"
    }
    assert report["settings"]["trajectories"] == [str(folder / "first"), str(folder / "second")]
    assert report["settings"]["quality_level"] == 0.3

    printed = capsys.readouterr().out
    assert recommendation(decay) in printed.splitlines()
    cells = [line.replace("│", " ").split() for line in printed.splitlines()]
    for distance, confidence, (low, high), count in zip(
        decay.distances, decay.confidence, decay.intervals, decay.counts, strict=True
    ):
        assert [str(distance), f"{confidence:.3f}", f"{low:.3f}", "to", f"{high:.3f}", str(count)] in cells


def test_the_same_settings_give_the_same_report(settings):
    assert window(settings()) == window(settings())
    assert window(settings()) != window(settings(seed=1))


@pytest.mark.parametrize(
    ("quality", "speed", "text"),
    [
        ((8, [7, 9]), (20, [18, 23]), "delta for quality: 8 (95 % interval 7 to 9); for speed: 20 (18 to 23)"),
        (
            (8, [7, None]),
            (None, [31, None]),
            "delta for quality: 8 (95 % interval 7 to more than 32); "
            "for speed: more than 32 (31 to more than 32)",
        ),
    ],
)  # fmt: skip
def test_the_recommendation(quality, speed, text):
    deltas = {"quality": Delta(0.5, *quality), "speed": Delta(0.2, *speed)}
    nothing = [0.0] * 32
    decay = ConfidenceDecay([*range(1, 33)], nothing, [[0.0, 0.0]] * 32, [1] * 32, 9, deltas, DecaySettings())
    assert recommendation(decay) == text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trajectories": []}, "trajectories must name at least one folder"),
        ({"trajectories": ["nowhere"]}, "trajectories is 'nowhere'"),
        ({"model": "nowhere"}, "nowhere"),
        ({"bootstrap_samples": 1}, "bootstrap_samples must be an integer in .*, got 1"),
        ({"speed_level": 0.6}, "speed_level must be at most quality_level"),
        ({"output": "/proc/x"}, "output must be a folder"),
    ],
)
def test_wrong_settings_are_named_before_the_model_is_loaded(settings, tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr("tad_ext.jobs.common.ModelSettings.load", lambda _: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=message):
        window(settings(**changes))
    assert not (tmp_path / "out").exists()


def test_wrong_answers_are_left_out(settings, folder, tmp_path):
    (run,), trajectories = read_trajectories(folder / "first")
    (tmp_path / "mixed").mkdir()
    mixed = [replace(one, correct=index < 3) for index, one in enumerate(trajectories)]
    write_part(tmp_path / "mixed" / "part-00000-00000000.parquet", run, mixed)
    assert window(settings(trajectories=[str(tmp_path / "mixed")], keep="correct"))["problems"] == 3
    assert window(settings(trajectories=[str(tmp_path / "mixed")]))["problems"] == 4
    with pytest.raises(ValueError, match=r"trajectories in .*first hold no trajectory with a correct answer"):
        window(settings(keep="correct"))


def test_a_folder_twice_would_count_its_trajectories_twice(settings, folder):
    with pytest.raises(ValueError, match=r"trajectories must name different folders, got .*first"):
        window(settings("first", "second", "../" + folder.name + "/first"))


@pytest.mark.parametrize("metadata", [{"mask_token_id": 1}, {"tokenizer_hash": "another"}])
def test_every_folder_must_fit_the_model(settings, folder, tmp_path, metadata):
    other = changed(folder, tmp_path / "other", **metadata)
    with pytest.raises(ValueError, match=r"trajectories '.*other' were made with .*, the model's is"):
        window(settings(trajectories=[other]))
    with pytest.raises(ValueError, match=r"other.* does not belong with .*first"):
        window(settings(trajectories=[str(folder / "first"), other]))


def test_the_teachers_prompt_need_not_fit(settings, folder, tmp_path):
    (own,), trajectories = read_trajectories(folder / "first")
    (tmp_path / "long").mkdir()
    longer = [replace(one, teacher_prompt_ids=[0] * 999) for one in trajectories]
    write_part(tmp_path / "long" / "part-00000-00000000.parquet", own, longer)
    assert window(settings(trajectories=[str(tmp_path / "long")]))["problems"] == 4


def test_an_earlier_report_stands_until_the_next_is_complete(settings, tmp_path, monkeypatch):
    window(settings())
    earlier = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def failing(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tad_ext.jobs.window.run.plot_confidence_decay", failing)
    with pytest.raises(OSError, match="No space left"):
        window(settings(seed=1))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()} == earlier
