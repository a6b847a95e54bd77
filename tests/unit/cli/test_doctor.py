import json
from collections.abc import Callable

import pytest
import torch

from vitral import machine

Vitral = Callable[..., tuple[int, str, str]]


def test_doctor(vitral: Vitral, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)  # such builds ask for a GPU
    code, out, _ = vitral("doctor")
    assert code == 0
    assert out.strip().endswith("ready")
    survey = json.loads(vitral("doctor", "--json")[1])
    assert survey["ready"] and "compiled networks take" in survey["facts"]["cache"]


def test_a_machine_that_is_not_ready(vitral: Vitral, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_packages", lambda: ("not-a-package",))
    code, out, _ = vitral("doctor")
    assert code == 5
    assert "not-a-package is not installed" in out and out.strip().endswith("not ready")
