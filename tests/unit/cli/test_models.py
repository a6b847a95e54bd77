import json
from collections.abc import Callable

from vitral import catalog

Vitral = Callable[..., tuple[int, str, str]]


def test_models(vitral: Vitral) -> None:
    code, out, _ = vitral("models", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert set(rows) == set(catalog.names())
    assert rows["B/16"]["parameters"] == 86_567_656
    assert rows["B/16"]["size"] == [224, 224]
    table = vitral("models")[1]
    assert "B/16" in table
    assert "86.57" in table


def test_published_weights(vitral: Vitral) -> None:
    rows = json.loads(vitral("models", "--weights", "--json")[1])
    assert {row["home"] for row in rows} == {"google", "timm", "transformers", "torchvision"}
    table = vitral("models", "--weights")[1]
    assert "torchvision/vit_b_16.IMAGENET1K_V1" in table
    assert "81.1" in table
