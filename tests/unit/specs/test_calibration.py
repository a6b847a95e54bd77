import dataclasses
import json

import pytest

from vitral.errors import SpecError
from vitral.specs import Calibration

FITTED = Calibration(temperature=1.5, threshold=0.62, target=0.97, samples=360)


def test_there_and_back_through_json() -> None:
    assert Calibration.from_dict(json.loads(json.dumps(FITTED.to_dict()))) == FITTED
    whole = {"temperature": 2, "threshold": 0, "target": 1, "samples": 1}
    assert Calibration.from_dict(whole).threshold == 0.0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 0.0),
        ("temperature", -1.0),
        ("temperature", float("inf")),
        ("temperature", float("nan")),
        ("threshold", -0.1),
        ("threshold", 1.01),
        ("threshold", float("nan")),
        ("target", 0.0),
        ("target", 1.5),
        ("samples", 0),
    ],
)
def test_values_that_cannot_be(field: str, value: float) -> None:
    with pytest.raises(SpecError, match=f"Calibration.{field} is"):
        dataclasses.replace(FITTED, **{field: value})


def test_wrong_fields_are_named() -> None:
    with pytest.raises(SpecError, match="did you mean 'temperature'"):
        Calibration.from_dict({**FITTED.to_dict(), "temperatur": 1})
    with pytest.raises(SpecError, match="samples is a whole number"):
        Calibration.from_dict({**FITTED.to_dict(), "samples": 3.5})
    with pytest.raises(SpecError, match="threshold"):
        Calibration.from_dict({"temperature": 1.0, "target": 0.9, "samples": 3})
