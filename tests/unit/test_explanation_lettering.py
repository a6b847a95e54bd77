"""Which text this machine can write, and text that is safe to write at all."""

from vitral.explanation import lettering


def test_the_bundled_face_is_always_there():
    assert next(iter(lettering.installed())) == "DejaVu Sans"


def test_drawable(monkeypatch):
    latin = {"DejaVu Sans": lettering.installed()["DejaVu Sans"]}
    monkeypatch.setattr(lettering, "installed", lambda: latin)
    assert lettering.drawable("English springer, 日 no") is False
    assert lettering.drawable("français ñ Ω 3 %")
    assert not lettering.drawable("골프공")
    assert lettering.drawable("")


def test_clean_gives_one_short_printable_line():
    assert lettering.clean("  two\nlines\x00 ") == "two lines"
    assert lettering.clean("한글") == "한글"
    assert lettering.clean("x" * 100) == "x" * 31 + "…"
    assert lettering.clean("bad\udcff") == "bad"


def test_a_class_is_shown_by_name_or_by_its_number(monkeypatch):
    latin = {"DejaVu Sans": lettering.installed()["DejaVu Sans"]}
    monkeypatch.setattr(lettering, "installed", lambda: latin)
    names = ("cat", "골프공\n")
    assert [lettering.shown(names, i, "png") for i in (0, 1)] == ["cat", "class 1"]
    assert [lettering.shown(names, i, "svg") for i in (0, 1)] == ["cat", "골프공"]
