"""classes.csv: the groups of classes, as people write them, and what cannot be meant."""

import shutil

import pytest

from drawn import draw_folder
from vitral.data import class_tree
from vitral.data.check import check
from vitral.data.datasets import open_as_trained, open_dataset, open_for_scoring
from vitral.data.sources import Division
from vitral.errors import DataError

TEXT = "class,parent\nrobin,bird\nwren,bird\nbird,animal\ntabby,cat\ncat,animal\nanimal,\n"


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "\ufeff" + TEXT.replace("\n", "\r\n"),
        TEXT.replace(",", ";"),
        TEXT.replace(",", "\t"),
        TEXT.replace("class,parent", "Class , PARENT,note").replace("robin,bird", "robin,bird,red"),
        TEXT + "robin,bird\n\n,,\n",
        TEXT.replace("robin,bird", '"robin"," bird "'),
        "parent,class\nbird,robin\nbird,wren\nanimal,bird\ncat,tabby\nanimal,cat\n",
    ],
)
def test_tables_as_people_write_them(tmp_path, text):
    tree = class_tree.read(write(tmp_path / "any.csv", text))
    assert tree.parents == {
        "robin": "bird",
        "wren": "bird",
        "bird": "animal",
        "tabby": "cat",
        "cat": "animal",
    }


def test_names_of_any_kind(tmp_path):
    text = 'class,parent\n"a ""b"", c",<b>&x</b>\n참새,새\nre\u0301sume\u0301,x\n'
    tree = class_tree.read(write(tmp_path / "t.csv", text))
    assert tree.parents == {'a "b", c': "<b>&x</b>", "참새": "새", "r\u00e9sum\u00e9": "x"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names the columns class and parent"),
        ("robin,bird\n", "names the columns class and parent"),
        ("class,parent\nrobin,bird\nrobin,cat\n", "two parents, 'bird' in line 2 and 'cat' in"),
        ("class,parent\nrobin,bird\nrobin,\n", "two parents, 'bird' in line 2 and '' in line 3"),
        ("class,parent\n,bird\n", "line 2 names a parent 'bird' and no class"),
        ("class,parent\na,b\nb,a\n", "circle: a < b < a"),
        ("class,parent\na,a\n", "circle: a < a"),
    ],
)
def test_what_cannot_be_meant(tmp_path, text, said):
    path = write(tmp_path / "t.csv", text)
    with pytest.raises(DataError, match=said) as raised:
        class_tree.read(path)
    assert str(path) in str(raised.value)


def test_what_is_no_text_and_no_file(tmp_path):
    with pytest.raises(DataError, match="not UTF-8"):
        class_tree.read(write(tmp_path / "t.csv", TEXT.replace("wren", "grün"), "latin-1"))
    with pytest.raises(DataError, match="No such file"):
        class_tree.read(tmp_path / "none.csv")
    with pytest.raises(DataError, match="cannot be read"):
        class_tree.read(tmp_path)


def test_the_table_is_found_beside_the_images(tmp_path):
    assert class_tree.beside(str(tmp_path)) is None
    file = write(tmp_path / "classes.csv", TEXT)
    assert class_tree.beside(str(tmp_path)) == file
    assert class_tree.beside(f"file://{tmp_path}") == file
    listing = write(tmp_path / "list.csv", "path,label\n")
    assert class_tree.beside(str(listing)) == file
    assert class_tree.beside("digits") is None
    write(file, "id,name\n0,robin\n")  # the names of numbered classes, another file altogether
    assert class_tree.beside(str(tmp_path)) is None
    write(file, "path,class,parent\nx.png,robin,bird\n")
    assert class_tree.beside(str(file)) is None


def test_what_a_tree_makes_of_classes_is_said(tmp_path):
    tree = class_tree.read(write(tmp_path / "t.csv", TEXT))
    kept, decision = class_tree.of_classes(tree, ("robin", "tabby", "wren"), "t.csv")
    assert kept.groups(("robin", "tabby", "wren")) == ("animal", "bird", "cat")
    assert decision.sentence == "t.csv puts 3 classes into 3 groups: animal, bird, cat."
    kept, decision = class_tree.of_classes(tree, ("robbin", "tabby"), "t.csv")
    assert "1 in no group: robbin (it has 'robin': is that 'robbin'?)" in decision.sentence
    assert "2 that it names are not there: robin, wren" in decision.sentence
    assert "wren" not in kept.parents
    with pytest.raises(
        DataError, match=r"none of the 2 classes \(Robin, oak\).*robin, tabby, wren"
    ):
        class_tree.of_classes(tree, ("Robin", "oak"), "t.csv")


def nest(tmp_path):
    """birds/robin, birds/wren, cats/tabby and oak, with four drawn images each."""
    flat = draw_folder(tmp_path / "flat", kinds=4, each=4)
    places = ("birds/robin", "birds/wren", "cats/tabby", "oak")
    for kind, place in zip(sorted(flat.iterdir()), places, strict=True):
        (tmp_path / "nested" / place).parent.mkdir(parents=True, exist_ok=True)
        kind.rename(tmp_path / "nested" / place)
    return tmp_path / "nested"


