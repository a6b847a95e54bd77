"""Read data sets of Hugging Face: `hf:NAME`, or parquet or arrow files on this machine.

The library `datasets` reads them (`pip install vitral[data]`), row by row from its own cache. The
image column is the one whose values hold the bytes of a file, the label column the one called
label or so; class numbers become the names that the data set has for them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitral.data import names
from vitral.data.decisions import Decision
from vitral.data.headers import read_header
from vitral.data.sources import DataLayout, Problem, ScanResult, SourceOptions
from vitral.data.table_columns import split_of
from vitral.errors import DataError, MachineError

if TYPE_CHECKING:
    import datasets

_KINDS = ("parquet", "arrow")


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Encoded images in a column of a table.

    Attributes:
        table: a datasets.Dataset of which the column is not decoded.
        column: its name.
        rows: which of its rows are used, in order.
        name: of the split.
    """

    table: datasets.Dataset
    column: str
    rows: tuple[int, ...]
    name: str

    def read(self, row: int) -> bytes:
        """Reads the bytes of an image; DataError if the row holds none."""
        value = self.table[self.rows[row]][self.column]
        data = value.get("bytes") if isinstance(value, dict) else value
        if data is None and isinstance(value, dict) and value.get("path"):
            try:
                return Path(value["path"]).read_bytes()
            except OSError as error:
                raise DataError(f"The file cannot be read ({error.strerror or error}).") from error
        if not isinstance(data, bytes):
            raise DataError("The row holds no image.")
        return data

    def key(self, row: int) -> str:
        """Names a row by its split: train/12."""
        return f"{self.name}/{self.rows[row]}"


@dataclass(frozen=True, slots=True, eq=False)
class HubSplit:
    """One split of a data set of Hugging Face.

    Attributes:
        source: what the user calls the data set.
        name: of the split.
        table: its rows.
        labelled: whether there has to be a column of labels.
    """

    source: str
    name: str
    table: datasets.Dataset
    labelled: bool = True

    def __str__(self) -> str:
        return f"{self.source} ({self.name})"

    def scan(self) -> ScanResult:
        """Lists every row with an image and a label; DataError where there is no such column."""
        image = _image_column(self.table, self)
        label = _label_column(self.table, self) if self.labelled else None
        table = _undecoded(self.table, image)
        everything = Rows(table, image, tuple(range(len(table))), self.name)
        scanned = ScanResult(everything)
        if label is not None:
            scanned.decisions.append(Decision("labels", f"Column '{label}' is the label."))
        class_names = _class_names(table.features[label]) if label else []
        kept = []
        for row, value in enumerate(table[label] if label else [[]] * len(table)):
            scanned.multi_label = scanned.multi_label or isinstance(value, list)
            try:
                data = everything.read(row)
                header = read_header(io.BytesIO(data), f"{self.name}/{row}")
                labels = _labels(value, class_names)
            except DataError as error:
                scanned.problems.append(Problem.left_out(everything.key(row), error))
                continue
            kept.append(row)
            scanned.add(everything.key(row), labels, len(data), header)
        scanned.reader = Rows(table, image, tuple(kept), self.name)
        return scanned


def layout(source: str, options: SourceOptions) -> DataLayout | None:
    """Gives the layout of hf:NAME and of parquet and arrow files; None for anything else."""
    if not source.startswith("hf:") and not is_table(Path(source)):
        return None
    parts, decisions = _by_column(splits(source), source)
    tables = {
        name: HubSplit(source, name, table, options.labelled) for name, table in parts.items()
    }
    train, held_out, held_name = names.divided(tables)
    if train is None and held_out is None:
        raise DataError(f"{source} has no split called train, only {', '.join(tables)}.")
    is_path = not source.startswith("hf:")
    kind = "Hugging Face data set"
    return DataLayout(kind, train, held_out, held_name, source, is_path, decisions=tuple(decisions))


def _by_column(
    tables: dict[str, datasets.Dataset], source: str
) -> tuple[dict[str, datasets.Dataset], list[Decision]]:
    """The rows of a single table by the column that says their part; otherwise as they are."""
    if len(tables) != 1:
        return tables, []
    (table,) = tables.values()
    known = (*names.SPLIT_COLUMNS, *names.SPLIT_FLAGS)
    columns = [name for name in table.column_names if names.is_one_of(name, known)]
    if not columns:
        return tables, []
    cells = {
        name: ["" if value is None else str(value) for value in table[name]] for name in columns
    }
    parts, decisions = split_of(cells, Path(source))
    if not parts:
        return tables, decisions
    rows: dict[str, list[int]] = {}
    for row, part in enumerate(parts):
        if part in ("train", "val", "test"):
            rows.setdefault(part, []).append(row)
    return {part: table.select(own) for part, own in rows.items()}, decisions


