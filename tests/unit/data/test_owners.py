"""Tables that say whose picture each is: those of one patient are no test of one another."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitral.data.check import check
from vitral.data.datasets import divided_by_training, open_dataset
from vitral.data.sources import Division
from vitral.errors import SpecError
from vitral.recipes import scratch_small
from vitral.training.recipe import Recipe, override


def table(folder: Path, header: str, *cells: str, count: int = 48) -> Path:
    """Two classes; {i} in a cell is the row, {p} the patient, who has four pictures."""
    dice = np.random.default_rng(0)
    lines = [header]
    for i in range(count):
        Image.fromarray(dice.integers(0, 255, (8, 8, 3), np.uint8)).save(folder / f"{i}.png")
        lines.append(",".join(cell.format(i=i, p=i // 4, c="ab"[i // 4 % 2]) for cell in cells))
    path = folder / "list.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def sides(path: Path) -> tuple[set[int], set[int]]:
    """The patients to learn from, and those that are held out."""
    data = open_dataset(path, allow_unreadable=True)
    train, val = (
        {int(split.key(i).rpartition("/")[2].removesuffix(".png")) // 4 for i in range(len(split))}
        for split in (data.train, data.val)
    )
    return train, val


def said(path: Path) -> str:
    return " ".join(one.sentence for one in open_dataset(path, allow_unreadable=True).decisions)


@pytest.mark.parametrize("column", ["patient_id", "Patient ID", "lesion_id", "subject"])
def test_pictures_of_one_patient_stay_on_one_side(tmp_path: Path, column: str) -> None:
    path = table(tmp_path, f"path,label,{column}", "{i}.png", "{c}", "p{p}")
    train, val = sides(path)
    assert val and train and not train & val
    assert f"Pictures of the same '{column}' stay on one side" in said(path)
    assert "(12 of them). Otherwise: --set data.groups=none." in " ".join(
        one.sentence for one in check(path).decisions
    )


def test_without_such_a_column_and_with_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label,note", "{i}.png", "{c}", "p{p}")
    train, val = sides(path)
    assert train & val, "or the test below tells nothing"
    assert "stay on one side, unless" not in said(path)
    path = table(tmp_path, "path,label,patient", "{i}.png", "{c}", "p{p}")
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:60])
    train, val = sides(path)
    assert val and not train & val


def test_unknown_patients_are_nobody(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label,patient", "{i}.png", "{c}", "")
    assert "same 'patient'" not in said(path)


def test_a_split_that_divides_patients_is_said(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label,patient_id", "{i}.png", "{c}", "p{p}")
    lines = path.read_text().splitlines()
    for every, there in ((3, True), (4, False)):
        parts = [
            "val" if i // (4 if every == 4 else 1) % every == 0 else "train" for i in range(48)
        ]
        rows = [f"{line},{part}" for line, part in zip(lines[1:], parts, strict=True)]
        path.write_text("\n".join([f"{lines[0]},split", *rows]) + "\n")
        assert (
            "same 'patient_id' on both sides (12 of them, such as patient_id=p0)" in said(path)
        ) == there


def test_the_only_other_column_is_the_label(tmp_path: Path) -> None:
    path = table(tmp_path, "path,subject", "{i}.png", "{c}")
    assert open_dataset(path).classes == ("a", "b")


def test_runs_of_before_are_divided_as_they_were(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label,patient_id", "{i}.png", "{c}", "p{p}")
    old, new = open_dataset(path, groups="none"), open_dataset(path)
    assert old.fingerprint != new.fingerprint
    assert "Column 'patient_id' is not heeded (data.groups=none)." in [
        one.sentence for one in old.decisions
    ]
    division = Division(source=str(path), fingerprint=old.fingerprint)
    again = divided_by_training(path, division, None)
    assert again is not None and np.array_equal(again.val.rows, old.val.rows)
    division = replace(division, fingerprint=new.fingerprint, groups="auto")
    assert divided_by_training(path, division, None) is not None
    values = scratch_small.recipe.to_dict()
    assert Recipe.from_dict(values).data.groups == "auto"
    del values["data"]["groups"]
    assert Recipe.from_dict(values).data.groups == "none"
    with pytest.raises(SpecError, match="groups"):
        override(scratch_small.recipe, ["data.groups=doctor"])
