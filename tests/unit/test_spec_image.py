from typing import Any

import pytest

from vitral.errors import SpecError
from vitral.spec import ImageSpec


def test_round_trip_through_json_values() -> None:
    spec = ImageSpec(size=(48, 80), fit="pad", crop=0.9, mean=(0.4,), std=(0.2,))
    assert ImageSpec.from_dict(spec.to_dict()) == spec
    assert ImageSpec.from_dict({"size": [8, 8]}).size == (8, 8)


@pytest.mark.parametrize(
    "values",
    [
        {"size": 0},
        {"fit": "stretch"},
        {"interpolation": "lanczos"},
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
