"""Groups of classes through a training: said, fitted, kept in the artifact, answered and scored."""

import json
import shutil

import vitral as package
from drawn import draw_folder


def test_groups_are_trained_answered_scored_and_fitted_anew(vitral, trained, tmp_path):
    photos = shutil.copytree(trained / "photos", tmp_path / "photos")
    names = sorted(folder.name for folder in photos.iterdir())
    (photos / "classes.csv").write_text(f"class,parent\n{names[0]},both <b>\n{names[1]},both <b>\n")
    words = ("--model", "mu/8", "--size", "32", "--epochs", "1", "--set", "data.workers=0")
    code, _, err = vitral("train", photos, *words, "--out", tmp_path / "tree")
    assert code == 0
    assert "classes.csv puts 3 classes into 1 groups: both <b>" in " ".join(err.split())
    clf = package.load(tmp_path / "tree")
    assert clf.card.tree.parents == {names[0]: "both <b>", names[1]: "both <b>"}
    assert 0 <= clf.card.tree.threshold <= 1
    values = json.loads((tmp_path / "tree" / "evaluation.json").read_text())
    assert values["tree"]["levels"][0]["groups"] == ["both <b>", names[2]]
    page = (tmp_path / "tree" / "report.html").read_text()
    assert "both &lt;b&gt;" in page and "both <b>" not in page
    code, out, _ = vitral("evaluate", tmp_path / "tree", photos, "--json")
    assert json.loads(out)["tree"]["levels"][0]["accuracy"] >= 0
    code, out, _ = vitral("predict", tmp_path / "tree", photos, "--json")
    assert code == 0
    for result in json.loads(out)["results"]:
        assert "group" not in result or (result["unsure"] and result["group"] == "both <b>")
    other = tmp_path / "other.csv"
    other.write_text(f"class,parent\n{names[2]},alone\n")
    copy = shutil.copytree(trained / "run", tmp_path / "copy")
    code, out, _ = vitral("fit", copy, trained / "photos", "--tree", other)
    assert code == 0 and "groups    " in out
    assert package.load(copy).card.tree.parents == {names[2]: "alone"}
    code, _, err = vitral("fit", copy, trained / "photos", "--tree", tmp_path / "none.csv")
    assert code == 3 and "cannot be read" in err


def test_folders_in_folders_train_and_are_scored(vitral, tmp_path):
    flat = draw_folder(tmp_path / "flat", kinds=3, each=12)
    nested = tmp_path / "nested"
    for kind, place in zip(sorted(flat.iterdir()), ("a/x", "a/y", "z"), strict=True):
        (nested / place).parent.mkdir(parents=True, exist_ok=True)
        kind.rename(nested / place)
    words = ("--model", "mu/8", "--size", "32", "--epochs", "1", "--set", "data.workers=0")
    run = tmp_path / "run"
    assert vitral("train", nested, "--tree", "folders", *words, "--out", run)[0] == 0
    clf = package.load(run)
    assert clf.classes == ("x", "y", "z")
    code, out, _ = vitral("evaluate", run, nested, "--json")
    assert code == 0
    assert json.loads(out)["split"] == "val"  # those that it was not trained on
    assert vitral("check", nested, "--tree", "folders")[0] == 0
    code, _, err = vitral("train", flat.parent / "nested" / "a", "--tree", "folders", *words)
    assert code == 3
    assert "has no groups" in err
