from collections.abc import Callable
from pathlib import Path

Vitral = Callable[..., tuple[int, str, str]]


def test_train(vitral: Vitral, photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--model", "mu/8", "--size", "32x32", "--epochs", "1", "--batch", "8", "--seed", "1")
    code, out, err = vitral("train", photos, *options, "--out", run, "--set", "data.workers=0")
    assert code == 0, err
    assert "accuracy" in out
    assert f"vitral predict {run}" in out
    assert (run / "best" / "model.json").exists()
