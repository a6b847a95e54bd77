import importlib
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vitral import catalog
from vitral.errors import DataError, SpecError, WeightsError
from vitral.images import preprocess
from vitral.images.augment import transforms
from vitral.model import build
from vitral.specs import ImageSpec
from vitral.training.objectives import classification, distillation
from vitral.training.objectives.classification import class_weights
from vitral.training.objectives.distillation import Teacher
from vitral.training.recipe import Classification
from vitral.weights import artifact

B, K = 6, 5
LABELS = torch.tensor([1, 0, 4, 4, 2, 1])
KINDS = ("classes", "mixed", "multi_label")


def logits(seed: int = 0) -> Tensor:
    return 3 * torch.randn(B, K, generator=torch.Generator().manual_seed(seed))


def targets(kind: str) -> Tensor:
    one = F.one_hot(LABELS, K)
    match kind:
        case "classes":
            return LABELS
        case "mixed":
            return 0.7 * one + 0.3 * one.roll(1, 0).float()
        case _:
            return (one + one.roll(2, 0)).bool()


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0, -x)


def loss(
    outputs: tuple[Tensor, ...],
    goal: Tensor,
    settings: Classification,
    *,
    taught: Tensor | None = None,
    **more: Any,
) -> Tensor:
    """The sum over the images, with a teacher or without one."""
    if taught is None:
        return classification.losses(outputs, goal, settings, **more).sum()
    return distillation.losses(outputs, goal, taught, settings, **more).sum()


def value(*arguments: Any, **more: Any) -> float:
    found = loss(*arguments, **more)
    assert found.dtype == torch.float32 and found.ndim == 0
    return found.item()


def test_softmax_is_the_definition() -> None:
    x = logits()
    log = (x - x.exp().sum(1, keepdim=True).log()).double().numpy()
    for kind in ("classes", "mixed"):
        goal = targets(kind)
        share = np.eye(K)[goal] if goal.ndim == 1 else goal.double().numpy()
        plain, smooth = Classification(), Classification(label_smoothing=0.3)
        assert value((x,), goal, plain) == pytest.approx(-(share * log).sum(), rel=1e-6)
        share = 0.7 * share + 0.3 / K
        assert value((x,), goal, smooth) == pytest.approx(-(share * log).sum(), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_sigmoid_is_summed_over_classes_as_the_authors(kind: str) -> None:
    x, goal = logits(), targets(kind)
    share = np.eye(K)[goal] if goal.ndim == 1 else goal.double().numpy()
    z = x.double().numpy()
    expected = -(share * log_sigmoid(z) + (1 - share) * log_sigmoid(-z)).sum()
    assert value((x,), goal, Classification(loss="sigmoid")) == pytest.approx(expected, rel=1e-6)


@pytest.fixture(scope="module")
def timm_bce() -> Any:
    transforms()  # makes torchvision importable, which timm needs
    pytest.importorskip("timm", reason="timm is an oracle of the dev extra")
    return importlib.import_module("timm.loss.binary_cross_entropy").BinaryCrossEntropy


def test_bce_is_timms(timm_bce: Any) -> None:
    x = logits()
    for smoothing in (0.0, 0.2):
        ours = Classification(loss="bce", label_smoothing=smoothing)
        whole = timm_bce(smoothing)(x, LABELS).item()
        assert value((x,), LABELS, ours) == pytest.approx(B * whole, rel=1e-6)
        several = targets("multi_label")
        whole = timm_bce(smoothing, smooth_dense=True)(x, several.float()).item()
        assert value((x,), several, ours, multi_label=True) == pytest.approx(B * whole, rel=1e-6)
    whole = timm_bce(0.0, target_threshold=0.0)(x, targets("mixed")).item()
    found = value((x,), targets("mixed"), Classification(loss="bce"))
    assert found == pytest.approx(B * whole, rel=1e-6)


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "bce"])
def test_a_mix_of_one_image_is_that_image(name: Any) -> None:
    settings, one = Classification(loss=name), F.one_hot(LABELS, K).float()
    weights = torch.tensor([0.5, 2.0, 1.0, 3.0, 0.1])
    for w in (None, weights):
        found = value((logits(),), one, settings, weights=w)
        assert found == pytest.approx(value((logits(),), LABELS, settings, weights=w), rel=1e-6)