def splits(source: str) -> dict[str, datasets.Dataset]:
    """Opens the splits of `hf:NAME`, or of a folder or file of parquet or arrow files, by name.

    Raises MachineError where `datasets` is not installed, DataError for what it cannot open.
    """
    library = _library()
    path = Path(source)
    with _loading(source):
        if source.startswith("hf:"):
            name, _, part = source.removeprefix("hf:").partition("@")
            loaded = library.load_dataset(name, part or None)
        elif (path / "state.json").exists() or (path / "dataset_dict.json").exists():
            loaded = library.load_from_disk(str(path))
        else:
            kind = "parquet" if any(_files(path, "parquet")) else "arrow"
            loaded = library.load_dataset(kind, data_files=_by_split(path, _files(path, kind)))
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def is_table(path: Path) -> bool:
    """Tells whether a path is a parquet file or a folder of parquet or arrow files."""
    if path.is_file():
        return path.suffix == ".parquet"
    saved = (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()
    folders = (path, path / "data", path / "train") if path.is_dir() else ()
    return saved or any(any(folder.glob(f"*.{kind}")) for folder in folders for kind in _KINDS)


def _files(path: Path, kind: str) -> list[Path]:
    return [path] if path.suffix == f".{kind}" else sorted(path.rglob(f"*.{kind}"))


def _by_split(path: Path, files: list[Path]) -> dict[str, list[str]]:
    """Files by split: the first word of a file's name or its folder's, otherwise train."""
    by_split: dict[str, list[str]] = {}
    for file in files:
        folder = file.parent.name if file.parent != path else ""
        words = (folder.lower(), file.stem.partition("-")[0].lower())
        by_split.setdefault(names.split_of(words), []).append(str(file))
    return by_split


def _library() -> Any:
    try:
        import datasets  # noqa: PLC0415 - optional, and seconds to import
    except ImportError:
        raise MachineError(
            "Data sets of Hugging Face need its library: pip install 'vitral[data]'."
        ) from None
    datasets.disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # a line for every retry
    logging.getLogger("datasets").setLevel(logging.CRITICAL)  # its errors are raised, too
    return datasets


@contextlib.contextmanager
def _loading(source: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the library raises anything
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{source} cannot be opened as a data set: {first[:200]}") from error


def _image_column(table: datasets.Dataset, where: object) -> str:
    for name, feature in table.features.items():
        if type(feature).__name__ == "Image" or getattr(feature, "dtype", "") == "binary":
            return str(name)
        if isinstance(feature, dict) and "bytes" in feature:
            return str(name)
    paths = names.positions(table.column_names, names.PATH_COLUMNS)
    hint = " Paths of files are read from a CSV file: write the table as one." if paths else ""
    raise DataError(f"{where} has no column of images, only {', '.join(table.column_names)}.{hint}")


def _label_column(table: datasets.Dataset, where: object) -> str:
    for name, feature in table.features.items():
        if type(getattr(feature, "feature", feature)).__name__ == "ClassLabel":
            return str(name)
    for index in names.positions(table.column_names, names.LABEL_COLUMNS):
        return str(table.column_names[index])
    raise DataError(
        f"{where} has no column of labels, only {', '.join(table.column_names)}; name it label."
    )


def _undecoded(table: datasets.Dataset, column: str) -> datasets.Dataset:
    feature = table.features[column]
    if type(feature).__name__ == "Image":
        return table.cast_column(column, type(feature)(decode=False))
    return table


def _class_names(feature: Any) -> list[str]:
    return list(getattr(getattr(feature, "feature", feature), "names", None) or [])


def _labels(value: Any, class_names: list[str]) -> tuple[str, ...]:
    """Class names of a cell; DataError where it is empty or a number without a name."""
    cells = value if isinstance(value, list) else [value]
    if any(cell is None or cell == "" for cell in cells):
        raise DataError("The row has no label.")
    known = len(class_names)
    if known and any(isinstance(cell, int) and not 0 <= cell < known for cell in cells):
        raise DataError(f"The row has the class number {max(cells)}, of {known} classes.")
    own = [class_names[cell] if known and isinstance(cell, int) else str(cell) for cell in cells]
    return tuple(sorted({unicodedata.normalize("NFC", name) for name in own}))
