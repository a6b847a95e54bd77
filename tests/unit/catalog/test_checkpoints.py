import re
import subprocess
import sys

import pytest
import torch

from vitral.catalog import model
from vitral.catalog.checkpoints import Checkpoint, checkpoint, checkpoints, labels
from vitral.errors import ModelError
from vitral.images.augment import transforms
from vitral.specs import counts

ROWS = {row.id: row for row in checkpoints()}


def test_ids_are_unique_and_found():
    assert len(ROWS) == len(checkpoints()) >= 40
    assert all(checkpoint(id) is row for id, row in ROWS.items())
    assert checkpoint("timm/nothing") is None


@pytest.mark.parametrize("row", checkpoints(), ids=lambda row: row.id)
def test_a_row_fits_its_model(row: Checkpoint):
    assert 0 < row.bytes < 10e9 and row.licence
    assert row.top1 is None or (60 < row.top1 < 90 and row.classes == 1000)
    assert row.model is not None
    spec = model(row.model, size=row.size, classes=row.classes)
    assert row.bytes == pytest.approx(4 * counts.parameters(spec), rel=0.02)


@pytest.mark.parametrize("row", checkpoints(), ids=lambda row: row.id)
def test_a_row_says_where_its_file_is(row: Checkpoint):
    if row.format in ("google", "torchvision"):
        assert row.url and row.url.startswith("https://") and row.url.endswith("/" + row.file)
        assert row.file.endswith(".npz" if row.format == "google" else ".pth")
    else:
        assert row.url is None and re.fullmatch(r"[\w.-]+/[\w.-]+", row.id)
        assert row.file in ("model.safetensors", "pytorch_model.bin")
    assert row.format in ("google", "transformers") or row.id.startswith(row.format + "/")


def test_licences_that_forbid_commerce_are_said():
    forbidding = {id for id, row in ROWS.items() if row.licence == "cc-by-nc-4.0"}
    assert {id for id in ROWS if "SWAG" in id or ".mae" in id} == forbidding
    assert {row.licence for row in ROWS.values()} == {
        "apache-2.0",
        "bsd-3-clause",
        "cc-by-nc-4.0",
        "dinov3-license",
    }


def test_a_bucket_has_an_address():
    row = ROWS["gs://vit_models/imagenet21k/ViT-B_16.npz"]
    assert row.url == "https://storage.googleapis.com/vit_models/imagenet21k/ViT-B_16.npz"
    assert row.file == "ViT-B_16.npz"
    assert row.bytes / 2**20 == pytest.approx(393.6, abs=0.1)  # the size that the bucket shows


def test_the_table_agrees_with_timm():
    transforms()  # makes torchvision importable, which timm needs
    timm = pytest.importorskip("timm")
    for row in checkpoints():
        if row.format == "timm":
            published = timm.get_pretrained_cfg(row.id.removeprefix("timm/"))
            assert published is not None and published.hf_hub_id == row.id
            assert published.hf_hub_filename is None, row.id
            assert (published.license, published.num_classes) == (row.licence, row.classes)
            assert abs(published.input_size[1] - row.size) < 14, row.id  # 384 is no multiple of 14


@pytest.mark.proof
@pytest.mark.parametrize("row", [row for row in checkpoints() if row.format == "timm"])
def test_the_sizes_agree_with_timms_networks(row: Checkpoint):
    transforms()
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        network = timm.create_model(row.id.removeprefix("timm/"))
    count = sum(parameter.numel() for parameter in network.parameters())
    assert row.bytes == pytest.approx(4 * count, rel=0.02)


def test_the_table_agrees_with_torchvision():
    transforms()
    from torchvision.models import get_model_weights

    for row in checkpoints():
        if row.format != "torchvision":
            continue
        network, _, weights = row.id.removeprefix("torchvision/").partition(".")
        published = get_model_weights(network)[weights]
        assert (published.url, network) == (row.url, row.model)
        assert published.meta["_metrics"]["ImageNet-1K"]["acc@1"] == row.top1
        assert published.meta["min_size"] == (row.size, row.size)
        assert published.meta["_file_size"] * 2**20 == pytest.approx(row.bytes, rel=1e-3)


def test_the_names_of_imagenet():
    names = labels("imagenet-1k")
    assert len(names) == len(set(names)) == 1000
    assert (
        names[0] == "tench" and names[207] == "golden retriever" and names[999] == "toilet tissue"
    )
    assert names[134] != names[517]  # the bird and the machine, both cranes
    assert all(name == name.strip() != "" for name in names)


def test_the_names_stand_in_timms_order():
    transforms()
    timm = pytest.importorskip("timm.data")
    known = timm.ImageNetInfo("imagenet-1k").label_descriptions()
    for ours, theirs in zip(labels("imagenet-1k"), known, strict=True):
        assert ours.lower().split()[0] in theirs.lower()


def test_an_unknown_list_is_an_error():
    with pytest.raises(ModelError, match=r"no list of class names 'imagenet-2k'.*imagenet-1k"):
        labels("imagenet-2k")


def test_the_table_needs_no_torch():
    code = (
        "import sys, vitral.catalog.checkpoints as c; c.checkpoints(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