def test_equal_logits_cost_the_logarithm_in_float32() -> None:
    zero = torch.zeros(B, K, dtype=torch.bfloat16)
    assert value((zero,), LABELS, Classification()) == pytest.approx(B * math.log(K))
    assert value((zero,), LABELS, Classification(loss="bce")) == pytest.approx(B * math.log(2))
    assert value((zero,), LABELS, Classification(loss="sigmoid")) == pytest.approx(
        B * K * math.log(2)
    )


def test_class_weights_multiply_each_sample() -> None:
    x, weights = logits(), torch.tensor([0.5, 2.0, 1.0, 3.0, 0.1])
    expected = F.cross_entropy(x, LABELS, weights, reduction="sum").item()
    assert value((x,), LABELS, Classification(), weights=weights) == pytest.approx(
        expected, rel=1e-6
    )
    goal = targets("mixed")
    for name in ("softmax", "sigmoid", "bce"):
        settings = Classification(loss=name)
        each = [value((x[i : i + 1],), goal[i : i + 1], settings) for i in range(B)]
        count = 0.7 * weights[LABELS] + 0.3 * weights[LABELS.roll(1)]
        expected = float(np.dot(each, count.numpy()))
        assert value((x,), goal, settings, weights=weights) == pytest.approx(expected, rel=1e-6)


def test_of_several_labels_each_column_has_its_weight() -> None:
    x, weights, goal = logits(), torch.tensor([0.5, 2.0, 1.0, 3.0, 0.1]), targets("multi_label")
    each = F.binary_cross_entropy_with_logits(x, goal.float(), reduction="none") * weights
    sigmoid, bce = Classification(loss="sigmoid"), Classification(loss="bce")
    for same in (goal, goal.float()):  # as they come, and as mixing leaves them
        more = {"weights": weights, "multi_label": True}
        assert value((x,), same, sigmoid, **more) == pytest.approx(each.sum().item(), rel=1e-6)
        assert value((x,), same, bce, **more) == pytest.approx(each.sum().item() / K, rel=1e-6)


def test_an_image_without_a_label_counts_whether_mixed_or_not() -> None:
    x, nothing = logits(), torch.zeros(B, K, dtype=torch.bool)
    weights = torch.tensor([0.5, 2.0, 1.0, 3.0, 0.1])
    for name in ("sigmoid", "bce"):
        goal = Classification(loss=name, label_smoothing=0.1 if name == "bce" else 0.0)
        more = {"weights": weights, "multi_label": True}
        bare = value((x,), nothing, goal, **more)
        assert bare == value((x,), nothing.float(), goal, **more) > 1


def test_balanced_classes_weigh_the_same_and_one_on_average() -> None:
    settings = Classification(class_weights="balanced")
    labels = np.repeat([0, 1, 3], [60, 30, 10])
    weights = class_weights(labels, 4, settings)
    assert weights is not None and weights.dtype == torch.float32
    each = weights[torch.from_numpy(labels)]
    assert each.mean().item() == pytest.approx(1.0)
    assert [each[labels == i].sum().item() for i in (0, 1, 3)] == pytest.approx([100 / 3] * 3)
    assert weights[2] == 1.0
    several = np.zeros((100, 4), bool)
    several[np.arange(100), labels] = True
    assert torch.equal(weights, class_weights(several, 4, settings))
    assert class_weights(labels, 4, Classification()) is None


