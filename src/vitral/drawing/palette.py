"""The colours of Vitral: dark leading, jewel colours on warm paper (docs: "one look").

Explanation paints pictures with them, and report writes them into its page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

PAPER = "#faf8f3"
INK = "#1b1b2f"
LEADING = "#2b2b40"
MUTED = "#5b5868"  # notes beside the ink, AA on their paper
COBALT = "#1f4e9c"
RUBY = "#b3202a"
AMBER = "#d99a1c"
EMERALD = "#1f7a4d"
VIOLET = "#6b3fa0"
PANES = (COBALT, RUBY, AMBER, EMERALD, VIOLET)  # the order of categories

# The dark page.
PAPER_DARK = "#14141f"
INK_DARK = "#ece8df"
# The same glass with light behind it: lines and marks on dark paper, at least 4.5:1 against it.
PANES_DARK = ("#7aa5ee", "#f0757c", "#e8b84f", "#55bd8a", "#b394e6")
LEADING_DARK = "#3d3d58"
MUTED_DARK = "#a9a5b8"

# From cobalt night to amber light: the one perceptually uniform map that is already in the palette,
# and readable with any colour vision.
AMOUNTS = "cividis"

KOREAN_FACES = (
    "Noto Sans KR",
    "Noto Sans CJK KR",
    "Apple SD Gothic Neo",
    "Malgun Gothic",
    "NanumGothic",
)
FONT_STACK = ", ".join(
    ["system-ui", "-apple-system", "'Segoe UI'", *(f"'{f}'" for f in KOREAN_FACES), "sans-serif"]
)


def rgb(colour: str) -> NDArray[np.float64]:
    """Read '#rrggbb' as (3,) values in [0, 1]."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255


def amounts() -> Colormap:
    """Load the colour map for amounts (attention, probability, similarity)."""
    from matplotlib import colormaps  # noqa: PLC0415  matplotlib takes 0.3 s to import

    return colormaps[AMOUNTS]
