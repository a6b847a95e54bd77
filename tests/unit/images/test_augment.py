"""Views: a function of the seed alone, leaving no trace in the global random numbers."""

from __future__ import annotations

import dataclasses
import io
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from shared import GOLDEN
from vitral.errors import DataError
from vitral.images.augment import Augment, mix, train_view, transforms
from vitral.images.preprocess import covered, pixels
from vitral.specs import ImageSpec

SPEC = ImageSpec(size=(32, 32))
STILL = Augment(crop="none", flip=0)
FLAVOURS = ("torchvision", "timm", "big_vision")
SETTINGS = {
    "default": Augment(),
    "still": STILL,
    "warp": Augment(crop="none", rotate=20, translate=0.2, zoom=(0.8, 1.2), shear=10),
    "randaugment": Augment(randaugment=(2, 9)),
    "timm": Augment(flavour="timm", randaugment=(2, 9)),
    "big_vision": Augment(flavour="big_vision", randaugment=(2, 15)),
    "trivial": Augment(trivial=True),
    "three": Augment(three=True, jitter=0.3),
    "all": Augment(randaugment=(2, 9), jitter=0.4, erase=0.5, rotate=5),
}


def picture(height: int = 60, width: int = 90) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 2, y * 4, (x + y) % 256], axis=-1).astype(np.uint8)


