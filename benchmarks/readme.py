"""Write the README's figures from benchmarks/results/, so that none is typed by hand.

python benchmarks/readme.py [--check]
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- figures: python benchmarks/readme.py -->", "<!-- end of figures -->"
PEERS = ("timm", "transformers", "torchvision", "vit_pytorch")
PASSES = {"forward": "forward", "forward_backward": "forward + backward"}


def result(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def first_runs() -> list[str]:
    found, startup = result("first_runs"), result("startup")["figures"]["seconds"]
    demos, photos = found["figures"]["demo"], found["figures"]["one_epoch"]
    seconds = found["figures"]["demo_seconds"]
    low, high = (100 * bound for bound in photos["interval"])
    return [
        f"On {found['threads']} cores of an {found['cpu']} without a GPU, "
        f"torch {found['versions']['torch']}:",
        "",
        f"- `vitral demo`: {100 * demos[0]['accuracy']:.1f} % of {demos[0]['samples']} unseen "
        f"digits in {seconds['median']:.0f} s ({seconds['min']:.0f} to {seconds['max']:.0f}), "
        f"start and report included.",
        f"- One epoch of 9,469 photographs at 128 px (imagenette), Ti/16 from scratch: "
        f"{100 * photos['accuracy']:.1f} % ({low:.1f} to {high:.1f}) of {photos['samples']:,}, "
        f"{photos['images_per_second']:.0f} images/s, {photos['seconds'] / 60:.1f} minutes in all.",
        f"- `vitral --help`: {startup['vitral --help']['median']:.2f} s.",
    ]


def learning() -> list[str]:
    found = result("learning")
    digits = found["figures"]["digits"]
    runs, seconds = digits["runs"], digits["seconds"]
    return [
        f"- `vitral train digits`, {len(runs)} seeds: {100 * digits['mean']:.2f} % on average "
        f"(standard error {100 * digits['standard_error']:.2f}; the test images choose nothing), "
        f"{seconds['median']:.0f} s each.",
    ]


def scratch() -> list[str]:
    """Both sides' epochs were told by short runs on an idle machine (scratch.py --measure-only)."""
    found = {side: result(f"scratch_{side}")["figures"] for side in ("vitral", "timm")}
    rows = {side: figures["sides"][side] for side, figures in found.items()}
    ours, theirs = (
        "{:.1f} % ({:.1f} to {:.1f})".format(
            100 * row["accuracy"], *(100 * bound for bound in row["interval"])
        )
        for row in rows.values()
    )
    return [
        f"- The default recipe on the same photographs, the {rows['vitral']['epochs']:.1f} epochs "
        f"that fit into {found['vitral']['settings']['minutes']:g} minutes: {ours} of "
        f"{rows['vitral']['samples']:,}, from scratch. timm's training recipe for a ViT, on the "
        f"same network for the {rows['timm']['epochs']:.1f} epochs that it manages: {theirs}.",
    ]


def transfer() -> list[str]:
    """Of transfer.py, one file for each number of photographs of the second half's classes."""
    found = [result(path.stem)["figures"] for path in RESULTS.glob("transfer_*.json")]
    found.sort(key=lambda row: row["settings"]["each"])
    told = "; ".join(
        f"{row['settings']['each']} photographs of each: "
        f"{100 * row['fine-tuned']['accuracy']:.1f} %, from scratch "
        f"{100 * row['from scratch']['accuracy']:.1f} %"
        for row in found
    )
    settings, probe = found[0]["settings"], found[0]["probe"]
    return [
        f"- Half of those classes teach the other half, pre-trained at {settings['low']} px and "
        f"fine-tuned at {settings['high']} px, against {settings['steps']} steps from scratch "
        f"there, as many as both together. {told}. The head alone, solved for on 1,000 "
        f"photographs: {100 * probe['accuracy']:.1f} % after {probe['seconds']:.0f} s.",
    ]


