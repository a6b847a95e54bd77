"""With a compiled network in the cache an answer needs no torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import vitral as package

SCRIPT = """
import json, sys
from vitral.cli.app import app
from vitral.cli import main
sys.argv = ["vitral", *sys.argv[1:]]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
slow = ("torch", "sklearn", "scipy", "matplotlib")
print(json.dumps([name for name in slow if name in sys.modules]))
"""


@pytest.mark.proof
def test_predict_starts_without_torch(trained: Path) -> None:
    pytest.importorskip("openvino")
    picture = next((trained / "photos").rglob("*.jpg"))
    said: list[str] = []
    clf = package.load(trained / "run", engine="openvino", precision="fp32", announce=said.append)
    expected = clf.predict(picture)
    words = ["predict", trained / "run", picture, "--engine", "openvino", "--precision", "fp32"]
    words.append("--json")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, words)], capture_output=True, text=True, check=True
    )
    *printed, imported = done.stdout.strip().splitlines()
    assert json.loads(imported) == []
    result = json.loads("\n".join(printed))["results"][0]
    assert result["label"] == expected.label
    assert result["score"] == pytest.approx(expected.score, abs=1e-5)
    assert result["foreign_score"] == pytest.approx(expected.foreign_score, rel=1e-3)
    again = package.load(trained / "run", engine="openvino", precision="fp32", announce=said.append)
    assert len(again.model.state_dict()) == len(clf.model.state_dict())  # built when asked for
    assert again.explain(picture).answer["label"] == expected.label
