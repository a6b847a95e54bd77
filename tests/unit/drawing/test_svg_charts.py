"""Charts: round ticks, nothing outside the frame, nothing that could break the page."""

import re
from xml.etree import ElementTree

import pytest

from vitral.drawing.svg_charts import Series, line_chart, thinned, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1.0]),
        (0, 20, [0, 5, 10, 15, 20]),
        (0, 0.001, [0, 0.00025, 0.0005, 0.00075, 0.001]),
        (0.93, 0.99, [0.92, 0.94, 0.96, 0.98, 1.0]),
        (-3, 3, [-4, -2, 0, 2, 4]),
    ],
)
def test_ticks_are_round_and_enclose(low, high, expected):
    assert ticks(low, high, 4) == pytest.approx(expected)


def test_ticks_of_one_value():
    assert ticks(5, 5, 4)[0] < 5 < ticks(5, 5, 4)[-1]
    assert ticks(0, 0, 4)[0] < 0 < ticks(0, 0, 4)[-1]


def test_a_chart_is_well_formed_and_stays_in_its_frame():
    points = [(i / 10, 3 / (i + 1)) for i in range(50)]
    band = [(x, y - 0.1, y + 0.1) for x, y in points]
    line = Series(name="<loss> & co", pane="ruby", points=points, band=band)
    svg = line_chart([line], "epoch", 'a "title" <b>')
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == 'a "title" <b>'
    assert "<loss>" not in svg
    numbers = re.findall(r"[ML]([\d.-]+) ([\d.-]+)", svg)
    assert len(numbers) >= 150
    assert all(0 <= float(x) <= 400 and 0 <= float(y) <= 230 for x, y in numbers)


def test_nothing_to_draw_and_a_single_point():
    assert line_chart([], "epoch", "t") == ""
    assert line_chart([Series(name="a", pane="ruby", points=[])], "epoch", "t") == ""
    single = line_chart([Series(name="a", pane="ruby", points=[(3, 0.5)])], "epoch", "t")
    assert "<circle" in single
    ElementTree.fromstring(single)
    ElementTree.fromstring(line_chart([Series(name="a", pane="ruby", points=[(0, 0)])], "e", "t"))


def test_thinning_keeps_short_lines_and_the_last_point():
    points = [(float(i), 2.0) for i in range(10_000)]
    assert thinned(points[:400]) == points[:400]
    few = thinned(points)
    assert len(few) <= 400
    assert few[-1] == points[-1]
    assert all(y == 2.0 for _, y in few)
    assert [x for x, _ in few] == sorted(x for x, _ in few)