def loading() -> list[str]:
    found = result("loading")
    named = {"timm": "timm's loader", "torchvision": "torchvision's", "opencv": "OpenCV's fast way"}
    told = [
        f"{label}: "
        + ", ".join(f"{name} {row[other]['vitral_ratio']:.2f}" for other, name in named.items())
        for label, row in found["figures"]["rows"].items()
        if label != "waiting"
    ]
    return [
        "- Training views from files, images per second over those of others on one core of an "
        f"{found['cpu']}: {'; '.join(told)} (OpenCV without antialiasing). A training step waits "
        f"for data {100 * found['figures']['rows']['waiting']['share']:.1f} % of its time.",
    ]


def explained() -> list[str]:
    shapes = result("learning_shapes")["figures"]["shapes"]["runs"][0]
    row = result("pointing")["figures"]["sizes"][0]
    points = {name: 100 * scores["pointing"] for name, scores in row["methods"].items()}
    ours, *others = points  # the default comes first
    told = ", ".join(f"{name} {points[name]:.0f} %" for name in others)
    low, high = (100 * bound for bound in row["methods"][ours]["interval"])
    return [
        f"- `vitral train shapes`: {100 * shapes['accuracy']:.1f} % of {shapes['samples']:,} "
        "scenes it never saw.",
        f"- Where an explanation points, on {row['answered_rightly']} such scenes (the maximum of "
        f"the map on the object; chance {100 * row['chance']['mean']:.0f} %): {ours} "
        f"{points[ours]:.1f} % ({low:.1f} to {high:.1f}); {told}.",
    ]


def forward() -> list[str]:
    machines = " and ".join(
        f"an {found['cpu']} ({dtype})"
        for dtype in ("float32", "bfloat16")
        for found in [result(f"forward_{dtype}")]
    )
    rows = [
        "",
        "Vitral's time divided by the other library's in the same round, median [quartiles]; "
        f"below 1 is faster. Two cores of {machines}. 224 px, same architecture, GELU, dtype and "
        "threads, one process, interleaved (vit-pytorch has two norms more and no qkv bias):",
        "",
        "| model | dtype | pass | timm | transformers | torchvision | vit-pytorch |",
        "|---|---|---|---|---|---|---|",
    ]
    for dtype in ("float32", "bfloat16"):
        for row in result(f"forward_{dtype}")["figures"]["rows"]:
            ratios = [
                "{:.2f} [{:.2f}, {:.2f}]".format(row[p]["vitral_ratio"], *row[p]["quartiles"])
                for p in PEERS
            ]
            cells = [row["model"], row["dtype"], PASSES[row["pass"]], *ratios]
            rows.append(f"| {' | '.join(cells)} |")
    return rows


def labelling() -> list[str]:
    """Planted label errors among the first 50, and accuracy against labels bought."""
    rows = []
    for name in ("digits", "imagenette"):
        figures = result(f"labelling_{name}")["figures"]
        found = {key: value["errors"] for key, value in figures["rankings"].items()}
        ours = found.pop("vitral label --errors")
        peers = [value for key, value in found.items() if key.startswith("cleanlab")]
        mean = {how: 100 * sum(x[1:]) / len(x[1:]) for how, x in figures["mean"].items()}
        rows.append(
            f"- `vitral label` on {figures['data']}, with a network of "
            f"{100 * figures['trained']['accuracy']:.0f} %: {ours} of the first 50 are errors "
            f"where {100 * figures['planted']['share']:g} % of the labels were changed (cleanlab's "
            f"rankings of the same probabilities: {min(peers)} and {max(peers)}). A head on its "
            f"frozen features, {figures['labels'][1]} to {figures['labels'][-1]} labels of other "
            f"classes: {mean['vitral label --next']:.1f} % on average where `--next` chose them, "
            f"{mean['random']:.1f} % at random, {mean['margin alone']:.1f} % by the margin alone "
            f"({figures['seeds']} seeds)."
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    check = parser.parse_args().check
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    rows = [*first_runs(), *scratch(), *transfer(), *learning(), *explained(), *loading()]
    rows += labelling()
    rows += forward()
    fresh = "\n".join([before + BEGIN, "", *rows, "", END + after])
    if check:
        sys.exit(fresh != text)
    path.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    main()
