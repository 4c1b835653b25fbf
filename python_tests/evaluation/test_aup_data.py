"""The published files of curves: read as they are, written as they are, and refused where something is wrong."""

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tad_ext.evaluation import read_aup_data, write_aup_data

PUBLISHED = """\
# AUP Benchmark Data
# accuracy: model accuracy (0-1 scale)
_meta:
  LLaDA:
    type: dLLM
    link: https://github.com/ML-GSAI/LLaDA
GSM8K-CoT:
  LLaDA:
  - [1.0, 72.55]
  d3LLM-LLaDA:
  - - 1.0
    - 74.02
  - - 9.11
    - 73.09
"""
DATA = {"GSM8K-CoT": {"LLaDA": [(1.0, 72.55)], "d3LLM-LLaDA": [(1.0, 74.02), (9.11, 73.09)]}}
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8)
POINTS = st.lists(st.tuples(st.floats(1e-6, 1e6), st.floats(2, 100)), min_size=1, max_size=3)


def test_a_published_file(tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text(PUBLISHED)
    assert read_aup_data(path) == DATA
    write_aup_data(path, DATA)
    assert path.read_text() == (
        "GSM8K-CoT:\n  LLaDA:\n  - [1.0, 72.55]\n  d3LLM-LLaDA:\n  - [1.0, 74.02]\n  - [9.11, 73.09]\n"
    )
    assert read_aup_data(path) == DATA


@given(st.dictionaries(NAMES, st.dictionaries(NAMES, POINTS, min_size=1, max_size=3), min_size=1, max_size=3))
def test_what_is_written_is_read_again_here_and_by_any_reader(tmp_path_factory, data):
    data.pop("_meta", None)
    if data:
        path = tmp_path_factory.mktemp("data") / "data.yaml"
        write_aup_data(path, data)
        assert read_aup_data(path) == data
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert {
            task: {method: [tuple(point) for point in points] for method, points in methods.items()}
            for task, methods in plain.items()
        } == data


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a mapping of tasks, by their names, got None"),
        ("- 1", r"expected a mapping of tasks, by their names, got \[1\]"),
        ("_meta: {}", "expected a mapping of tasks, got none"),
        ("t: [1, 2]", "task 't': expected a mapping of methods"),
        ("t: {m: []}", r"method 'm' is \[\]; expected a list of at least one point"),
        ("t: {m: [[1.0]]}", r"a point is \[1.0\]; expected two numbers"),
        ("t: {m: [[1.0, 50, 60]]}", "expected two numbers"),
        ("t: {m: [[1.0, '50']]}", "expected two numbers"),
        ("t: {m: [[1.0, true]]}", "expected two numbers"),
        ("t: {m: [1.0, 50]}", "a point is 1.0; expected two numbers"),
        ("t: {m: [[1.0, .nan]]}", "the accuracy is nan; expected percent"),
        ("t: {m: [[1.0, 100.5]]}", "the accuracy is 100.5"),
        ("t: {m: [[0, 50]]}", "tokens per forward are 0.0; expected a finite number > 0"),
        ("t: {m: [[.inf, 50]]}", "tokens per forward are inf"),
        ("t: {m: [[1.0, 0.5]], n: [[1.0, 0.75]]}", "task 't': the best accuracy is 0.75; expected percent, not shares"),
        ("t: {m: [[1, 50]]}\nt: {m: [[1, 50]]}", "key 't' is written twice"),
        ("t: {1: [[1, 50]]}", "by their names"),
        ("t: [", "is not a YAML file"),
        ("!!python/object/apply:os.system ['true']", "is not a YAML file"),
    ],
)
def test_what_is_not_of_the_form_is_named(tmp_path, text, message):
    path = tmp_path / "data.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_aup_data(path)
    assert str(path) in str(error.value)


def test_what_would_not_be_read_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="the accuracy is nan"):
        write_aup_data(tmp_path / "data.yaml", {"t": {"m": [(1.0, math.nan)]}})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="is not a file"):
        read_aup_data(tmp_path / "nothing.yaml")
