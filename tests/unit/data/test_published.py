"""Data sets as they are published, drawn small."""

from __future__ import annotations

import pytest

from drawn import draw_noise, write_text
from vitral.data.datasets import open_dataset, open_for_scoring
from vitral.data.sources import Dataset
from vitral.errors import DataError


def said(data: Dataset) -> str:
    return "\n".join(one.sentence for one in data.decisions)


def lines(*rows: str) -> str:
    return "\n".join(rows) + "\n"


def test_cub(tmp_path):
    files = [
        f"00{k}.{name}/{i}.jpg" for k, name in ((1, "Albatross"), (2, "Auk")) for i in range(4)
    ]
    draw_noise(tmp_path / "images", files)
    texts = {
        "images.txt": lines(*(f"{i} {name}" for i, name in enumerate(files, 1))),
        "image_class_labels.txt": lines(*(f"{i} {1 + (i > 4)}" for i in range(1, 9))),
        "train_test_split.txt": lines(*(f"{i} {int(i % 4 != 0)}" for i in range(1, 9))),
        "classes.txt": "1 001.Albatross\n2 002.Auk\n",
    }
    data = open_dataset(write_text(tmp_path, texts))
    assert data.classes == ("001.Albatross", "002.Auk")
    assert [data.val.key(i) for i in range(2)] == [f"images/{files[i]}" for i in (3, 7)]
    assert len(open_for_scoring(f"{tmp_path}@test", data.classes).split) == 2
    assert len(open_for_scoring(f"{tmp_path}@train", data.classes).split) == 6


def test_oxford_pets(tmp_path):
    names = [f"{breed}_{i}" for breed in ("Abyssinian", "basset_hound") for i in range(5)]
    draw_noise(tmp_path / "images", [f"{name}.jpg" for name in names])
    rows = [f"{name} 1 1 1" for name in names]
    texts = {
        "annotations/trainval.txt": lines(*(rows[:4] + rows[5:9])),
        "annotations/test.txt": lines(rows[4], rows[9]),
        "annotations/list.txt": lines("#Image CLASS-ID SPECIES BREED ID", *rows),
    }
    data = open_dataset(write_text(tmp_path, texts))
    assert data.classes == ("Abyssinian", "basset_hound")
    assert (len(data.train), len(data.val), data.val.name) == (8, 2, "test")


def test_voc(tmp_path):
    root = tmp_path / "VOC2012"
    names = [f"2008_{i}" for i in range(8)]
    draw_noise(root / "JPEGImages", [f"{name}.jpg" for name in names])
    marks = {"cat": "11-1-1-110-1", "dog": "-11-110-1-1-1"}
    for part, own in (("train", names[:5]), ("val", names[5:])):
        texts = {f"ImageSets/Main/{part}.txt": lines(*own)}
        for k, kind in enumerate(marks):
            values = [("1", "-1", "0")[(int(name[-1]) + k) % 3] for name in own]
            rows = [f"{name} {value:>2}" for name, value in zip(own, values, strict=True)]
            texts[f"ImageSets/Main/{kind}_{part}.txt"] = lines(*rows)
        write_text(root, texts)
    data = open_dataset(tmp_path)
    assert data.multi_label and data.classes == ("cat", "dog")
    assert data.train.labels.tolist()[:3] == [[True, False], [False, True], [True, True]]
    assert (len(data.train), len(data.val)) == (5, 3)


def test_celeba(tmp_path):
    names = [f"{i:06}.jpg" for i in range(1, 11)]
    draw_noise(tmp_path / "img_align_celeba", names)
    rows = [
        f"{name} {'1' if i % 2 else '-1'} {'1' if i % 3 else '-1'}" for i, name in enumerate(names)
    ]
    texts = {
        "list_attr_celeba.txt": lines("10", "Bald Young ", *rows),
        "list_eval_partition.txt": lines(
            *(f"{n} {(0, 1, 2)[(i > 5) + (i > 7)]}" for i, n in enumerate(names))
        ),
    }
    data = open_dataset(write_text(tmp_path, texts))
    assert data.classes == ("Bald", "Young") and data.multi_label
    assert (len(data.train), len(data.val)) == (6, 2)
    assert "split of list_attr_celeba.txt is that of list_eval_partition.txt" in said(data)
    assert f"vitral evaluate RUN {tmp_path}@test" in said(data)
    assert len(open_for_scoring(f"{tmp_path}@test", data.classes).split) == 2


