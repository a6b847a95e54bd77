"""vitral.save: a network of one's own loop as an artifact, and what it answers to bad input."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import vitral
from checkpoints import HELD
from vitral.errors import ModelError, UsageError, VitralError
from vitral.model import ViT, build
from vitral.specs import ImageSpec
from vitral.weights import artifact
from vitral.weights.from_module import save

NAMES = ["cat", "개", 'a "dog"\n<b>']
IMAGES = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.2], "fit": "squash"}
LEARNT = [(format, name) for format in HELD for name in ("token", "odd", "bit", "map", "mean")]
LEARNT = [(format, name) for format, name in LEARNT if name in HELD[format]]


def network(**changes: Any) -> ViT:
    torch.manual_seed(0)
    return vitral.create("Ti/16", classes=3, size=32, **changes)


@pytest.fixture(scope="module")
def tiny() -> ViT:
    return network()


def test_what_is_saved_answers_as_the_network(tmp_path: Path, tiny: ViT) -> None:
    tiny.train()
    folder = vitral.save(tiny, NAMES, IMAGES, tmp_path / "a")
    assert tiny.training and folder == tmp_path / "a"
    clf = vitral.load(folder)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(clf.model(images), tiny.eval()(images))
    assert clf.classes == tuple(NAMES)
    assert clf.card.images == ImageSpec(size=32, **IMAGES)
    assert clf.card.made_by["saved"]["difference"] == 0
    assert clf.model.spec == tiny.spec


@pytest.mark.parametrize(("format", "name"), LEARNT)
def test_any_network_of_ours_keeps_its_specification(
    tmp_path: Path, format: str, name: str
) -> None:
    spec = HELD[format][name]
    model = build(spec)
    classes = [f"class {i}" for i in range(spec.classes)]
    images = {"mean": [0.5] * spec.channels, "std": [0.5] * spec.channels}
    folder = save(model, classes, images, tmp_path / "a")
    assert artifact.load_card(folder).model == spec
    torch.save(model.state_dict(), tmp_path / "w.pth")
    assert vitral.load(tmp_path / "w.pth", announce=lambda _: None).model.spec == spec


class Wrapper(nn.Module):
    """As a LightningModule holds its network, beside a loss with a weight of its own."""

    def __init__(self, net: nn.Module, logits: Callable[[Any], Any] = lambda x: x) -> None:
        super().__init__()
        self.net = net
        self.loss = nn.CrossEntropyLoss(weight=torch.ones(3))
        self.logits = logits

    def forward(self, images: torch.Tensor) -> Any:
        return self.logits(self.net(images))


@pytest.mark.parametrize(
    "wrap",
    [
        Wrapper,
        nn.DataParallel,
        torch.compile,
        lambda net: torch.compile(Wrapper(net)),
        lambda net: Wrapper(net, lambda x: {"logits": x}),
        lambda net: Wrapper(net, lambda x: (x, None)),
        torch.optim.swa_utils.AveragedModel,
        lambda net: net.half(),
        lambda net: net.bfloat16(),
        lambda net: net.double(),
    ],
    ids=range(10),
)
def test_what_stands_around_a_network(
    tmp_path: Path, tiny: ViT, wrap: Callable[[nn.Module], nn.Module]
) -> None:
    folder = save(wrap(copy.deepcopy(tiny)), NAMES, IMAGES, tmp_path / "a")
    card = artifact.load_card(folder)
    assert card.model == tiny.spec and card.classes == tuple(NAMES)


@pytest.mark.parametrize(
    "classes",
    [
        tuple(NAMES),
        dict(enumerate(NAMES)),
        {str(i): name for i, name in enumerate(NAMES)},
        {name: i for i, name in enumerate(NAMES)},
    ],
    ids=range(4),
)
def test_class_names_of_every_shape(tmp_path: Path, tiny: ViT, classes: Any) -> None:
    assert artifact.load_card(save(tiny, classes, IMAGES, tmp_path / "a")).classes == tuple(NAMES)


WRONG: list[Any] = [
    NAMES[:2], [*NAMES, "x"], [], ["a", "a", "b"], ["a", "b", ""], [1, 2, 3], "abc",
    {0: "a", 1: "b"}, {0: "a", 2: "b", 3: "c"}, {"a": 0, "b": 1, "c": 3},
]  # fmt: skip


@pytest.mark.parametrize("classes", WRONG, ids=range(len(WRONG)))
def test_class_names_that_do_not_fit(tmp_path: Path, tiny: ViT, classes: Any) -> None:
    with pytest.raises(UsageError, match="classes"):
        save(tiny, classes, IMAGES, tmp_path / "a")
    assert not (tmp_path / "a").exists()


BAD_IMAGES: list[tuple[Any, str]] = [
    (ImageSpec(size=64), "reads 32x32 pixels, and `images` gives 64x64"),
    ({"mean": [0.5], "std": [0.5]}, "3 channels, and images.mean has 1"),
    ({"average": 3}, "no field 'average'"),
    ({"mean": "grey"}, "mean"),
    (None, "`images` is an ImageSpec"),
    (224, "`images` is an ImageSpec"),
]


@pytest.mark.parametrize(("images", "match"), BAD_IMAGES, ids=range(len(BAD_IMAGES)))
def test_preprocessing_that_does_not_fit(
    tmp_path: Path, tiny: ViT, images: Any, match: str
) -> None:
    with pytest.raises(VitralError, match=match):
        save(tiny, NAMES, images, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def quantised(net: nn.Module) -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)


def with_updates(net: nn.Module) -> nn.Module:
    net.register_parameter("lora_A", nn.Parameter(torch.ones(2)))
    return net


class FullyShardedDataParallel(Wrapper):
    """Of this name."""


BAD_NETWORKS: list[tuple[Callable[[ViT], Any], str]] = [
    (lambda net: net.state_dict(), "is a torch.nn.Module, not a OrderedDict"),
    (quantised, "is quantised"),
    (with_updates, "merge_and_unload"),
    (FullyShardedDataParallel, r"is sharded over processes \(FSDP\)"),
    (lambda net: net.to("meta"), "meta device"),
    (lambda net: Wrapper(net, lambda x: x.softmax(1)), "answers otherwise"),
    (lambda net: Wrapper(net, lambda x: x + 1), "answers otherwise"),
    (lambda net: Wrapper(net, lambda x: x[:, :2]), r"answers with shape \(2, 2\)"),
    (lambda net: Wrapper(net, lambda x: None), "answers with no tensor"),
    (lambda net: Wrapper(net, lambda x: 1 / 0), r"cannot answer.*ZeroDivisionError"),
    (lambda net: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), "no Vision Transformer"),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("make", "match"), BAD_NETWORKS, ids=range(len(BAD_NETWORKS)))
def test_networks_that_cannot_be_taken(
    tmp_path: Path, tiny: ViT, make: Callable[[ViT], Any], match: str
) -> None:
    with pytest.raises((ModelError, UsageError), match=match):
        save(make(copy.deepcopy(tiny)), NAMES, IMAGES, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_folder_that_exists_and_labels(tmp_path: Path, tiny: ViT) -> None:
    folder = save(tiny, NAMES, IMAGES, tmp_path / "a", labels="several")
    assert artifact.load_card(folder).labels == "several"
    with pytest.raises(UsageError, match="exists"):
        save(tiny, NAMES, IMAGES, folder)
    with pytest.raises(UsageError, match="one or several"):
        save(tiny, NAMES, IMAGES, tmp_path / "b", labels="many")  # type: ignore[arg-type]


def test_one_logit(tmp_path: Path) -> None:
    model = vitral.create("Ti/16", classes=1, size=32)
    nn.init.normal_(model.head.weight)
    for names, expected in ((["dog"], ("not dog", "dog")), (["cat", "dog"], ("cat", "dog"))):
        folder = save(model, names, IMAGES, tmp_path / names[0])
        clf = vitral.load(folder)
        assert clf.classes == expected
        images = torch.randn(2, 3, 32, 32)
        with torch.inference_mode():
            probability = torch.from_numpy(clf.task.probabilities(clf.model(images))[:, 1])
            assert torch.allclose(probability, model.eval()(images).sigmoid()[:, 0])


def test_another_head_is_told_by_its_shape(tmp_path: Path, tiny: ViT) -> None:
    model = copy.deepcopy(tiny)
    model.head = nn.Linear(192, 2)
    assert artifact.load_card(save(model, ["a", "b"], IMAGES, tmp_path / "a")).model.classes == 2
