"""Which text this machine can write, and text that is safe to write at all."""

from vitral.drawing import fonts


def test_the_bundled_face_is_always_there():
    assert next(iter(fonts.installed())) == "DejaVu Sans"


def test_drawable(monkeypatch):
    latin = {"DejaVu Sans": fonts.installed()["DejaVu Sans"]}
    monkeypatch.setattr(fonts, "installed", lambda: latin)
    assert fonts.drawable("English springer, 日 no") is False
    assert fonts.drawable("français ñ Ω 3 %")
    assert not fonts.drawable("골프공")
    assert fonts.drawable("")


def test_clean_gives_one_short_printable_line():
    assert fonts.clean("  two\nlines\x00 ") == "two lines"
    assert fonts.clean("한글") == "한글"
    assert fonts.clean("x" * 100) == "x" * 31 + "…"
    assert fonts.clean("bad\udcff") == "bad"


def test_a_class_is_shown_by_name_or_by_its_number(monkeypatch):
    latin = {"DejaVu Sans": fonts.installed()["DejaVu Sans"]}
    monkeypatch.setattr(fonts, "installed", lambda: latin)
    names = ("cat", "골프공\n")
    assert [fonts.shown(names, i, "png") for i in (0, 1)] == ["cat", "class 1"]
    assert [fonts.shown(names, i, "svg") for i in (0, 1)] == ["cat", "골프공"]
