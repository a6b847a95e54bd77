"""Which text this machine can write, and text that is safe to write at all."""

from vitral.drawing import fonts


def test_the_bundled_face_is_always_there():
    assert next(iter(fonts.installed_faces())) == "DejaVu Sans"


def test_can_draw(monkeypatch):
    latin = {"DejaVu Sans": fonts.installed_faces()["DejaVu Sans"]}
    monkeypatch.setattr(fonts, "installed_faces", lambda: latin)
    assert fonts.can_draw("English springer, 日 no") is False
    assert fonts.can_draw("français ñ Ω 3 %")
    assert not fonts.can_draw("골프공")
    assert fonts.can_draw("")


def test_a_text_becomes_one_short_printable_line():
    assert fonts.one_line("  two\nlines\x00 ") == "two lines"
    assert fonts.one_line("한글") == "한글"
    assert fonts.one_line("x" * 100) == "x" * 31 + "…"
    assert fonts.one_line("bad\udcff") == "bad"


def test_a_class_is_shown_by_name_or_by_its_number(monkeypatch):
    latin = {"DejaVu Sans": fonts.installed_faces()["DejaVu Sans"]}
    monkeypatch.setattr(fonts, "installed_faces", lambda: latin)
    names = ("cat", "골프공\n")
    assert [fonts.class_label(names, i, "png") for i in (0, 1)] == ["cat", "class 1"]
    assert [fonts.class_label(names, i, "svg") for i in (0, 1)] == ["cat", "골프공"]