def jpeg(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("source", [picture(), jpeg(picture())], ids=["array", "jpeg"])
def test_a_view_depends_on_its_seed_alone(name, source):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = train_view(source, SETTINGS[name], SPEC, 5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(train_view(source, SETTINGS[name], SPEC, 5), first)
    assert first.shape == (3, 32, 32) and first.dtype == torch.uint8
    others = [train_view(source, SETTINGS[name], SPEC, seed) for seed in range(6, 14)]
    changed = any(not torch.equal(first, other) for other in others)
    assert changed == (name != "still")


def test_without_changes_the_view_is_the_evaluation_view():
    for source in (picture(), jpeg(picture())):
        assert torch.equal(train_view(source, STILL, SPEC, 3), pixels(source, SPEC))


def test_flips_come_as_often_as_asked_for():
    once = pixels(picture(), SPEC)
    augment = Augment(crop="none", flip=0.25)
    views = [train_view(picture(), augment, SPEC, seed) for seed in range(400)]
    flipped = [torch.equal(view, once.flip(-1)) for view in views]
    assert all(f or torch.equal(v, once) for f, v in zip(flipped, views, strict=True))
    assert 70 < sum(flipped) < 130


def test_crops_follow_scale_and_ratio():
    """A picture whose values are its coordinates tells where a crop came from."""
    size = 256
    y, x = np.mgrid[0:size, 0:size]
    image = np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)
    augment = Augment(flip=0, crop_scale=(0.1, 0.5))
    spec = ImageSpec(size=(64, 64), interpolation="bilinear")
    areas, ratios = [], []
    for seed in range(300):
        view = train_view(image, augment, spec, seed).float()
        width = (view[0, :, -1].mean() - view[0, :, 0].mean()).item() * 64 / 63
        height = (view[1, -1].mean() - view[1, 0].mean()).item() * 64 / 63
        areas.append(width * height / size**2)
        ratios.append(width / height)
    assert min(areas) > 0.085 and max(areas) < 0.52
    assert abs(np.mean(areas) - 0.3) < 0.02 and abs(np.mean(np.log(ratios))) < 0.03
    assert min(ratios) > 0.72 and max(ratios) < 1.38


def test_a_crop_that_never_fits_falls_back_to_the_middle():
    augment = Augment(flip=0, crop_scale=(0.9, 1.0))
    view = train_view(picture(10, 400), augment, SPEC, 0)
    assert torch.equal(view, train_view(picture(10, 400), augment, SPEC, 1))


def test_draft_decoding_shows_the_same_crop():
    y, x = np.mgrid[0:800, 0:1200]
    large = np.stack([x // 5, y // 4, (x + y) // 8], axis=-1).astype(np.uint8)
    for seed in range(5):
        drafted = train_view(jpeg(large), Augment(), SPEC, seed).float()
        whole = train_view(np.asarray(Image.open(io.BytesIO(jpeg(large)))), Augment(), SPEC, seed)
        assert (drafted - whole.float()).abs().mean() < 3


@pytest.mark.parametrize(
    ("augment", "check"),
    [
        (Augment(crop="none", flip=0, zoom=(2.0, 2.0)), lambda view: view[0] > 100),
        (Augment(crop="none", flip=0, zoom=(0.5, 0.5)), lambda view: view[0, 8:24, 8:24] > 0),
    ],
)
def test_zoom_enlarges_and_shrinks_about_the_centre(augment, check):
    image = np.zeros((32, 32, 3), np.uint8)
    image[8:24, 8:24] = 200
    view = train_view(image, augment, SPEC, 0)
    lit = (view[0] > 100).sum().item()
    assert lit == {2.0: 1024, 0.5: 64}[augment.zoom[0]]
    ys, xs = np.nonzero((view[0] > 100).numpy())
    assert ys.mean() == xs.mean() == 15.5


def test_warps_keep_angles_on_pictures_that_are_not_square():
    """A turned bar keeps its length and width: the two sides of the grid differ, pixels do not."""
    image = np.zeros((64, 128, 3), np.uint8)
    image[28:36, 44:84] = 255
    spec = ImageSpec(size=(64, 128))
    for seed in range(8):
        view = train_view(image, Augment(crop="none", flip=0, rotate=90), spec, seed)
        ys, xs = np.nonzero((view[0] > 127).numpy())
        long, short = np.sqrt(np.sort(np.linalg.eigvalsh(np.cov(xs, ys)))[::-1] * 12)
        assert abs(long - 40) < 1.5 and abs(short - 8) < 1.5
        assert abs(xs.mean() - 63.5) < 0.6 and abs(ys.mean() - 31.5) < 0.6


def test_translation_stays_within_its_limit():
    image = np.zeros((32, 32, 3), np.uint8)
    image[14:18, 14:18] = 255
    augment = Augment(crop="none", flip=0, translate=0.25)
    centres = []
    for seed in range(60):
        ys, xs = np.nonzero((train_view(image, augment, SPEC, seed)[0] > 127).numpy())
        centres.append((ys.mean() - 15.5, xs.mean() - 15.5))
    assert 6 < np.abs(centres).max() <= 8.5


def test_the_authors_resize_is_tensorflows():
    """Without antialiasing; a crop that cannot be is the whole picture in their flavour."""
    golden = GOLDEN / "tf_preproc.npz"
    if not golden.exists():
        pytest.skip(f"the recorded resizes of TensorFlow are not at {golden}")
    augment = Augment(flavour="big_vision", flip=0, crop_scale=(1.0, 1.0))
    with np.load(golden) as recorded:
        for name, size in (("res_48_bilinear", (48, 48)), ("res_100x120_bilinear", (100, 120))):
            spec = ImageSpec(size=size, interpolation="bilinear", resize="tensorflow")
            view = train_view(recorded["im"], augment, spec, 0).permute(1, 2, 0)
            assert np.abs(view.numpy() - recorded[name]).max() < 0.501


def test_without_antialiasing_nothing_is_drafted():
    y, x = np.mgrid[0:256, 0:256]
    checks = np.where((x + y) % 2, 255, 0).astype(np.uint8)
    source = jpeg(np.stack([checks] * 3, axis=-1))
    for resize, least, most in (("pillow", 0, 3), ("tensorflow", 20, 130)):
        spec = ImageSpec(size=(36, 36), interpolation="bilinear", resize=resize)
        spread = train_view(source, Augment(flip=0), spec, 1).float().std()
        assert least <= spread < most


def test_flavours_differ_in_crop_and_operations_alone():
    crops = {f: train_view(picture(), Augment(flavour=f), SPEC, 2) for f in FLAVOURS}
    assert torch.equal(crops["torchvision"], crops["timm"])
    assert not torch.equal(crops["torchvision"], crops["big_vision"])
    still = {"crop": "none", "flip": 0, "randaugment": (2, 9)}
    views = [train_view(picture(), Augment(flavour=f, **still), SPEC, 2) for f in FLAVOURS]
    assert len({view.numpy().tobytes() for view in views}) == 3


def test_three_augment_takes_one_of_its_three():
    image = picture()
    once, kinds = pixels(image, SPEC), {"grey": 0, "solarised": 0, "blurred": 0}
    solarised = torch.where(once >= 128, 255 - once, once)
    for seed in range(90):
        view = train_view(image, Augment(crop="none", flip=0, three=True), SPEC, seed)
        if torch.equal(view, solarised):
            kinds["solarised"] += 1
        elif torch.equal(view[0], view[1]) and torch.equal(view[0], view[2]):
            kinds["grey"] += 1
        else:
            assert (view.float() - once.float()).abs().mean() < 12
            kinds["blurred"] += 1
    assert min(kinds.values()) > 15


def test_erasing_paints_one_rectangle_with_the_mean_colour():
    spec = ImageSpec(size=(32, 32), mean=(0.2, 0.4, 0.6))
    augment, painted = Augment(crop="none", flip=0, erase=0.25), 0
    white = np.full((32, 32, 3), 255, np.uint8)
    colour = torch.tensor([51, 102, 153])[:, None]
    for seed in range(200):
        view = train_view(white, augment, spec, seed)
        ys, xs = np.nonzero((view[0] != 255).numpy())
        if len(ys):
            painted += 1
            hole = view[:, ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
            assert (hole.flatten(1) == colour).all() and hole[0].numel() == len(ys)
    assert 30 < painted < 75


def test_an_unreadable_source_is_a_data_error():
    with pytest.raises(DataError, match="empty"):
        train_view(b"", Augment(), SPEC, 0)


# ------------------------------------------------------------------ mixing


@pytest.mark.parametrize(
    "settings", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}]
)
def test_mixed_targets_sum_to_one_and_weigh_what_is_seen(settings):
    """Each image holds one value, its label, so the mean of a mixture is the mean of its target."""
    labels = torch.arange(6)
    images = labels.float().view(6, 1, 1, 1).expand(6, 3, 32, 32).contiguous()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    for seed in range(12):
        mixed, targets = mix(images, labels, 6, Augment(**settings), seed)
        assert torch.allclose(targets.sum(1), torch.ones(6), atol=1e-6)
        seen = mixed.mean((1, 2, 3))
        assert torch.allclose(seen, (targets * labels).sum(1), atol=1e-4)
    again, _ = mix(images, labels, 6, Augment(**settings), 11)
    assert torch.equal(mixed, again) and torch.equal(torch.get_rng_state(), state)
    assert images[1].unique().tolist() == [1.0]


def test_mixup_keeps_at_least_half_and_mixes_with_the_one_before():
    labels = torch.arange(5)
    images = labels.float().view(5, 1, 1, 1).expand(5, 3, 4, 4).contiguous()
    weights = []
    for seed in range(60):
        mixed, targets = mix(images, labels, 5, Augment(mixup=0.2), seed)
        weight = targets.diagonal()
        weights.append(weight[0].item())
        assert weight.min() >= 0.5 and torch.equal(weight, weight[:1].expand(5))
        expected = weight * labels + (1 - weight) * labels.roll(1)
        assert torch.allclose(mixed[:, 0, 0, 0], expected, atol=1e-5)
        assert torch.allclose(targets[labels, labels.roll(1)], 1 - weight, atol=1e-6)
    assert max(weights) > 0.99 and min(weights) < 0.8


def test_cutmix_cuts_one_rectangle_for_all_out_of_the_one_before():
    labels = torch.arange(5)
    images = labels.float().view(5, 1, 1, 1).expand(5, 3, 20, 30).contiguous()
    mixed, targets = mix(images, labels, 5, Augment(cutmix=1.0), 3)
    holes = (mixed != images).any(1)
    assert torch.equal(holes, holes[:1].expand(5, 20, 30)) and holes.any()
    ys, xs = holes[0].nonzero(as_tuple=True)
    assert len(ys) == (ys.max() - ys.min() + 1) * (xs.max() - xs.min() + 1)
    assert torch.equal(mixed[:, 0][holes].unique(), labels.float())
    assert targets[2, 1] == pytest.approx(holes[0].float().mean().item())


@pytest.mark.parametrize("settings", [{"mixup": 0.8}, {"cutmix": 1.0}])
def test_parts_of_a_step_are_mixed_as_the_whole(settings):
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(7, 3, 9, 9, generator=generator), torch.arange(7) % 4
    whole, targets = mix(images, labels, 4, Augment(**settings), 3)
    for cuts in ([0, 3, 7], [0, 1, 2, 7]):
        parts = [
            mix(
                images[a:b],
                labels[a:b],
                4,
                Augment(**settings),
                3,
                (images[[a - 1]], labels[[a - 1]]),
            )
            for a, b in itertools.pairwise(cuts)
        ]
        assert torch.equal(torch.cat([part[0] for part in parts]), whole)
        assert torch.equal(torch.cat([part[1] for part in parts]), targets)
    none, empty = mix(images[:0], labels[:0], 4, Augment(**settings), 3, (images[:1], labels[:1]))
    assert none.shape == (0, 3, 9, 9) and empty.shape == (0, 4)


def test_multi_labels_are_mixed_too():
    labels = torch.tensor([[True, False, True], [False, True, False]])
    _, targets = mix(torch.rand(2, 3, 4, 4), labels, 3, Augment(mixup=1.0), 0)
    share = targets[0, 0].item()
    assert torch.allclose(targets[0], torch.tensor([share, 1 - share, share])) and share >= 0.5


def test_with_both_each_batch_takes_one():
    labels = torch.arange(4)
    images = labels.float().view(4, 1, 1, 1).expand(4, 3, 16, 16).contiguous()
    augment = Augment(mixup=1.0, cutmix=1.0)
    cut = [mix(images, labels, 4, augment, seed)[0].frac().abs().max() == 0 for seed in range(40)]
    assert 8 < sum(cut) < 32


def test_without_mixing_targets_are_one_hot():
    images, labels = torch.rand(3, 3, 8, 8), torch.tensor([2, 0, 1])
    same, targets = mix(images, labels, 3, Augment(), 0)
    assert same is images and targets.argmax(1).tolist() == [2, 0, 1]
    assert targets.dtype == torch.float32 and targets.sum() == 3


# ------------------------------------------------------------------ torchvision


def test_torchvision_is_imported_once():
    assert transforms() is transforms() and hasattr(transforms(), "RandAugment")


def stretch(view: torch.Tensor, box: tuple[int, int]) -> float:
    """How much wider than high a view shows things, of a picture whose values are coordinates."""
    height, width = box
    top, left = (view.shape[1] - height) // 2, (view.shape[2] - width) // 2
    part = view[:2, top : top + height, left : left + width].float()
    across = float(part[0, height // 2, -1] - part[0, height // 2, 0]) / (width - 1)
    down = float(part[1, -1, width // 2] - part[1, 0, width // 2]) / (height - 1)
    return down / across


@pytest.mark.parametrize("flavour", ["torchvision", "big_vision"])
@pytest.mark.parametrize("shape", [(250, 250), (250, 100), (80, 250)])
@pytest.mark.parametrize("size", [(32, 32), (32, 64), (96, 24)])
@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_crops_are_stretched_as_the_evaluation_view_is(flavour, shape, size, fit):
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    image = np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)
    spec = ImageSpec(size=size, fit=fit, mean=(1.0, 1.0, 1.0), interpolation="bilinear")
    augment = Augment(flavour=flavour, flip=0, crop_scale=(0.5, 1.0))
    box = covered(shape, spec)
    seen = stretch(pixels(image, spec), box)
    views = [train_view(image, augment, spec, seed) for seed in range(30)]
    drawn = np.array([stretch(view, box) for view in views]) / seen
    square = fit == "crop" and size == (32, 32)  # torchvision's rule, which never fits a panorama
    if not (square and max(shape) > 2 * min(shape)):
        assert drawn.min() > 0.68 and drawn.max() < 1.47  # 3/4 to 4/3, in whole pixels
        assert drawn.min() < 0.97 and drawn.max() > 1.03
        assert len({view.numpy().tobytes() for view in views}) > 20
    outside = torch.ones(size, dtype=torch.bool)
    top, left = (size[0] - box[0]) // 2, (size[1] - box[1]) // 2
    outside[top : top + box[0], left : left + box[1]] = False
    assert all((view[:, outside] == 255).all() and view[2].min() == 0 for view in views)


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_a_square_view_of_a_square_picture_is_the_same_whatever_the_fit(fit):
    image = picture(70, 70)
    usual = train_view(image, Augment(), SPEC, 4)
    assert torch.equal(train_view(image, Augment(), dataclasses.replace(SPEC, fit=fit), 4), usual)


@pytest.mark.parametrize("size", [(33, 17), (7, 224)])
@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_a_panorama_of_any_length_has_a_view(size, fit):
    spec = ImageSpec(size=size, fit=fit, crop=0.9)
    for shape in ((1, 3000), (3000, 1), (2, 2), (9, 1500)):
        image = np.full((*shape, 3), 9, np.uint8)
        for flavour in FLAVOURS:
            view = train_view(image, Augment(flavour=flavour), spec, 0)
            assert view.shape == (3, *size)
