"""Translations of preprocessing between formats: what they say, and what they refuse by name."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitral.errors import WeightsError
from vitral.specs import ImageSpec
from vitral.weights import formats
from vitral.weights.formats import google, timm, torchvision, transformers


def differences(spec, name):
    return formats.named(name).preprocessing_differences(spec)


def test_timm_and_its_defaults():
    assert timm.read_preprocessing({}) == ImageSpec(
        crop=0.875, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    config = {"input_size": [3, 96, 64], "crop_mode": "border", "mean": [0.5], "std": 0.25}
    config |= {"crop_pct": 1, "interpolation": "bilinear", "test_input_size": [3, 128, 128]}
    spec = timm.read_preprocessing(config)
    assert (spec.size, spec.fit, spec.crop) == ((96, 64), "pad", 1.0)
    assert (spec.mean, spec.std) == ((0.5,) * 3, (0.25,) * 3)
    assert timm.read_preprocessing(config, test_size=True).size == (128, 128)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"interpolation": "random"}, "random"),
        ({"interpolation": "lanczos"}, "lanczos"),
        ({"crop_mode": "top"}, "crop_mode 'top'"),
        ({"crop_pct": 1.2}, "crop"),
        ({"crop_pct": "0.9"}, "crop"),
        ({"input_size": [1, 224, 224]}, "input_size"),
        ({"input_size": [3, 224.5, 224]}, "size"),
        ({"mean": "imagenet"}, "mean"),
        ({"std": [0, 0, 0]}, "std"),
    ],
    ids=str,
)
def test_timm_says_what_an_image_spec_cannot(config, words):
    with pytest.raises(WeightsError, match=words):
        timm.read_preprocessing(config)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"image_processor_type": "ConvNextImageProcessor"}, "ConvNextImageProcessor"),
        ({"resample": 1}, "lanczos"),
        ({"resample": 17}, "17"),
        ({"do_resize": False}, "do_resize = False"),
        ({"do_pad": True}, "do_pad = True"),
        ({"size": {"shortest_edge": 224}}, "do_center_crop"),
        ({"size": {"shortest_edge": 224, "longest_edge": 300}}, "longest_edge"),
        ({"size": 128, "do_center_crop": True, "crop_size": 224}, "fraction"),
        ({"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": [224, 192]}, "cut"),
        ({"size": "big"}, "size"),
        ({"rescale_factor": 0}, "rescale_factor"),
        ({"rescale_factor": "1/255"}, "rescale_factor"),
        ({"image_std": [0.0, 0.0, 0.0]}, "std"),
    ],
    ids=str,
)
def test_transformers_says_what_an_image_spec_cannot(config, words):
    with pytest.raises(WeightsError, match=words):
        transformers.read_preprocessing(config)


def test_transformers_reads_other_scales_as_mean_and_std():
    spec = transformers.read_preprocessing(
        {"do_rescale": False, "image_mean": 127.5, "image_std": 127.5}
    )
    assert spec == transformers.read_preprocessing({})
    spec = transformers.read_preprocessing({"rescale_factor": 1 / 127.5, "do_normalize": False})
    assert spec.mean == (0.0,) * 3 and spec.std == pytest.approx((0.5,) * 3)


def test_transformers_has_no_words_for_some():
    with pytest.raises(WeightsError, match="pad"):
        transformers.write_preprocessing(ImageSpec(fit="pad"))
    with pytest.raises(WeightsError, match="not square"):
        transformers.write_preprocessing(ImageSpec(size=(224, 192)))


@given(size=st.integers(1, 600), more=st.integers(0, 300))
def test_resize_and_cut_in_pixels_are_kept_exactly(size, more):
    config = {"image_processor_type": "BitImageProcessor", "crop_size": size}
    written = transformers.write_preprocessing(
        transformers.read_preprocessing({**config, "size": size + more})
    )
    assert written["size"] == {"shortest_edge": size + more}
    assert written["crop_size"] == {"height": size, "width": size}


sides = st.integers(8, 300)


@settings(deadline=None)  # a first import may fall into one of them
@given(
    size=st.tuples(sides, sides),
    fit=st.sampled_from(["crop", "pad", "squash"]),
    crop=st.floats(0.4, 1.0),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
)
def test_there_and_back(size, fit, crop, interpolation):
    spec = ImageSpec(size=size, fit=fit, crop=crop, interpolation=interpolation)
    assert timm.read_preprocessing(timm.write_preprocessing(spec)) == spec
    assert differences(spec, "timm") == []
    square = ImageSpec(size=size[0], crop=crop, centre="floor", interpolation=interpolation)
    again = transformers.read_preprocessing(transformers.write_preprocessing(square))
    assert [int(side / again.crop) for side in again.size] == [int(size[0] / crop)] * 2
    assert (again.size, again.centre, again.fit) == (square.size, "floor", "crop")


def test_torchvision_tells_its_weights_by_their_file():
    first = torchvision.read_preprocessing("vit_b_16-c867db91")
    assert (first.size, first.interpolation, int(224 / first.crop)) == ((224, 224), "bilinear", 256)
    assert int(224 / torchvision.read_preprocessing("vit_l_16-852ce7e3").crop) == 242
    linear = torchvision.read_preprocessing("vit_b_16_lc_swag-4e70ced5", (224, 224))
    assert (linear.crop, linear.interpolation) == (1.0, "bicubic")
    assert torchvision.read_preprocessing("vit_h_14_swag-80465313", 518).size == (518, 518)


def test_differences_are_told():
    assert "antialias" in differences(google.read_preprocessing(224), "timm")[0]
    assert "antialias" in differences(google.read_preprocessing(224), "transformers")[0]
    assert "one pixel" in differences(ImageSpec(), "transformers")[0]
    assert "one pixel" in differences(ImageSpec(centre="floor"), "timm")[0]
    floats = ImageSpec(fit="squash", interpolation="bilinear", resize="torch")
    assert differences(floats, "transformers") == []
    assert "floats" in differences(floats, "timm")[0]
    assert differences(ImageSpec(fit="squash", centre="floor"), "timm") == []
    assert differences(ImageSpec(fit="pad", centre="floor"), "timm") == []
    assert differences(ImageSpec(fit="squash", crop=0.875), "transformers") == []  # 256 - 224
    assert differences(ImageSpec(size=101, fit="squash", crop=101 / 104), "transformers")  # 3
