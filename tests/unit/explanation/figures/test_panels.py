"""The shared panels say the numbers that they are given."""

import numpy as np
import pytest
from explanations import explanation, scored
from matplotlib.text import Text

from vitral.drawing.figure import Canvas, style
from vitral.explanation.figures import panels


@pytest.fixture
def axes():
    with style():
        yield Canvas(5.0, 4.0).axes(0.5, 0.5, 4.0, 3.0)


def texts(axes):
    return [text.get_text() for text in axes.findobj(Text)]


def test_the_answer_names_three_classes_with_their_probabilities(axes):
    panels.top_classes(axes, explanation(classes=("a", "b", "c", "d")), "svg")
    assert {"a", "b", "c", "50.0 %"} <= set(texts(axes))
    assert "d" not in texts(axes)


def test_a_curve_is_the_curve_and_insertion_turns_the_random_orders_round(axes):
    test = scored()
    test.random[:, 0] = 1
    panels.faithfulness_curve(axes, test, deletion=False)
    random, chosen = axes.lines
    np.testing.assert_allclose(chosen.get_ydata(), test.insertion)
    np.testing.assert_allclose(random.get_ydata(), test.random.mean(0)[::-1])
    assert random.get_ydata()[-1] == 1
    assert axes.get_xlabel() == "patches shown, %"


def test_the_lens_names_the_best_class_of_every_layer(axes):
    told = explanation(classes=("a", "b"), layers=2)
    told.internals.layer_probabilities[:] = 1 / (1 + np.exp([[3, -3], [-1, 1], [-9, 9]]))
    panels.logit_lens(axes, told, told.internals, "png")
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(
        [1 / (1 + np.exp(-3)), 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-9))]
    )
    names = [text.get_text() for text in axes.texts]
    assert names == ["b", "a", "a"]
    dots = axes.lines[0].get_xdata()
    assert dots[0] == pytest.approx(1 / (1 + np.exp(3)))  # the target is a


@pytest.mark.parametrize(
    ("query", "words"),
    [(None, "the output"), ("cls", "the class token"), ((3, 5), "patch 3,5")],
)
def test_whose_attention_is_said_in_words(query, words):
    assert panels.attention_of(explanation(query=query)) == f"attention of {words}"
