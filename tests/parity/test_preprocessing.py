"""The tensor of one image, here and in each format: timm, torchvision, transformers, TensorFlow.

Bound by the text: 1/255 anywhere and 1e-3 on average, of values in [0, 1]. Vitral resizes with
Pillow, so formats that do are met to the bit. Those that do not:
- torchvision's tensor backend ("fast" processors) has weights of 15 bits where Pillow has 22: up
  to 2/255 at single pixels. It also resizes rows before columns always, where Pillow takes the
  cheaper order and both clip in between: on white noise that is up to 20/255 apart.
- DINOv3's processor and TensorFlow give floats: we round them to 8 bits once, 0.25/255 on average.
"""

import functools
import importlib
import io
import json
import tarfile
import warnings
from pathlib import Path

import numpy as np
import peers
import pytest
import torch
from PIL import Image, ImageDraw

from shared import SHARED
from vitral.images.preprocess import pixels, tensor
from vitral.specs import ImageSpec
from vitral.weights.formats import google, timm, torchvision, transformers

SHAPES = [
    (375, 500), (500, 375), (333, 251), (251, 334), (224, 224), (61, 97), (640, 90), (90, 1401),
]  # fmt: skip


@functools.cache
def photograph(height, width):
    """Detail at every scale, as photographs have, and a few sharp edges; as the bytes of a JPEG."""
    random = np.random.default_rng((height, width))
    picture = np.zeros((height, width, 3))
    for step in (1, 2, 4, 8, 16, 32, 64):
        noise = random.normal(size=(height // step + 2, width // step + 2, 3)).astype(np.float32)
        planes = [Image.fromarray(noise[..., c]).resize((width, height), 3) for c in range(3)]
        picture += step**0.9 * np.stack([np.asarray(plane) for plane in planes], axis=-1)
    low, high = np.quantile(picture, (0.01, 0.99))
    image = Image.fromarray((255 * ((picture - low) / (high - low)).clip(0, 1)).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = random.integers(0, width), random.integers(0, height)
        side = int(random.integers(4, max(5, min(height, width) // 3)))
        fill = tuple(int(value) for value in random.integers(0, 256, 3))
        draw.ellipse((x, y, x + side, y + side), fill=fill)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def pictures():
    """(bytes, the RGB image that a format would be given)."""
    for shape in SHAPES:
        data = photograph(*shape)
        yield data, Image.open(io.BytesIO(data)).convert("RGB")
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photograph(*SHAPES[0]))).convert("L").save(buffer, "PNG")
    yield buffer.getvalue(), Image.open(buffer).convert("RGB")


def difference(ours, theirs, spec):
    """(largest, mean) difference of two tensors, in units of pixel values in [0, 1]."""
    assert ours.shape == theirs.shape
    std = torch.tensor(spec.std).view(3, 1, 1)
    apart = ((ours - theirs) * std).abs()
    return apart.max().item(), apart.mean().item()


def agree(theirs, spec, largest=0.0, mean=0.0):
    """Compare on every picture; equal to the bit unless bounds are given."""
    rounding = 1e-6  # of the float32 normalisation
    for data, image in pictures():
        apart = difference(tensor(data, spec), theirs(image), spec)
        assert apart[0] <= largest + rounding, (image.size, apart)
        assert apart[1] <= mean + rounding, (image.size, apart)


# ------------------------------------------------------------------ timm


TIMM = {
    "augreg": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 0.9, "interpolation": "bicubic"},
    "defaults": {},
    "flexivit": {"input_size": (3, 240, 240), "crop_pct": 0.95},
    "odd crop": {"input_size": (3, 112, 112), "crop_pct": 0.937, "interpolation": "bilinear"},
    "siglip": {"input_size": (3, 256, 256), "crop_mode": "squash", "crop_pct": 0.9},
    "miil": {"mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": "bilinear"},
    "border": {"crop_mode": "border", "crop_pct": 1.0},
    "border cut": {"crop_mode": "border", "crop_pct": 0.7, "input_size": (3, 96, 144)},
    "not square": {"input_size": (3, 128, 192), "crop_pct": 0.9},
    "squash not square": {"input_size": (3, 100, 150), "crop_pct": 0.87, "crop_mode": "squash"},
}


def of_timm(pretrained_cfg, **options):
    data = importlib.import_module("timm.data")
    config = data.resolve_data_config(pretrained_cfg=pretrained_cfg or {"x": 1}, **options)
    return data.create_transform(**config, is_training=False)


@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    spec = timm.read_preprocessing(TIMM[name])
    agree(of_timm(TIMM[name]), spec)
    agree(of_timm(timm.write_preprocessing(spec)), spec)
    assert timm.read_preprocessing(timm.write_preprocessing(spec)) == spec
    assert timm.format.preprocessing_differences(spec) == []


def test_timm_at_its_test_size():
    config = {"input_size": (3, 96, 96), "test_input_size": (3, 160, 160), "test_crop_pct": 1.0}
    agree(of_timm(config, use_test_size=True), timm.read_preprocessing(config, test_size=True))
    agree(of_timm(config), timm.read_preprocessing(config))


def test_every_transformer_of_timm():
    """All pretrained_cfgs of timm's ViT, DeiT and hybrids: the configuration, not the pixels."""
    data = importlib.import_module("timm.data")
    compared = 0
    for name in peers.timm.list_pretrained():
        if not name.startswith(("vit_", "deit", "flexivit")) or "naflex" in name:
            continue
        config = peers.timm.get_pretrained_cfg(name).to_dict()
        resolved = data.resolve_data_config(pretrained_cfg=config)
        spec = timm.read_preprocessing(config)
        assert spec.size == tuple(resolved["input_size"][1:])
        assert (spec.crop, spec.interpolation) == (resolved["crop_pct"], resolved["interpolation"])
        assert (spec.mean, spec.std) == (tuple(resolved["mean"]), tuple(resolved["std"]))
        compared += 1
    assert compared > 200


# ------------------------------------------------------------------ torchvision


def torchvision_weights():
    for name in ("ViT_B_16", "ViT_B_32", "ViT_L_16", "ViT_L_32", "ViT_H_14"):
        yield from getattr(peers.torchvision.models, f"{name}_Weights")


@pytest.mark.parametrize("weights", list(torchvision_weights()), ids=str)
def test_torchvision(weights):
    preset = weights.transforms()
    spec = torchvision.read_preprocessing(Path(weights.url).stem, preset.crop_size[0])
    agree(preset, spec)


# ------------------------------------------------------------------ transformers


TRANSFORMERS = {
    "google/vit-base-patch16-224": {
        "image_processor_type": "ViTImageProcessor", "do_normalize": True, "do_resize": True,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2,
        "size": {"height": 224, "width": 224}, "do_rescale": True,
        "rescale_factor": 0.00392156862745098,
    },
    "old, an integer": {"feature_extractor_type": "ViTFeatureExtractor", "size": 96},
    "not square": {
        "image_processor_type": "ViTImageProcessorFast", "size": {"height": 64, "width": 112},
    },
    "facebook/deit-base-patch16-224": {
        "feature_extractor_type": "DeiTFeatureExtractor", "crop_size": 224, "do_center_crop": True,
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3,
        "size": 256,
    },
    "DeiT, odd margin": {
        "image_processor_type": "DeiTImageProcessor", "size": 131, "crop_size": 112,
    },
    "facebook/dinov2-base": {
        "image_processor_type": "BitImageProcessor", "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True, "do_convert_rgb": True, "resample": 3,
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
        "size": {"shortest_edge": 256},
    },
    "Bit alone": {"image_processor_type": "BitImageProcessor"},
    "CLIP, an integer": {
        "image_processor_type": "CLIPImageProcessor", "size": 120, "crop_size": 101,
    },
    "SigLIP": {"image_processor_type": "SiglipImageProcessor", "size": {"height": 96, "width": 96}},
    "no normalisation": {"image_processor_type": "ViTImageProcessor", "do_normalize": False},
    "no scaling": {
        "image_processor_type": "ViTImageProcessor", "do_rescale": False,
        "image_mean": [127.5] * 3, "image_std": [64.0] * 3,
    },
    "another scale": {"image_processor_type": "ViTImageProcessor", "rescale_factor": 1 / 127.5},
}  # fmt: skip


def of_transformers(config, backend):
    """The processor named in a configuration, over Pillow ("Pil") or over torchvision ("")."""
    name = config.get("image_processor_type") or config["feature_extractor_type"]
    stem = name.removesuffix("Fast").removesuffix("FeatureExtractor").removesuffix("ImageProcessor")
    folder = {"DINOv3ViT": "dinov3_vit"}.get(stem, stem.lower())
    part = "pil_" if backend else ""
    module = f"transformers.models.{folder}.image_processing_{part}{folder}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, about optional packages
        try:
            processor = getattr(importlib.import_module(module), f"{stem}ImageProcessor{backend}")
        except ImportError:
            pytest.skip(f"this transformers has no {module}")
    values = {key: value for key, value in config.items() if not key.endswith("_type")}
    processor = processor(**values)
    return lambda image: processor(image, return_tensors="pt")["pixel_values"][0].float()


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_over_pillow(name):
    spec = transformers.read_preprocessing(TRANSFORMERS[name])
    agree(of_transformers(TRANSFORMERS[name], "Pil"), spec)
    agree(of_transformers(transformers.write_preprocessing(spec), "Pil"), spec)
    assert transformers.read_preprocessing(transformers.write_preprocessing(spec)) == spec
    assert transformers.format.preprocessing_differences(spec) == []


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_over_torchvision(name):
    spec = transformers.read_preprocessing(TRANSFORMERS[name])
    agree(of_transformers(TRANSFORMERS[name], ""), spec, largest=2 / 255, mean=1e-3)


def test_dinov3_which_resizes_floats():
    config = {"image_processor_type": "DINOv3ViTImageProcessorFast", "size": 112}
    spec = transformers.read_preprocessing(config)
    written = transformers.write_preprocessing(spec)
    agree(of_transformers(config, ""), spec, largest=0.51 / 255, mean=1e-3)
    agree(of_transformers(written, ""), spec, largest=0.51 / 255, mean=1e-3)
    assert transformers.read_preprocessing(written) == spec
    assert transformers.format.preprocessing_differences(spec) == []


def test_transformers_loads_the_file_by_itself(tmp_path):
    auto = importlib.import_module("transformers").AutoImageProcessor
    spec = ImageSpec(size=(48, 48), crop=0.9, centre="floor", interpolation="bilinear")
    for fit in ("crop", "squash"):
        spec = ImageSpec.from_dict({**spec.to_dict(), "fit": fit})
        values = transformers.write_preprocessing(spec)
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
        processor = auto.from_pretrained(tmp_path, backend="pil")
        agree(lambda image, p=processor: p(image, return_tensors="pt")["pixel_values"][0], spec)


# ------------------------------------------------------------------ Google


def test_google_resizes_as_tensorflow():
    path = SHARED / "golden" / "tf_preproc.npz"
    if not path.exists():
        pytest.skip(f"TensorFlow's recorded resizes are not at {path}")
    with np.load(path) as file:
        recorded = {key: file[key] for key in file.files}
    for name, size in (("res_48_bilinear", 48), ("res_100x120_bilinear", (100, 120))):
        shown = pixels(recorded["im"], google.read_preprocessing(size)).permute(1, 2, 0).numpy()
        apart = np.abs(shown - recorded[name])
        assert apart.max() <= 0.5 + 1e-3 and apart.mean() / 255 < 1e-3  # rounding to 8 bits
    smooth = ImageSpec(size=(48, 48), fit="squash", interpolation="bilinear")
    shown = pixels(recorded["im"], smooth).permute(1, 2, 0).numpy()
    apart = np.abs(shown - recorded["res_48_bilinear_aa"])
    assert apart.max() < 1 and apart.mean() / 255 < 1.2e-3


# ------------------------------------------------------------------ files as people have them


def test_photographs_of_the_shared_data(tmp_path):
    archive = SHARED / "data" / "imagenette128.tar.gz"
    if not archive.exists():
        pytest.skip(f"{archive} is not here")
    files = []
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and member.name.lower().endswith((".jpg", ".jpeg", ".png")):
                files.append(tar.extractfile(member).read())
            if len(files) == 12:
                break
    spec = timm.read_preprocessing(TIMM["augreg"])
    theirs = of_timm(TIMM["augreg"])
    for data in files:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        assert difference(tensor(data, spec), theirs(image), spec)[0] < 1e-6


@pytest.mark.parametrize(("height", "width"), [(1200, 1600), (2400, 1801)])
def test_a_large_jpeg_is_decoded_in_full(height, width):
    """JPEG's own halving would be some 10/255 away at sharp edges."""
    picture = Image.open(io.BytesIO(photograph(375, 500))).resize((width, height), 3)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    spec = timm.read_preprocessing(TIMM["odd crop"])
    theirs = of_timm(TIMM["odd crop"])(Image.open(buffer).convert("RGB"))
    assert difference(tensor(buffer.getvalue(), spec), theirs, spec)[0] < 1e-6
