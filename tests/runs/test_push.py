"""A push and what comes back of it, by the real client of the hub against a small one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from networks import randomised, tiny

from hub_endpoint import READER, TOKEN, Hub
from vitral import catalog
from vitral.model import build
from vitral.specs import Calibration, ImageSpec
from vitral.weights import artifact
from vitral.weights.card import Card
from vitral.weights.read import read_weights

Vitral = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=")  # of the hub's client, of itself


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")  # for processes; and for this one:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        yield hub


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An artifact whose card tells much of the machine that it was made on."""
    spec = catalog.model("mu/8", size=32, classes=3)
    torch.manual_seed(0)
    network = build(spec).eval()
    torch.nn.init.normal_(network.head.weight, std=0.1)
    card = Card(
        model=spec,
        images=ImageSpec(size=(32, 32)),
        classes=("cat", "<b>개</b>", 'the "other"\none'),
        made_by={
            "recipe": {"start": "/home/maria/w", "data": {"source": "/home/maria/photos"}},
            "data": {"source": "../maria/photos", "train": 3, "val": 1},
            "converted": {"notes": ["read from /home/maria/x.npz"]},
        },
        metrics={"accuracy": 0.75, "interval": [0.3, 0.95], "samples": 4, "split": "val"},
        calibration=Calibration(temperature=1.1, threshold=0.5, target=0.95, samples=4),
    )
    folder = tmp_path / "home" / "maria" / "best"
    artifact.save(folder, network.state_dict(), card)
    (folder / "notes of maria.txt").write_text("not to be pushed")
    return folder


def test_what_is_pushed_is_loaded_again_and_tells_nothing_of_the_machine(
    hub: Hub, model: Path, vitral: Vitral
) -> None:
    code, out, err = vitral("push", model, "org/flowers", "--license", "mit", "--json")
    assert code == 0, err
    done = json.loads(out)
    repo = hub.repos["org/flowers"]
    assert done["commit"] == repo.head and done["url"] == f"{hub.url}/org/flowers"
    assert sorted(done["files"]) == ["README.md", "model.json", "model.safetensors"]
    assert sorted(repo.files) == sorted(done["files"])
    assert "public" in err and "model.safetensors" in err, "what is pushed is said before"
    for name, content in repo.files.items():
        assert b"maria" not in content and b"/home" not in content, name
    card = ModelCard(repo.files["README.md"].decode())
    assert card.data.license == "mit" and card.data.model_name == "org/flowers"
    said: list[str] = []
    weights = read_weights("org/flowers", announce=said.append)
    mine, own = artifact.load_tensors(model)
    assert all(torch.equal(weights.tensors[name], x) for name, x in mine.items())
    assert weights.card.classes == own.classes and weights.card.calibration == own.calibration
    assert weights.card.images == own.images
    assert "Downloading org/flowers" in said[0]
    before = len(hub.calls)
    read_weights("org/flowers", announce=said.append)
    assert len(hub.calls) == before and len(said) == 1, "what is here is not asked for again"


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_it_is_pushed_as_other_libraries_read_it(
    hub: Hub, model: Path, vitral: Vitral, library: str
) -> None:
    code, _, err = vitral("push", model, "org/theirs", "--as", library, "--private")
    assert code == 0, err
    repo = hub.repos["org/theirs"]
    assert repo.private
    assert {"config.json", "model.safetensors", "README.md"} <= set(repo.files)
    assert ModelCard(repo.files["README.md"].decode()).data.library_name == library
    for name, content in repo.files.items():
        assert b"maria" not in content and b"/home" not in content, name
    weights = read_weights("org/theirs", announce=lambda _: None)
    mine, own = artifact.load_tensors(model)
    assert weights.format == library
    assert all(torch.equal(weights.tensors[name], x) for name, x in mine.items())
    assert weights.card.classes == own.classes


def test_a_repository_that_exists_is_updated_only_when_asked(
    hub: Hub, model: Path, vitral: Vitral
) -> None:
    assert vitral("push", model, "org/flowers")[0] == 0
    first = hub.repos["org/flowers"].head
    code, _, err = vitral("push", model, "org/flowers")
    assert code == 2 and "exists already" in err and "--update" in err
    code, out, err = vitral("push", model, "org/flowers", "--update", "--license", "apache-2.0")
    assert code == 0, err
    assert hub.repos["org/flowers"].head != first and "vitral predict org/flowers" in out