def test_lists_of_names_give_a_table_its_split(tmp_path):
    """As the X-rays of NIH have them."""
    names = [f"{i:08}_000.png" for i in range(9)]
    draw_noise(tmp_path, [f"images_00{1 + i % 3}/images/{name}" for i, name in enumerate(names)])
    rows = [f"{name},{('Edema|Mass', 'Mass', 'None')[i % 3]},{i}" for i, name in enumerate(names)]
    texts = {
        "Data_Entry_2017.csv": lines("Image Index,Finding Labels,Patient ID", *rows),
        "train_val_list.txt": lines(*names[:6]),
        "test_list.txt": lines(*names[6:]),
    }
    data = open_dataset(write_text(tmp_path, texts))
    assert data.classes == ("Edema", "Mass", "None") and (len(data.train), len(data.val)) == (6, 3)


def test_lists_in_a_folder_of_their_own(tmp_path):
    names = [f"{kind}/{i}" for kind in ("churros", "tacos") for i in range(4)]
    draw_noise(tmp_path / "images", [f"{name}.jpg" for name in names])
    texts = {
        "meta/train.txt": lines(*(names[:3] + names[4:7])),
        "meta/test.txt": lines(names[3], names[7]),
    }
    data = open_dataset(write_text(tmp_path, texts))
    assert data.classes == ("churros", "tacos") and (len(data.train), len(data.val)) == (6, 2)
    draw_noise(tmp_path / "b" / "Training_Input", [f"ISIC_{i}.jpg" for i in range(6)])
    text = lines("image,MEL,NV", *(f"ISIC_{i},{i % 2}.0,{1 - i % 2}.0" for i in range(6)))
    write_text(tmp_path / "b", {"Training_GroundTruth/Training_GroundTruth.csv": text})
    assert open_dataset(tmp_path / "b").classes == ("MEL", "NV")


@pytest.mark.parametrize(
    ("pictures", "files", "sentence"),
    [
        (["cars_train/1.jpg", "cars_test/2.jpg"], ["cars_annos.mat"],
         r"cars_train has images but no class folders.*may be in cars_annos\.mat"),
        (["jpg/1.jpg", "jpg/2.jpg"], ["imagelabels.mat"],
         r"has the folders jpg, .*not like classes.*in imagelabels\.mat, which Vitral does not"),
        (["train/images/1.jpg", "valid/images/2.jpg"], ["train/labels/1.txt"],
         r"boxes for a detector \(YOLO\)"),
        (["images/1.jpg", "annotations/trimaps/2.jpg"], [], "folders annotations, images, which"),
        (["train/cat.0.jpg", "test1/2.jpg"], [], "train has images but no class folders"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_gets_its_sentence(tmp_path, pictures, files, sentence):
    draw_noise(tmp_path, pictures)
    write_text(tmp_path, dict.fromkeys(files, "0 1 2"))
    with pytest.raises(DataError, match=sentence):
        open_dataset(tmp_path)


def test_aircraft(tmp_path):
    """Several kinds of labels in lists of their own: those of one kind belong together."""
    names = [f"{100 + i}" for i in range(8)]
    draw_noise(tmp_path / "images", [f"{name}.jpg" for name in names])
    labels = {"variant": ("Cessna 172", "A320"), "family": ("Cessna", "A 320")}
    for kind, own in labels.items():
        rows = [f"{name} {own[i % 2]}" for i, name in enumerate(names)]
        write_text(tmp_path, {f"images_{kind}_train.txt": lines(*rows[:5]),
                              f"images_{kind}_val.txt": lines(*rows[5:])})  # fmt: skip
    data = open_dataset(tmp_path)
    assert data.classes == ("A 320", "Cessna") and (len(data.train), len(data.val)) == (5, 3)
    assert "Other tables are not read: images_variant_train.txt" in said(data)
