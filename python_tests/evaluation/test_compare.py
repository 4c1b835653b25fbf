"""`tad compare`: what it writes, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest

from python_tests.evaluation.made_evaluations import made_evaluation, write_evaluation
from tad_ext.evaluation import accuracy_under_parallelism, read_aup_data, read_evaluation
from tad_ext.jobs.compare.config import CompareConfig
from tad_ext.jobs.compare.run import compare
from tad_ext.settings import made

RUNS = {"topk:1": 0.6, "entropy:0.3": 0.6, "entropy:0.8": 0.5}
PUBLISHED = "words:\n  theirs:\n  - [1.0, 70.0]\n  - [5.0, 69.0]\n"


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Two evaluations; the second has a preset besides."""
    first = made_evaluation("base", RUNS)
    second = made_evaluation(
        "distilled", {"topk:1": 0.95, "entropy:0.3": 0.9, "entropy:0.5": 0.9, "preset:tad": 0.9}, seed=1
    )
    return [write_evaluation(tmp_path / one.name, one) for one in (first, second)]


def settings(folders: list[str], tmp_path: Path, **changes: Any) -> CompareConfig:
    defaults = {"evaluations": folders, "output": str(tmp_path / "out"), "bootstrap_samples": 100}
    return made(CompareConfig, defaults | changes)


def test_what_it_writes(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "published.yaml").write_text(PUBLISHED)
    report = compare(settings(folders, tmp_path, published=[str(tmp_path / "published.yaml")]))
    output = tmp_path / "out"
    assert {path.name for path in output.iterdir()} == {
        "comparison.json", "comparison.md", "comparison.png", "curves.yaml"
    }  # fmt: skip
    assert json.loads((output / "comparison.json").read_text()) == report
    names = ["base", "distilled, entropy", "distilled, preset:tad", "theirs"]
    assert [one["name"] for one in report["summaries"]] == names
    assert [(one["name"], one["other"]) for one in report["differences"]] == [(name, "base") for name in names[1:]]
    assert [(one["name"], one["run"]) for one in report["tests"]] == [
        ("distilled", "topk:1"), ("distilled", "entropy:0.3")
    ]  # fmt: skip
    assert all(one["p_value"] < 0.05 for one in report["tests"])
    best = max(accuracy for one in report["summaries"] for _, accuracy in one["points"])
    assert report["best_accuracy"] == best
    assert report["summaries"][3]["aup"] == {
        "value": accuracy_under_parallelism([(1.0, 70.0), (5.0, 69.0)], best), "interval": None, "draws": 1.0
    }  # fmt: skip
    curves = read_aup_data(output / "curves.yaml")["words"]
    assert curves["theirs"] == [(1.0, 70.0), (5.0, 69.0)]
    assert curves["base"] == read_evaluation(folders[0]).curve()
    assert min(matplotlib.image.imread(output / "comparison.png").shape[:2]) > 300
    page = (output / "comparison.md").read_text()
    places = [page.index(f"| {name} |") for name in sorted(names, key=lambda name: -area(report, name))]
    assert places == sorted(places)  # a leaderboard by AUP
    assert "McNemar" in page
    assert "distilled" in capsys.readouterr().out


def area(report: dict[str, Any], name: str) -> float:
    (found,) = (one["aup"]["value"] for one in report["summaries"] if one["name"] == name)
    return found


def test_what_it_writes_it_reads_as_published(folders: list[str], tmp_path: Path) -> None:
    first = compare(settings(folders[:1], tmp_path))
    again = compare(settings(
        folders[1:], tmp_path, published=[str(tmp_path / "out" / "curves.yaml")], output=str(tmp_path / "again")
    ))  # fmt: skip
    assert again["summaries"][-1]["points"] == first["summaries"][0]["points"]


