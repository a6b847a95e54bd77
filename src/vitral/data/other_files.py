"""Say what files are that are no pictures, by their endings, and how they become pictures."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from vitral.data.folders import is_passed_over, named_like_an_image
from vitral.wording import listed


class Kind(NamedTuple):
    """Files that hold pictures in a form that Vitral does not read.

    Attributes:
        name: what they are.
        way: how to make pictures of them.
        endings: of their names, in lower case.
    """

    name: str
    way: str
    endings: tuple[str, ...]


_ARRAYS = "save each picture as PNG: PIL.Image.fromarray(pixels).save('1.png')"
_SLICES = "save their slices as PNG (nibabel reads them)"
KINDS = (
    Kind(
        "DICOM", "convert them to PNG: dcmj2pnm --write-png 1.dcm 1.png (DCMTK)", (".dcm", ".ima")
    ),
    Kind("NIfTI volumes", _SLICES, (".nii", ".nii.gz")),
    Kind("volumes", "save their slices as PNG (SimpleITK reads them)", (".mha", ".mhd", ".nrrd")),
    Kind("arrays", _ARRAYS, (".npy", ".npz", ".pt", ".pth", ".pkl", ".pickle", ".bin", ".raw")),
    Kind("arrays in HDF5", f"{_ARRAYS} (h5py reads them)", (".h5", ".hdf5", ".hdf")),
    Kind("MATLAB files", f"{_ARRAYS} (scipy.io.loadmat reads them)", (".mat",)),
    Kind(
        "videos",
        "take pictures out of them: ffmpeg -i 1.mp4 -vf fps=1 1-%04d.png",
        (".mp4", ".avi", ".mov", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg", ".m4v", ".flv", ".3gp"),
    ),
    Kind("PDF", "make pictures of the pages: pdftoppm -png -r 150 1.pdf 1", (".pdf",)),
    Kind(
        "raw photos of a camera",
        "save them as JPEG: darktable-cli 1.cr2 1.jpg",
        (".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw", ".crw"),
    ),
    Kind(
        "slides of a microscope",
        "cut them into tiles: vips dzsave 1.svs tiles",
        (".svs", ".ndpi", ".mrxs", ".scn", ".czi", ".lif", ".vsi"),
    ),
    Kind(
        "arrays of MNIST",
        "save each picture as PNG (torchvision.datasets.MNIST reads them)",
        ("-ubyte", ".ubyte", "-ubyte.gz"),
    ),
    Kind(
        "pickled arrays of CIFAR",
        "save each picture as PNG (torchvision.datasets.CIFAR10 reads them)",
        ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"),
    ),
    Kind("archives", "unpack them", (".zip", ".gz", ".tgz", ".bz2", ".xz", ".rar", ".7z", ".zst")),
    Kind("workbooks", "save the table as CSV", (".xlsx", ".xls", ".ods", ".numbers")),
    Kind("tar files", "unpack them, or give them to Vitral as shards", (".tar",)),
    Kind("records of TensorFlow", "write their pictures as files", (".tfrecord", ".tfrecords")),
    Kind("point clouds", "render them as pictures", (".pcd", ".ply", ".las", ".laz")),
    Kind("pictures of high range", "save them as PNG or TIFF", (".exr", ".hdr", ".pfm")),
)


def kind_of(name: str) -> Kind | None:
    """Finds the kind of a file by its ending; None for a picture and for what is unknown."""
    folded = name.casefold()
    return next((kind for kind in KINDS if folded.endswith(kind.endings)), None)


def ending_of(name: str) -> str:
    """Gives the ending of a name: '.nii.gz', '.dcm', '' for none."""
    folded = name.casefold()
    kind = kind_of(name)
    known = [ending for ending in kind.endings if folded.endswith(ending)] if kind else []
    return max(known, key=len) if known else posixpath.splitext(folded)[1]


class OtherFiles(NamedTuple):
    """The files below a folder that are not called like pictures.

    Attributes:
        counts: how many have each ending.
        examples: one of each, relative to the folder.
    """

    counts: Counter[str]
    examples: dict[str, str]

    def sentence(self) -> str:
        """Counts the files by their ending, shows one, and says the way out; '' for none."""
        if not self.counts:
            return ""
        # what is known to hold pictures says more than notes beside it
        known = {one: count * (1 + 9 * (kind_of(self.examples[one]) is not None))
                 for one, count in self.counts.items()}  # fmt: skip
        order = sorted(self.counts, key=lambda one: -known[one])
        ending = order[0]
        told = []
        for one in order:
            count = self.counts[one]
            kind = kind_of(self.examples[one])
            what = f"ending in {one}" if one else "without an ending"
            files = "1 file" if count == 1 else f"{count:,} files"
            told.append(f"{files} {what}{f' ({kind.name})' if kind else ''}")
        there = "There is" if self.counts[ending] == 1 else "There are"
        kind = kind_of(self.examples[ending])
        way = f"{kind.way[0].upper()}{kind.way[1:]}." if kind else "Convert them to PNG or JPEG."
        return (
            f"{there} {listed(told, 3)}, such as {self.examples[ending]}, and Vitral reads none "
            f"of these. {way}"
        )


def other_files(folder: Path) -> OtherFiles:
    """Counts the files below a folder that are not called like pictures, by their ending."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for above, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_passed_over(name))
        for name in sorted(files):
            if is_passed_over(name) or named_like_an_image(name):
                continue
            ending = ending_of(name)
            counts[ending] += 1
            path = Path(above, name).relative_to(folder)
            examples.setdefault(ending, path.as_posix())
    return OtherFiles(counts, examples)


def label_files(folder: Path) -> str:
    """Says which files that are not read may hold the labels of pictures; '' for none."""
    names = [child.name for child in sorted(folder.iterdir()) if not is_passed_over(child.name)]
    found = [name for name in names if name.casefold().endswith(_OF_LABELS)]
    for name in names:
        if (folder / name).is_dir():
            below = [child.name for child in sorted((folder / name).iterdir())]
            own = [child for child in below if child.casefold().endswith((*_OF_LABELS, ".xml"))]
            found += [f"{name}/{child}" for child in own[:2]]
            if name.casefold() == "labels" and any(child.endswith(".txt") for child in below):
                return (
                    f"The files of {name}/ are boxes for a detector (YOLO); Vitral names whole "
                    f"pictures: write the class of each in a train.csv (path,label)."
                )
    if not found:
        return ""
    return (
        f"The labels may be in {listed(found, 3)}, which Vitral does not read: write them in a "
        f"train.csv (path,label)."
    )


_OF_LABELS = (".mat", ".pkl", ".pickle", ".npy", ".npz", ".h5", ".xls", ".xlsx", ".ods")
