"""The page's style sheet: the palette as CSS variables, light and dark, before report.css.

The colours themselves stand in drawing/palette.py.
"""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from vitral.drawing import palette

TEMPLATES = Path(__file__).parent / "templates"
PANE_NAMES = ("cobalt", "ruby", "amber", "emerald", "violet")


def stylesheet() -> Markup:
    """The content of the page's one <style> element."""
    light = _variables(
        {"paper": palette.PAPER, "ink": palette.INK, "muted": palette.MUTED}
        | {"came": palette.LEADING}
        | {f"mark-{n}": c for n, c in zip(PANE_NAMES, palette.PANES, strict=True)}
    )
    dark = _variables(
        {"paper": palette.PAPER_DARK, "ink": palette.INK_DARK, "muted": palette.MUTED_DARK}
        | {"came": palette.LEADING_DARK}
        | {f"mark-{n}": c for n, c in zip(PANE_NAMES, palette.PANES_DARK, strict=True)}
    )
    glass = _variables(
        {"leading": palette.LEADING, "light": palette.PAPER, "fonts": palette.FONT_STACK}
        | dict(zip(PANE_NAMES, palette.PANES, strict=True))
    )
    rules = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    # the files are ours; nothing that a user wrote is ever put into the style sheet
    return Markup(
        f":root{{color-scheme:light dark;{glass}{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{rules}"
    )


def shade(share: float) -> tuple[str, str]:
    """(background, text) colours of an amount in [0, 1]; the text has a contrast of AA or more."""
    red, green, blue = (float(v) for v in palette.amounts()(share)[:3])
    background = f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
    texts = ("#ffffff", "#000000")
    return background, max(texts, key=lambda text: contrast(background, text))


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio of two '#rrggbb' colours, from 1 to 21."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    linear = [
        v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in palette.rgb(colour)
    ]
    return float(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])


def _variables(values: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in values.items())
