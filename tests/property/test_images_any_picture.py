"""Any legal picture gives the size asked for, and any bytes a picture or a sentence."""

from __future__ import annotations

import io

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vitral.errors import DataError
from vitral.images.augment import Augment, train_view
from vitral.images.decode import decode
from vitral.images.preprocess import normalise, pixels
from vitral.specs import ImageSpec

sides = st.integers(1, 90)
resizes = [
    *(("pillow", "bilinear"), ("pillow", "bicubic"), ("torch", "bilinear"), ("torch", "bicubic")),
    ("tensorflow", "bilinear"),
]
specs = st.builds(
    lambda resize, **values: ImageSpec(resize=resize[0], interpolation=resize[1], **values),
    resize=st.sampled_from(resizes),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    fit=st.sampled_from(["crop", "pad", "squash"]),
    crop=st.floats(0.3, 1.0),
    centre=st.sampled_from(["round", "floor"]),
)


def jpeg(height: int, width: int) -> bytes:
    picture = np.random.default_rng(height * 97 + width).integers(0, 256, (height, width, 3), "u1")
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


@settings(max_examples=120, deadline=None)
@given(height=sides, width=sides, spec=specs)
def test_any_size_to_any_size(height, width, spec):
    for source in (jpeg(height, width), np.full((height, width, 3), 200, np.uint8)):
        view = pixels(source, spec)
        assert view.shape == (3, *spec.size) and view.dtype == torch.uint8
        ready = normalise(view, spec)
        assert ready.shape == view.shape and ready.abs().max() <= 1


@settings(max_examples=60, deadline=None)
@given(height=sides, width=sides, spec=specs, seed=st.integers(0, 2**63 - 1))
def test_any_size_gives_a_training_view(height, width, spec, seed):
    view = train_view(jpeg(height, width), Augment(rotate=10), spec, seed)
    assert view.shape == (3, *spec.size) and view.dtype == torch.uint8


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), shrink=st.tuples(sides, sides))
def test_shrinking_never_goes_below_what_was_asked_for(height, width, shrink):
    image = decode(jpeg(height, width), shrink_to=shrink)
    assert image.height >= min(height, shrink[0]) and image.width >= min(width, shrink[1])


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_bytes_give_a_picture_or_a_sentence(data):
    start = bytearray(jpeg(24, 30))
    if data.draw(st.booleans()):
        buffer = io.BytesIO()
        Image.new("RGBA", (9, 9), (1, 2, 3, 4)).save(buffer, "PNG")
        start = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        start[data.draw(st.integers(0, len(start) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(start)))
    try:
        assert decode(bytes(start[:cut])).mode == "RGB"
    except DataError as error:
        assert str(error)
