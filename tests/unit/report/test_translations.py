"""Every sentence of the page has its Korean, with the same placeholders and the same markup."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from vitral.errors import UsageError
from vitral.report import page, style
from vitral.report.translations import translations

ROOM = Path(page.__file__).parent
TABLE = tomllib.loads((style.TEMPLATES / "translations_ko.toml").read_text(encoding="utf-8"))
NAMES = {"F1", "ECE %(ece)s", "%(low)s to %(high)s"}  # the same in both languages


def in_templates():
    environment = page.environment(translations("en"))
    for path in sorted(style.TEMPLATES.glob("*.html")):
        text = path.read_text(encoding="utf-8")
        for _, _, message in environment.extract_translations(text):
            yield from [message] if isinstance(message, str) else filter(None, message)


def in_python():
    for path in sorted(ROOM.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or path.name == "translations.py":
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name == "say":
                assert isinstance(node.args[0], ast.Constant), f"{path.name}:{node.lineno}"
                yield node.args[0].value


MESSAGES = sorted({*in_templates(), *in_python()})


def test_all_sentences_are_found():
    assert len(set(in_templates())) > 60
    assert len(set(in_python())) > 40


def test_no_sentence_is_left_out_and_none_is_left_over():
    assert sorted(set(MESSAGES) - set(TABLE)) == []
    assert sorted(set(TABLE) - set(MESSAGES)) == []


@pytest.mark.parametrize("message", MESSAGES)
def test_placeholders_markup_and_script(message):
    korean = TABLE[message]
    for pattern in (r"%\(\w+\)s", r"\{\w+\}", r"</?\w+>", r"%%"):
        assert sorted(re.findall(pattern, korean)) == sorted(re.findall(pattern, message))
    assert re.search("[가-힣]", korean) or message in NAMES
    assert not re.search(r"%(?!%|\()", re.sub("%%", "", korean))
    if message.endswith(".") and "%(name)s" not in message:
        assert re.search(r"니다(\(.*\))?\.$", korean), korean


def test_a_sentence_with_values():
    found = translations("ko")
    assert found.lang == "ko"
    assert found.say("Accuracy") == "정확도"
    values = {"count": 3, "confidence": "80 %", "accuracy": "75 %"}
    sentence = "%(count)s images: %(confidence)s sure, %(accuracy)s right"
    assert translations("en").say(sentence, values) == "3 images: 80 % sure, 75 % right"
    assert "80 %" in found.say(sentence, values)
    assert (
        translations("en").say("validation with 95 %% interval") == "validation with 95 % interval"
    )
    assert translations("en").ngettext("one", "many", 1) == "one"


def test_another_language_is_refused():
    with pytest.raises(UsageError, match="--lang is en or ko, not 'fr'"):
        translations("fr")
