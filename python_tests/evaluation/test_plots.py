import matplotlib.image
import numpy as np
import pytest

from tad_ext.evaluation import (
    ConfidenceDecay,
    DecaySettings,
    Evaluation,
    Point,
    plot_accuracy_curve,
    plot_confidence_decay,
)


def evaluation(name, correct):
    points = [
        Point("topk:1", 100, correct, 90, 90, 100, 1.0),
        Point("entropy:0.5", 100, correct, 300, 300, 100, 1.0),
    ]
    return Evaluation(name, "words", points)


def size(path):
    """Width and height of a PNG that can be read back."""
    height, width, _ = matplotlib.image.imread(path, format="png").shape
    return width, height


@pytest.mark.parametrize("correct", [50, 0, 100])
def test_the_curve_of_several_models(tmp_path, correct):
    plot_accuracy_curve([evaluation("base", 40), evaluation("distilled", correct)], tmp_path / "curve.png")
    assert min(size(tmp_path / "curve.png")) > 300
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]


def test_models_that_are_never_right_can_be_drawn(tmp_path):
    plot_accuracy_curve([evaluation("base", 0)], tmp_path / "curve.png")
    assert min(size(tmp_path / "curve.png")) > 300


def test_the_decay_of_several_models(tmp_path):
    curves = {"base": [[0.9, 0.6, 0.2], [0.9, 0.4, 0.0]], "distilled": [[0.9, 0.8, 0.7]]}
    decays = {
        name: ConfidenceDecay.of(np.array(sums), np.ones_like(sums), DecaySettings(), np.random.default_rng(0))
        for name, sums in curves.items()
    }
    plot_confidence_decay(decays, tmp_path / "decay.png")
    assert min(size(tmp_path / "decay.png")) > 300


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="evaluations is empty"):
        plot_accuracy_curve([], tmp_path / "curve.png")
    with pytest.raises(ValueError, match="decays is empty"):
        plot_confidence_decay({}, tmp_path / "decay.png")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        plot_accuracy_curve([evaluation("base", 40)], tmp_path / "nowhere" / "curve.png")