@pytest.mark.parametrize(
    ("token", "repo", "code", "message"),
    [
        ("", "org/flowers", 5, "no token of the hub here"),
        ("hf_wrong", "org/flowers", 5, "does not know this token"),
        (READER, "org/flowers", 5, "may not write to org/flowers"),
        (TOKEN, "others/flowers", 5, "'others' has to be you or an organisation of yours"),
        (TOKEN, "flowers", 2, "is no id of the hub: ORG/NAME"),
        (TOKEN, "org/flow ers", 2, "is no id of the hub"),
        (TOKEN, "org/flowers/more", 2, "is no id of the hub"),
        (TOKEN, "org/꽃", 2, "is no id of the hub"),
    ],
)
def test_who_may_not_and_names_that_cannot_be_are_answered(  # noqa: PLR0917
    hub: Hub,
    model: Path,
    vitral: Vitral,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    token: str,
    repo: str,
    code: int,
    message: str,
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    found, _, err = vitral("push", model, repo)
    assert found == code, err
    assert message in " ".join(err.split())
    assert not hub.repos


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--as", "tim"), "did you mean 'timm'?"),
        (("--license", "my own!"), "--license is an identifier"),
    ],
)
def test_options_that_cannot_be_are_answered(
    hub: Hub, model: Path, vitral: Vitral, words: tuple[str, str], message: str
) -> None:
    code, _, err = vitral("push", model, "org/flowers", *words)
    assert code == 2 and message in " ".join(err.split())
    assert not hub.repos


def test_what_is_no_artifact_is_answered(hub: Hub, tmp_path: Path, vitral: Vitral) -> None:
    code, _, err = vitral("push", tmp_path / "none", "org/flowers")
    assert code == 2 and "does not exist" in err
    (tmp_path / "w.safetensors").write_bytes(b"")
    code, _, err = vitral("push", tmp_path / "w.safetensors", "org/flowers")
    assert code == 2 and "vitral convert" in err
    assert not hub.calls


def test_a_network_that_a_library_cannot_hold_is_refused_before_anything_is_sent(
    hub: Hub, tmp_path: Path, vitral: Vitral
) -> None:
    spec = tiny(pool="cls_mean")
    card = Card(model=spec, images=ImageSpec(size=spec.size), classes=tuple("abcde"))
    artifact.save(tmp_path / "a", randomised(spec).float().state_dict(), card)
    code, _, err = vitral("push", tmp_path / "a", "org/a", "--as", "transformers")
    assert code == 4 and "cannot hold" in err
    assert not hub.calls


def test_a_hub_in_trouble_and_none_at_all_are_answered(
    hub: Hub, model: Path, vitral: Vitral, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.refuses = "/commit/"
    monkeypatch.setattr("time.sleep", lambda _: None)
    code, _, err = vitral("push", model, "org/flowers")
    assert code == 5 and "--update" in err
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    code, _, err = vitral("push", model, "org/others")
    assert code == 5 and "cannot be reached" in err


def test_a_process_of_its_own_does_the_same(hub: Hub, model: Path) -> None:
    """As a person would: the environment alone names the hub and the token."""
    command = [sys.executable, "-m", "vitral", "push", str(model), "org/flowers"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=dict(os.environ), check=False
    )
    assert done.returncode == 0, done.stderr
    assert "org/flowers" in done.stdout and "org/flowers" in hub.repos


def test_a_card_that_somebody_wrote_is_pushed_as_it_is(
    hub: Hub, model: Path, vitral: Vitral
) -> None:
    mine = "---\nlicense: mit\n---\n\n# 내 모델\nBy hand.\n"
    (model / "README.md").write_text(mine, encoding="utf-8")
    assert vitral("push", model, "org/by-hand")[0] == 0
    assert hub.repos["org/by-hand"].files["README.md"].decode() == mine
    assert vitral("push", model, "org/by-hand", "--update", "--license", "apache-2.0")[0] == 0
    card = ModelCard(hub.repos["org/by-hand"].files["README.md"].decode())
    assert card.data.license == "apache-2.0" and "By hand." in card.text