def everything() -> list[tuple[Classification, str, int, bool]]:
    """Every loss with every kind of targets, heads and teacher that it takes."""
    cases = []
    for name, kind, heads, distill in product(
        ("softmax", "sigmoid", "bce"), KINDS, (1, 2), (None, "hard", "soft")
    ):
        smoothing = 0.0 if name == "sigmoid" else 0.1
        if kind != "multi_label" or (name != "softmax" and distill is None):
            settings = Classification(
                loss=name, label_smoothing=smoothing, distill=distill or "hard", distill_share=0.3
            )
            cases.append((settings, kind, heads, distill is not None))
    return cases


@pytest.mark.parametrize(("settings", "kind", "heads", "distilled"), everything())
@pytest.mark.parametrize("weighted", [False, True])
def test_parts_have_the_gradient_of_the_whole(
    settings: Classification, kind: str, heads: int, distilled: bool, weighted: bool
) -> None:
    weights = torch.tensor([0.5, 2.0, 1.0, 3.0, 0.1]) if weighted else None
    taught, goal = logits(9) if distilled else None, targets(kind)

    def gradient(*parts: slice) -> Tensor:
        x = torch.stack([logits(seed) for seed in range(heads)]).requires_grad_()
        for part in parts:
            theirs = None if taught is None else taught[part]
            outputs = tuple(head[part] for head in x)
            more = {"multi_label": True} if kind == "multi_label" else {}
            found = loss(outputs, goal[part], settings, weights=weights, taught=theirs, **more)
            (found / B).backward()
        assert x.grad is not None
        return x.grad

    whole = gradient(slice(0, B))
    assert all(bool((head != 0).any()) for head in whole)
    torch.testing.assert_close(gradient(slice(0, 1), slice(1, 4), slice(4, B)), whole)


def test_hard_distillation_is_deits() -> None:
    mine, theirs, taught = logits(1), logits(2), logits(3)
    settings, hard = Classification(label_smoothing=0.1), taught.argmax(1)
    labels = F.cross_entropy(mine, LABELS, label_smoothing=0.1)
    expected = B * (0.5 * labels + 0.5 * F.cross_entropy(theirs, hard)).item()
    assert value((mine, theirs), LABELS, settings, taught=taught) == pytest.approx(expected)
    expected = B * (0.5 * labels + 0.5 * F.cross_entropy(mine, hard)).item()
    assert value((mine,), LABELS, settings, taught=taught) == pytest.approx(expected)


def test_soft_distillation_is_deits_equation_2() -> None:
    mine, theirs, taught = logits(1), logits(2), logits(3)
    settings = Classification(distill="soft", temperature=3.0, distill_share=0.1)
    p = np.exp(taught.double().numpy() / 3)
    p /= p.sum(1, keepdims=True)
    q = np.exp(theirs.double().numpy() / 3)
    q /= q.sum(1, keepdims=True)
    divergence = 9 * (p * np.log(p / q)).sum()
    labels = F.cross_entropy(mine, LABELS, reduction="sum").item()
    found = value((mine, theirs), LABELS, settings, taught=taught)
    assert found == pytest.approx(0.9 * labels + 0.1 * divergence, rel=1e-6)
    assert value((mine, taught), LABELS, settings, taught=taught) == pytest.approx(0.9 * labels)


def test_without_a_teacher_both_heads_learn_the_labels() -> None:
    settings, first, second = Classification(), logits(1), logits(2)
    each = [value((head,), LABELS, settings) for head in (first, second)]
    assert value((first, second), LABELS, settings) == pytest.approx(sum(each) / 2)


def test_several_labels_have_no_softmax() -> None:
    with pytest.raises(SpecError, match="several labels"):
        loss((logits(),), targets("multi_label"), Classification(), multi_label=True)


STUDENT = ImageSpec(size=(32, 32))
NAMES = ("ant", "bee", "cat")