def test_folders_in_folders_keep_their_meaning_and_it_is_said(tmp_path):
    data = open_dataset(nest(tmp_path))
    assert data.classes == ("birds", "cats", "oak")
    assert data.tree is None
    (said,) = [one.sentence for one in data.decisions if "--tree folders" in one.sentence]
    assert "birds/robin, birds/wren, cats/tabby" in said


def test_folders_in_folders_are_a_tree_where_that_is_asked(tmp_path):
    folder = nest(tmp_path)
    data = open_dataset(folder, tree="folders")
    assert data.classes == ("oak", "robin", "tabby", "wren")
    assert data.tree.parents == {"robin": "birds", "tabby": "cats", "wren": "birds"}
    assert any("puts 4 classes into 2 groups: birds, cats" in d.sentence for d in data.decisions)
    for split in (data.train, data.val):
        for i, label in enumerate(split.labels):
            assert split.key(i).split("/")[-2] == data.classes[label]
    loose = next((folder / "birds/robin").iterdir())
    loose.rename(folder / "birds" / loose.name)  # some bird, of no kind
    more = open_dataset(folder, tree="folders", val_fraction=0.4)
    assert "birds" in more.classes
    assert more.tree.members("birds", more.classes) == tuple(
        more.classes.index(name) for name in ("birds", "robin", "wren")
    )


def test_a_split_of_folders_in_folders(tmp_path):
    folder = nest(tmp_path)
    for name in ("train", "val"):
        shutil.copytree(folder, tmp_path / "split" / name)
    data = open_dataset(tmp_path / "split", tree="folders")
    assert data.tree.parents == {"robin": "birds", "tabby": "cats", "wren": "birds"}
    division = Division(source=str(tmp_path / "split"), fingerprint=data.fingerprint, nested=True)
    own = open_for_scoring(tmp_path / "split", data.classes, division=division)
    assert own.held_out_by_training
    flat = draw_folder(tmp_path / "other", kinds=1, each=2)
    (kind,) = flat.iterdir()
    kind.rename(flat / "wren")
    other = open_for_scoring(flat, data.classes, division=division)
    assert set(other.split.labels.tolist()) == {data.classes.index("wren")}


@pytest.mark.parametrize("twin", ["cats/robin", "birds/birds", "oak/wren"])
def test_two_folders_of_one_name_have_no_one_place(tmp_path, twin):
    folder = nest(tmp_path)
    shutil.copytree(folder / "oak", tmp_path / "copy")
    shutil.move(tmp_path / "copy", folder / twin)
    name = twin.split("/")[-1]
    with pytest.raises(DataError, match=f"Two folders are called '{name}', .*Rename one"):
        open_dataset(folder, tree="folders")


def test_flat_folders_have_no_groups(photos):
    with pytest.raises(DataError, match="so --tree folders has no groups"):
        open_dataset(photos, tree="folders")


def test_a_table_beside_the_images_is_read_and_may_be_left_alone(photos):
    names = sorted(folder.name for folder in photos.iterdir())
    write(photos / "classes.csv", f"class,parent\n{names[0]},round\n{names[1]},edged\n")
    data = open_dataset(photos)
    assert data.classes == tuple(names)
    assert data.tree.parents == {names[0]: "round", names[1]: "edged"}
    assert any("classes.csv puts 3 classes into 2 groups" in d.sentence for d in data.decisions)
    assert open_dataset(photos, tree="none").tree is None
    assert check(photos).decisions == data.decisions
    without = open_dataset(photos, labelled=False)
    assert without.tree is None
    assert any("is not used" in d.sentence for d in without.decisions)
    with pytest.raises(DataError, match="a tree groups classes that exclude each other"):
        open_dataset(photos, tree=str(photos / "classes.csv"), labelled=False)
    write(photos / "classes.csv", "class,parent\na,b\nb,a\n")
    with pytest.raises(DataError, match="circle"):
        open_dataset(photos)
    with pytest.raises(DataError, match="circle"):
        check(photos)
    again = open_as_trained(
        photos, Division(), None
    )  # which images are held out is no matter of it
    assert again.fingerprint == data.fingerprint


def test_a_table_that_is_named_comes_first(photos, tmp_path):
    names = sorted(folder.name for folder in photos.iterdir())
    write(photos / "classes.csv", "class,parent\na,b\nb,a\n")
    other = write(tmp_path / "tree.csv", f"class,parent\n{names[2]},top\n")
    assert open_dataset(photos, tree=str(other)).tree.parents == {names[2]: "top"}
    with pytest.raises(DataError, match="cannot be read"):
        open_dataset(photos, tree=str(tmp_path / "nothing.csv"))


def test_images_of_several_labels_have_no_tree(photos):
    rows = [f"{path.relative_to(photos)},a|b" for path in sorted(photos.rglob("*.jpg"))]
    write(photos / "list.csv", "\n".join(["path,labels", *rows]) + "\n")
    write(photos / "classes.csv", "class,parent\na,x\n")
    data = open_dataset(photos / "list.csv")
    assert data.tree is None
    assert any("several labels each" in d.sentence for d in data.decisions)
    with pytest.raises(DataError, match="Leave --tree out"):
        open_dataset(photos / "list.csv", tree=str(photos / "classes.csv"))