def test_evaluations_of_one_model_are_called_by_their_folders_or_as_asked(folders: list[str], tmp_path: Path) -> None:
    same = write_evaluation(tmp_path / "same", made_evaluation("base", RUNS, seed=2))
    report = compare(settings([folders[0], same], tmp_path))
    assert [one["name"] for one in report["summaries"]] == [folders[0], same]
    report = compare(settings([folders[0], same], tmp_path, names=["a {}", "b"]))
    assert [one["name"] for one in report["summaries"]] == ["a {}", "b"]


def test_the_count_is_that_of_the_evaluations_or_as_asked(folders: list[str], tmp_path: Path) -> None:
    own, published = (compare(settings(folders, tmp_path, count=count)) for count in (None, "published"))
    assert (own["count"], published["count"]) == ("own", "published")
    assert own["summaries"][0]["points"][1][0] > published["summaries"][0]["points"][1][0]
    other = write_evaluation(tmp_path / "other", made_evaluation("other", RUNS, count="published"))
    with pytest.raises(ValueError, match=r"count tokens differently \(base own, other published\)"):
        compare(settings([folders[0], other], tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluations": []}, "evaluations must name at least one folder"),
        ({"evaluations": ["nowhere"]}, "'nowhere' holds no evaluation.json; expected a folder that tad evaluate"),
        ({"names": ["one"]}, "names has 1 names for 2 evaluations"),
        ({"names": ["one", "one"]}, "names is .*; expected different ones"),
        ({"speeds": [2.0, 2.0]}, "speeds is .*; expected different ones"),
        ({"published": ["nowhere.yaml"]}, "nowhere.yaml is not a file"),
        (
            {"published_task": "sums", "published": ["data.yaml"]},
            "published_task is 'sums', which data.yaml has not; .* words",
        ),
        ({"published": ["data.yaml", "data.yaml"]}, "published files have 'theirs' twice"),
        ({"published": ["base.yaml"]}, "expected at least one, with different names"),
        ({"published": ["nan.yaml"]}, "the accuracy is nan"),
        ({"output": "data.yaml"}, "output must be a folder"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(
    folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data.yaml").write_text(PUBLISHED)
    Path("base.yaml").write_text(PUBLISHED.replace("theirs", "base"))
    Path("nan.yaml").write_text(PUBLISHED.replace("69.0", ".nan"))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        compare(settings(folders, tmp_path, **changes))
    assert not list(tmp_path.glob("out/*"))


def test_evaluations_of_other_problems_are_refused(folders: list[str], tmp_path: Path) -> None:
    other = write_evaluation(tmp_path / "other", made_evaluation("other", RUNS, problems=39))
    with pytest.raises(ValueError, match="1 of base are not of other, such as 'p039'"):
        compare(settings([folders[0], other], tmp_path))
    with pytest.raises(ValueError, match="expected different folders"):
        compare(settings([folders[0], folders[0]], tmp_path))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("evaluation.json", '"correct": ', '"correct": 1', "points, .*|are not those that evaluation.json counts"),
        ("evaluation.json", '"forwards": ', '"forwards": NaN, "was": ', "forwards is nan; expected int"),
        ("evaluation.json", '"name"', '"nome"', "it has no name"),
        ("evaluation.json", "{", "[", "is not the report of an evaluation"),
        ("responses.jsonl", '"correct": true', '"correct": 1', "line .*: not a response of tad evaluate: correct is 1"),
        ("responses.jsonl", '"tokens": 12', '"tokens": NaN', "tokens is nan; expected int"),
        ("responses.jsonl", '"latency"', '"later"', "expected the fields id, policy,"),
        ("responses.jsonl", '"tokens": 12', '"tokens": 13', "are not those that evaluation.json counts"),
        ("responses.jsonl", '"p000"', '"p001"', "answers a problem twice in the run topk:1"),
        ("responses.jsonl", None, None, "holds no responses.jsonl"),
    ],
)
def test_damaged_evaluations_are_refused(
    folders: list[str], tmp_path: Path, file: str, old: str | None, new: str, message: str
) -> None:
    path = Path(folders[0], file)
    if old is None:
        path.unlink()
    else:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        compare(settings(folders, tmp_path))
