"""Each figure of the inside, at any shape and depth, holds what it should."""

import io

import numpy as np
import pytest
from explanations import explanation
from PIL import Image

from vitral.drawing.pictures import overlay, png
from vitral.explanation.figures import details

SHAPES = [
    {},
    {"grid": (2, 6), "size": (32, 96), "heads": 16, "layers": 12},
    {"grid": (8, 1), "size": (80, 10), "heads": 1, "layers": 1},
    {"grid": (3, 3), "size": (48, 48), "heads": 2, "layers": 24, "classes": ["한글" * 20, "b"]},
    {"classes": ()},
]


def opened(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_every_figure_is_drawn_at_any_shape(changes):
    told = explanation(**changes)
    drawn = [details.patches(told), details.rollouts(told, told.internals)]
    drawn += [
        details.attention_maps(told, told.internals, "png"),
        details.norms_and_cosines(told, told.internals, "png"),
    ]
    if told.classes:
        drawn.append(details.logit_lens(told, told.internals, "png"))
    for content in drawn:
        assert min(opened(content).shape[:2]) > 100


def test_a_bright_pane_stands_at_its_layer_and_head():
    told = explanation(heads=3, layers=2)
    told.internals.attention_maps[:] = 0
    told.internals.attention_maps[1, 0, 0, 0] = 1  # layer 2, head 1, patch 1,1
    picture = opened(details.attention_maps(told, told.internals, "png")).astype(int)
    bright = np.argwhere((picture[..., 0] > 230) & (picture[..., 1] > 200) & (picture[..., 2] < 90))
    height, width = picture.shape[:2]
    assert len(bright)
    assert bright[:, 0].min() > height / 2  # in the lower of two rows
    assert bright[:, 1].max() < width / 2.2  # in the first of three columns


def test_patches_are_numbered_in_raster_order():
    from matplotlib.text import Text

    from vitral.drawing.figure import Canvas

    kept = []
    original = Canvas.to_bytes

    def keep(sheet, kind):
        kept.append(sheet)
        return original(sheet, kind)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Canvas, "to_bytes", keep)
        details.patches(explanation(grid=(2, 3), size=(32, 48)))
    numbers = [t for t in kept[0].figure.findobj(Text) if t.get_text().isdecimal()]
    places = {t.get_text(): t.get_position() for t in numbers}
    assert list(places) == ["1", "2", "3", "4", "5", "6"]
    assert places["4"][0] == places["1"][0] and places["4"][1] > places["1"][1]
    assert places["2"][1] == places["1"][1] and places["2"][0] > places["1"][0]


def test_a_window_is_the_picture_lit_by_the_map():
    told = explanation(size=(224, 224))
    heat = told.internals.relevance
    assert details.overlay_png(told, heat) == png(overlay(told.picture, heat))


def test_an_svg_of_the_lens_keeps_names_as_text():
    told = explanation(classes=("골프공", "b"))
    told.internals.layer_probabilities[:] = [[0.9, 0.1]] * 3
    svg = details.logit_lens(told, told.internals, "svg").decode("utf-8")
    assert svg.count("골프공</text>") == 3
