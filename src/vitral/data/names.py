"""Names that people give to the columns of a table and to the parts of a split.

CSV files, JSON, tar shards, tables of Hugging Face and folders are all read by these names. Upper
and lower case, spaces, dots and underscores make no difference: `ClassId` is `class_id`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeVar, get_args

HeldOutName = Literal["val", "test"]
Part = Literal["train", "val", "test", "unlabelled"]
T = TypeVar("T")

PARTS = get_args(Part)

# Columns that name a picture; the first of these is read. The bare identifiers come last.
PATH_COLUMNS = (
    *("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img"),
    *("image_name", "image_file", "image_filename", "file_path", "filepaths", "filenames", "fname"),
    *("img_path", "img_name", "img_file", "full_path", "relative_path", "rel_path", "images"),
    *("picture", "photo", "image_index", "image_id", "img_id", "isic_id", "id_code", "id", "name"),
)

# Columns that hold a label; where a table has several of them, the first of these is read.
LABEL_COLUMNS = (
    *("label", "labels", "class", "classes", "category", "categories", "target"),
    *("fine_label", "class_name", "cls", "tags", "label_name", "category_name"),
    *("label_str", "label_text", "class_str"),
    *("class_label", "label_id", "class_id", "category_id", "class_idx", "label_idx"),
    *("target_class", "finding_labels", "attribute_ids", "keywords", "ground_truth", "gt"),
    *("species", "breed", "variety", "diagnosis", "dx", "emotion", "primary_label", "y"),
)
MULTI_LABEL_COLUMNS = frozenset(  # of which the name says that a cell may hold several labels
    {"labels", "classes", "categories", "tags", "finding_labels", "attribute_ids", "keywords"}
)
TAG_COLUMNS = frozenset({"tags", "attribute_ids", "keywords"})  # which spaces usually separate

# Columns that say whose picture it is: those of one are alike, and no test of one another.
OWNER_COLUMNS = (
    *("patient_id", "patient", "patient_name", "patient_number", "subject_id", "subject"),
    *("participant_id", "participant", "person_id", "lesion_id", "case_id", "study_id", "video_id"),
)

# Columns that say which part of a split a row belongs to.
SPLIT_COLUMNS = (
    *("split", "subset", "partition", "usage", "data_set", "dataset", "set", "phase", "data_split"),
    *("split_name", "train_test_split", "train_test", "train_val_test", "fold", "kfold"),
)
# Columns of yes and no, and the part of which they speak.
SPLIT_FLAGS: dict[str, Part] = {
    **dict.fromkeys(("istrain", "istraining", "istrainingimage", "intrain"), "train"),
    **dict.fromkeys(("isvalid", "isval", "isvalidation", "isholdout", "inval"), "val"),
    **dict.fromkeys(("istest", "istesting", "intest"), "test"),
}
# The same where a column of labels stands beside it: otherwise a train may be a class.
BARE_SPLIT_FLAGS: dict[str, Part] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "holdout"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}

TRAIN = ("train", "training")
HELD_OUT = ("val", "valid", "validation", "test", "testing")

_WORDS: dict[str, Part] = {
    **dict.fromkeys((*TRAIN, "trn", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "devel"), "val"),
    **dict.fromkeys(("holdout", "heldout", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
    **dict.fromkeys(("pred", "predict", "prediction", "unlabelled", "unlabeled"), "unlabelled"),
}
# Words beside those of a split that say nothing more: train_images, Test set, val_labels.
_FILLERS = frozenset(
    {"set", "sets", "data", "dataset", "split", "part", "seg", "folder", "folders", "dir", "v"}
    | {"image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "samples"}
    | {"file", "files", "list", "lists", "label", "labels", "class", "classes", "csv", "meta"}
    | {"annotation", "annotations", "annos", "metadata", "info", "new", "final", "clean", "full"}
    | {"std", "standard", "public", "private"}
)
NO_CLASSES = frozenset(  # folders of a data set that are never its classes
    {"images", "image", "imgs", "img", "jpg", "jpegimages", "pictures", "photos", "annotations"}
    | {"annotation", "masks", "mask", "labels", "label", "trimaps", "segmentations", "gt"}
    | {"ground_truth", "groundtruth", "segmentationclass", "metadata", "xmls"}
)
UNKNOWN_CLASSES = frozenset(  # folders of pictures that nobody has labelled
    {"unknown", "unlabelled", "unlabeled", "unk", "images", "image", "imgs", "img", "pictures"}
    | {"all", "data", "test", "testing", "test_images", "testset", "pred", "0"}
)


def key(name: str) -> str:
    """Reduces a name to its letters and digits: 'Class-ID' and 'class_id' to 'classid'."""
    return "".join(char for char in name.casefold() if char.isalnum())


def positions(header: Sequence[str], known: Iterable[str]) -> list[int]:
    """Lists where the known names stand in a header, in the order of the known."""
    keys = [key(name) for name in header]
    return [keys.index(name) for name in dict.fromkeys(map(key, known)) if name in keys]


def is_one_of(name: str, known: Iterable[str]) -> bool:
    """Tells whether a column is called by one of these names."""
    return key(name) in set(map(key, known))


def words_of(name: str) -> list[str]:
    """Splits a name into its words in lower case: 'PublicTest_2' into public and test."""
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return [word.casefold() for word in re.findall(r"[^\W\d_]+", spaced)]


def part_of(name: str, *, alone: bool = True) -> Part | None:
    """Says of which part of a split a name speaks; None for a name that speaks of none.

    Args:
        name: of a folder, a list, or the value of a column.
        alone: whether every other word has to be an empty one, as in train_images. Otherwise any
            may stand beside it, as in seg_train.
    """
    if key(name) in _WORDS:  # hold-out, hold_out
        return _WORDS[key(name)]
    parts: list[Part] = []
    for word in words_of(name):
        part = _WORDS.get(word) or _glued(word)
        if part is not None:
            parts.append(part)
        elif alone and word not in _FILLERS:
            return None
    if not parts:
        return None
    return next(part for part in ("unlabelled", "train", "val", "test") if part in parts)


def _glued(word: str) -> Part | None:
    """The part in 'trainset' and 'imagestest'."""
    for known, part in _WORDS.items():
        rest = word.removeprefix(known) if word.startswith(known) else word.removesuffix(known)
        if rest != word and rest in _FILLERS:
            return part
    return None


def without_part(name: str) -> tuple[str, ...]:
    """Gives the words of a name beside those of a split: seg of seg_train and of seg_test."""
    return tuple(w for w in words_of(name) if w not in _WORDS and _glued(w) is None)


def held_out_name(name: str) -> HeldOutName:
    """Calls a held-out part by one of two names, whatever the user calls it."""
    return "test" if part_of(name, alone=False) == "test" else "val"


def split_of(words: Iterable[str]) -> Literal["train", "val", "test"]:
    """Says which part of a split lower-case words speak of: training, unless only another."""
    parts = {_WORDS[word] for word in words if word in _WORDS}
    if "train" in parts or not parts & {"val", "test"}:
        return "train"
    return "val" if "val" in parts else "test"


def divided(parts: Mapping[str, T]) -> tuple[T | None, T | None, HeldOutName]:
    """Picks the training part and the held-out one by their names, and names the last.

    None where there is no such part. The plain names come first; of several held-out parts the
    validation images are taken.
    """
    plain = {name.casefold(): name for name in parts}
    known = [plain[name] for name in (*TRAIN, *HELD_OUT) if name in plain]
    by_part: dict[Part, str] = {}
    for name in (*known, *parts):
        part = part_of(name)
        if part is not None:
            by_part.setdefault(part, name)
    train = by_part.get("train")
    held_out = by_part.get("val", by_part.get("test"))
    return (
        None if train is None else parts[train],
        None if held_out is None else parts[held_out],
        "val" if held_out is None else held_out_name(held_out),
    )