def teacher(
    folder: Path, classes: tuple[str, ...], student: ImageSpec = STUDENT, **images: Any
) -> tuple[Any, Teacher]:
    """A saved network and the teacher that it is for a student of NAMES."""
    torch.manual_seed(0)
    size = images.setdefault("size", (32, 32))
    spec = catalog.model("mu/16", size=size, classes=len(classes))
    network = build(spec).eval()
    torch.nn.init.normal_(network.head.weight)
    card = artifact.Card(model=spec, images=ImageSpec(**images), classes=classes)
    artifact.save(folder, network.state_dict(), card)
    settings = Classification(teacher=str(folder))
    return network, Teacher.read(settings, student, NAMES, torch.device("cpu"))


def pixels() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (2, 3, 32, 32), generator=generator).to(torch.uint8)


def test_a_teacher_answers_in_the_students_order(tmp_path: Path) -> None:
    network, found = teacher(tmp_path / "t", ("cat", "dog", "ant", "bee"))
    images = preprocess.normalise(pixels(), STUDENT)
    expected = network(images)[:, [2, 3, 0]]
    torch.testing.assert_close(found(images), expected)
    assert not found.model.training
    assert not any(p.requires_grad for p in found.model.parameters())
    _, same = teacher(tmp_path / "s", NAMES)
    assert same.order.tolist() == [0, 1, 2]


def test_a_teacher_sees_the_pixels_as_it_expects_them(tmp_path: Path) -> None:
    student = ImageSpec(size=(32, 32), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    inputs = preprocess.normalise(pixels(), student)
    theirs: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    network, found = teacher(tmp_path / "t", NAMES, student, **theirs)
    expected = network(preprocess.normalise(pixels(), found.images))
    torch.testing.assert_close(found(inputs), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(48, 64), (16, 32), (32, 16)])
