from typing import Any

import pytest

from vitral.errors import SpecError
from vitral.specs import ImageSpec


def test_round_trip_through_json_values() -> None:
    spec = ImageSpec(size=(48, 80), fit="pad", crop=0.9, mean=(0.4,), std=(0.2,))
    assert ImageSpec.from_dict(spec.to_dict()) == spec
    assert ImageSpec.from_dict({"size": [8, 8]}).size == (8, 8)
    spec = ImageSpec(centre="floor", interpolation="bilinear", resize="tensorflow")
    assert ImageSpec.from_dict(spec.to_dict()) == spec and not spec.antialias


def test_artifacts_from_before_centre_and_resize_mean_what_they_meant() -> None:
    older = ImageSpec().to_dict()
    del older["centre"], older["resize"]
    spec = ImageSpec.from_dict(older)
    assert (spec.centre, spec.resize, spec.antialias) == ("round", "pillow", True)


@pytest.mark.parametrize(
    "values",
    [
        {"size": 0},
        {"fit": "stretch"},
        {"interpolation": "lanczos"},
        {"centre": "ceil"},
        {"resize": "opencv", "interpolation": "bilinear"},
        {"resize": "tensorflow", "interpolation": "bicubic"},
        {"crop": 0.0},
        {"crop": 1.5},
        {"std": (0.5, 0.5)},
        {"std": (0.5, 0.5, 0.0)},
        {"mean": (), "std": ()},
    ],
)
def test_impossible_values_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        ImageSpec(**values)


def test_unknown_field_suggests() -> None:
    with pytest.raises(SpecError, match="did you mean 'crop'"):
        ImageSpec.from_dict({"corp": 1.0})
