"""Augment: what it refuses, and that it needs no torch."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys

import pytest

from vitral.errors import SpecError
from vitral.specs.augment import Augment
from vitral.specs.fields import from_mapping


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("crop", "center"),
        ("flavour", "jax"),
        ("repeats", 0),
        ("repeats", 1.5),
        ("crop_scale", (0.5, 0.2)),
        ("crop_scale", (0.0, 1.0)),
        ("crop_scale", (0.1, 1.5)),
        ("crop_scale", 0.5),
        ("crop_ratio", ("a", "b")),
        ("zoom", (0, 1)),
        ("flip", 1.5),
        ("flip", -0.1),
        ("flip", "yes"),
        ("rotate", 200),
        ("shear", 90),
        ("translate", 2),
        ("jitter", -1),
        ("erase", 2),
        ("mixup", -0.1),
        ("cutmix", "x"),
        ("randaugment", (0, 9)),
        ("randaugment", (2, 31)),
        ("randaugment", 9),
        ("randaugment", (2.5, 9)),
    ],
)
def test_a_value_that_cannot_be_is_named(field, value):
    with pytest.raises(SpecError, match=f"Augment.{field}"):
        Augment(**{field: value})


def test_it_is_frozen_and_lists_from_json_become_tuples():
    augment = Augment(crop_scale=[0.2, 1], randaugment=[2, 9])
    assert augment.crop_scale == (0.2, 1.0) and augment.randaugment == (2, 9)
    assert hash(augment) == hash(Augment(**dataclasses.asdict(augment)))
    assert pickle.loads(pickle.dumps(augment)) == augment
    with pytest.raises(dataclasses.FrozenInstanceError):
        augment.flip = 0.1


def test_what_it_does_is_told():
    assert not Augment().warps and not Augment().mixes
    assert Augment(zoom=(0.9, 1.1)).warps and Augment(rotate=5).warps
    assert Augment(cutmix=1).mixes


def test_no_torch_is_imported():
    code = "import sys, vitral.specs.augment; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_earlier_name_of_the_authors_flavour_is_understood():
    assert from_mapping(Augment, {"flavour": "tf"}) == Augment(flavour="big_vision")
