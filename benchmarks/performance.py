"""Write docs/performance.md and its plots from benchmarks/results/, so that no figure is typed.

    .venv/bin/python benchmarks/performance.py [--check] [--name cost]

After benchmarks/cost.py (and benchmarks/training.py, whose table is taken where it was run). What
stands between the two marks is replaced, and the rest of the page is left alone.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from vitral.drawing.figure import Canvas, style, style_axes
from vitral.drawing.palette import AMBER, COBALT, MUTED

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- figures: python benchmarks/performance.py -->", "<!-- end of figures -->"
COLOURS = {"vitral": COBALT, "timm": AMBER}
ACROSS = {"resolution": "size", "tokens": "tokens", "batch": "batch", "model": "parameters"}
LABELS = {
    "resolution": "side of the picture (pixels)",
    "tokens": "tokens (by the patch)",
    "batch": "images at once",
    "model": "parameters",
}
HEADERS = {"resolution": "pixels", "tokens": "patch", "batch": "batch", "model": "model"}
KINDS = {"forward": "Forward pass", "training": "Training step"}


def at(row: dict[str, Any], sweep: str) -> str:
    """Where in its sweep a row stands."""
    return str(row["model"] if sweep == "model" else row[ACROSS[sweep]])


def header(heads: list[str]) -> list[str]:
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]


def seconds(value: float) -> str:
    return f"{1000 * value:,.0f} ms" if value < 10 else f"{value:,.1f} s"


def table(sweep: str, rows: list[dict[str, Any]]) -> list[str]:
    """Both sides at every point of a sweep."""
    heads = [HEADERS[sweep], "tokens", "GFLOP"]
    heads += ["Vitral", "timm", "ratio (quartiles)", "memory, Vitral", "memory, timm"]
    lines = header(heads)
    for row in rows:
        low, high = row["ratio_quartiles"]
        held = (f"{row['memory'][side] / 1e6:,.0f} MB" for side in ("vitral", "timm"))
        cells = [
            str(row["patch"]) if sweep == "tokens" else at(row, sweep),
            f"{row['tokens']:,}",
            f"{row['gflops']:,.1f}",
            *(seconds(row["seconds"][side]) for side in ("vitral", "timm")),
            f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})",
            *held,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def power(fit: dict[str, Any] | None) -> str:
    """An exponent with its interval."""
    if fit is None:
        return "–"
    low, high = fit["interval"]
    return f"{fit['exponent']:.2f} ({low:.2f} to {high:.2f})"


def exponents(found: dict[str, Any]) -> list[str]:
    """The exponents of every sweep, of time and of memory."""
    heads = ["", "sweep", "of", "points", "FLOPs", "time, Vitral", "time, timm"]
    lines = header([*heads, "memory, Vitral", "memory, timm"])
    columns = ("seconds vitral", "seconds timm", "memory vitral", "memory timm")
    for kind, sweeps in found.items():
        for sweep, kept in sweeps.items():
            fits = kept["fits"]
            for part in ("all", "upper"):
                if part not in fits or fits[part]["flops"] is None:
                    continue
                which = f"{fits[part]['flops']['n']}" + " largest" * (part == "upper")
                cells = [KINDS[kind], sweep, fits["of"], which]
                cells += [f"{fits[part]['flops']['exponent']:.2f}"]
                cells += [power(fits[part][column]) for column in columns]
                lines.append(f"| {' | '.join(cells)} |")
    return lines


def plot(kind: str, sweeps: dict[str, Any]) -> bytes:
    """Time above and memory below, a column for each sweep, both axes logarithmic."""
    width, left = 2.6, 0.75
    with style():
        canvas = Canvas(left + (width + 0.6) * len(sweeps), 6.9)
        canvas.heading(0.2, 0.0, f"{KINDS[kind]}: what it costs", "Vitral blue, timm amber")
        for number, (sweep, kept) in enumerate(sweeps.items()):
            for line, (what, unit) in enumerate((("seconds", 1.0), ("memory", 1e6))):
                place = left + number * (width + 0.6)
                axes = canvas.axes(place, 0.95 + 3.0 * line, width, 2.25)
                x = [row[ACROSS[sweep]] for row in kept["rows"]]
                for side, colour in COLOURS.items():
                    y = [row[what][side] / unit for row in kept["rows"]]
                    axes.plot(x, y, "o-", color=colour, markersize=3.5, linewidth=1.5)
                axes.set(xscale="log", yscale="log")
                axes.minorticks_off()
                axes.set_xticks(x, [at(row, sweep) for row in kept["rows"]])
                style_axes(axes, LABELS[sweep], "seconds" if what == "seconds" else "MB")
                axes.grid(color=MUTED, alpha=0.15, linewidth=0.8)
        return canvas.to_bytes("svg")


def about(content: dict[str, Any]) -> str:
    """What a result was measured on."""
    settings = content["figures"]["settings"]
    place = content["gpu"] if settings["device"].startswith("cuda") else content["cpu"]
    threads = "" if settings["device"].startswith("cuda") else f", {settings['threads']} threads"
    return f"{place}{threads}, torch {content['versions']['torch']}, {content['date'][:10]}"


def cost_lines(content: dict[str, Any]) -> list[str]:
    """The section of cost.py."""
    found = content["figures"]["kinds"]
    settings = content["figures"]["settings"]
    lines = [f"Measured on {about(content)}, in {settings['precision']}.", ""]
    lines += ["### Exponents", "", *exponents(found), ""]
    for kind, sweeps in found.items():
        lines += [f"### {KINDS[kind]}", "", f"![{KINDS[kind]}](performance-{kind}.svg)", ""]
        for sweep, kept in sweeps.items():
            lines += [f"By {sweep}:", "", *table(sweep, kept["rows"]), ""]
    return lines


def training_lines(content: dict[str, Any]) -> list[str]:
    """The section of training.py: every library at its settings, Vitral's best beside its best."""
    settings = content["figures"]["settings"]
    rows = content["figures"]["rows"]
    titles = list(dict.fromkeys(title for row in rows.values() for title in row["seconds"]))
    lines = [
        f"### A training step of {settings['model']} beside others",
        "",
        f"Batch {settings['batch']}, {settings['rounds']} rounds, {about(content)}. The ratio is "
        f"Vitral's best setting over the library's: below 1 Vitral is faster.",
        "",
        *header(["", *titles, "images/s at best", "ratio (quartiles)"]),
    ]
    for library, row in rows.items():
        low, high = row["quartiles"]
        taken = row["seconds"]
        cells = [library, *(seconds(taken[title]) if title in taken else "" for title in titles)]
        cells += [f"{row['images_per_second']:.1f}"]
        cells += [f"{row['vitral_ratio']:.3f} ({low:.3f} to {high:.3f})"]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def read(name: str) -> dict[str, Any] | None:
    """A result, where it was measured."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def main() -> int:
    """Write the page and its plots, or say whether they are up to date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    parser.add_argument("--name", default="cost", help="of the file under results/")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    arguments = parser.parse_args()
    cost, training = read(arguments.name), read("training")
    lines = []
    fresh: dict[Path, bytes] = {}
    if cost is not None:
        lines += cost_lines(cost)
        for kind, sweeps in cost["figures"]["kinds"].items():
            fresh[arguments.docs / f"performance-{kind}.svg"] = plot(kind, sweeps)
    if training is not None:
        lines += training_lines(training)
    page = arguments.docs / "performance.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    whole = "\n".join([before + BEGIN, "", *lines, END + rest.split(END)[1]])
    fresh[page] = whole.encode()
    if arguments.check:  # of the plots, that they are there: another matplotlib draws other bytes
        return int(page.read_bytes() != fresh[page] or not all(path.exists() for path in fresh))
    for path, content in fresh.items():
        path.write_bytes(content)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
