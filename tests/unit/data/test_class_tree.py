"""classes.csv: the groups of classes, as people write them, and what cannot be meant."""

import pytest

from vitral.data import class_tree
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