def test_a_teacher_of_another_size_sees_the_picture_resized(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    network, found = teacher(tmp_path / "t", NAMES, size=size)
    images = (pixels() > 127).to(torch.uint8) * 255  # whatever a resize gets wrong shows
    resized = [
        preprocess.resize_floats(image.permute(1, 2, 0).numpy(), size, found.images)
        for image in images
    ]
    expected = network(preprocess.normalise(torch.stack(resized), found.images))
    answers = found(preprocess.normalise(images, STUDENT))
    torch.testing.assert_close(answers, expected, rtol=0, atol=0.06)  # grey levels are rounded


def test_the_loss_reaches_the_student_alone(tmp_path: Path) -> None:
    _, found = teacher(tmp_path / "t", NAMES)
    x = torch.zeros(2, 3, requires_grad=True)
    taught = found(preprocess.normalise(pixels(), STUDENT))
    for distill in ("hard", "soft"):
        settings = Classification(distill=distill)  # type: ignore[arg-type]
        loss((x,), torch.tensor([0, 1]), settings, taught=taught).backward()
    assert x.grad is not None and bool((x.grad != 0).any())


def test_a_teacher_of_other_classes_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not know 1 of the 3 classes, 'cat' .*'?ant, bee"):
        teacher(tmp_path / "t", ("ant", "bee", "dog"))
    with pytest.raises(DataError, match="does not know 1 of the 3 classes, 'ant'"):
        teacher(tmp_path / "twice", ("ant", "ant", "bee", "cat"))
    with pytest.raises(WeightsError):
        settings = Classification(teacher=str(tmp_path / "nothing"))
        Teacher.read(settings, STUDENT, NAMES, torch.device("cpu"))


def kept_loss(targets: Tensor, *, shown: Tensor, **more: Any) -> Tensor:
    settings = Classification(distill="known", distill_share=0.5, temperature=2.0)
    known = torch.tensor([0, 3])
    taught = logits(5)[:, :2]
    return distillation.kept_losses(
        (logits(),), targets, taught, settings, known=known, shown=shown, **more
    )


def test_learning_without_forgetting_is_the_definition() -> None:
    """The labels among the classes that are shown, the old answers at a temperature of 2."""
    shown = torch.tensor([1, 2, 4])
    labels = torch.tensor([1, 2, 4, 4, 2, 1])
    own, taught = logits(), logits(5)[:, :2]
    places = torch.tensor([0, 1, 2, 2, 1, 0])
    learnt = F.cross_entropy(own[:, shown], places, reduction="none")
    old = (taught / 2).softmax(1)
    kept = 4 * (old * ((taught / 2).log_softmax(1) - (own[:, [0, 3]] / 2).log_softmax(1))).sum(1)
    torch.testing.assert_close(kept_loss(labels, shown=shown), 0.5 * learnt + 0.5 * kept)


def test_a_class_that_no_image_shows_is_not_pushed_down() -> None:
    settings = Classification(distill="known", distill_share=0.0)
    own = logits().requires_grad_()
    shown, known = torch.tensor([1, 2, 4]), torch.tensor([0, 3])
    labels = torch.tensor([1, 2, 4, 4, 2, 1])
    distillation.kept_losses(
        (own,), labels, logits(5)[:, :2], settings, known=known, shown=shown
    ).sum().backward()
    assert own.grad is not None
    assert not own.grad[:, [0, 3]].any() and bool(own.grad[:, shown].any())


def test_one_new_class_alone_moves_nothing_but_by_the_old_answers() -> None:
    labels = torch.full((B,), 4)
    everything = kept_loss(labels, shown=torch.tensor([4]))
    old = kept_loss(torch.full((B,), 2), shown=torch.tensor([2]))
    torch.testing.assert_close(everything, old)


def test_mixed_and_several_labels_are_kept_too() -> None:
    shown = torch.tensor([1, 2, 4])
    labels = torch.tensor([1, 2, 4, 4, 2, 1])
    mixed = F.one_hot(labels, K).float()
    torch.testing.assert_close(kept_loss(mixed, shown=shown), kept_loss(labels, shown=shown))
    settings = Classification(loss="bce", distill="known", distill_share=0.5)
    own, taught = logits(), logits(5)[:, :2]
    several = mixed.bool()
    found = distillation.kept_losses(
        (own, own),
        several,
        taught,
        settings,
        known=torch.tensor([0, 3]),
        shown=shown,
        multi_label=True,
    )
    learnt = F.binary_cross_entropy_with_logits(own[:, shown], mixed[:, shown], reduction="none")
    kept = F.binary_cross_entropy_with_logits(own[:, [0, 3]], taught.sigmoid(), reduction="none")
    torch.testing.assert_close(found, 0.5 * learnt.mean(1) + 0.5 * kept.mean(1))


def test_a_teacher_may_know_some_of_the_classes_by_their_new_names(tmp_path: Path) -> None:
    network, _ = teacher(tmp_path / "t", ("cat", "wasp", "ant", "bee"))
    settings = Classification(teacher=str(tmp_path / "t"), distill="known")
    device = torch.device("cpu")
    names = ("ant", "bee", "cat", "dog", "hornet")
    found = Teacher.read(settings, STUDENT, names, device, rename=[("wasp", "hornet")])
    assert found.known.tolist() == [0, 1, 2, 4]
    images = preprocess.normalise(pixels(), STUDENT)
    torch.testing.assert_close(found(images), network(images)[:, [2, 3, 0, 1]])
    with pytest.raises(DataError, match="does not know 1 of the 1 classes"):
        Teacher.read(settings, STUDENT, ("dog",), device)


@pytest.mark.parametrize(
    ("student", "speaks"),
    [
        (STUDENT, False),
        (ImageSpec(size=(64, 64), mean=(0.1, 0.2, 0.3)), False),
        (ImageSpec(size=(32, 64)), True),
        (ImageSpec(size=(32, 32), fit="pad"), True),
    ],
)
def test_a_teacher_of_views_of_another_shape_is_spoken_of(
    tmp_path: Path, student: ImageSpec, speaks: bool
) -> None:
    teacher(tmp_path / "t", NAMES)
    said: list[str] = []
    settings = Classification(teacher=str(tmp_path / "t"))
    Teacher.read(settings, student, NAMES, torch.device("cpu"), announce=said.append)
    assert [("it may answer otherwise" in line) for line in said] == ([True] if speaks else [])
