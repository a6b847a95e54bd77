import dataclasses
import io

import numpy as np
from rich.console import Console

from vitral.cli.tables import (
    check_lines,
    evaluation_lines,
    models_table,
    origin_lines,
)
from vitral.data.check import Check, Side
from vitral.data.decisions import Decision
from vitral.data.sources import Problem
from vitral.evaluation import compare, evaluate_multi_label, evaluate_single_label
from vitral.specs import Calibration


def shown(*parts: object) -> str:
    file = io.StringIO()
    console = Console(file=file, width=120)
    for part in parts:
        console.print(part, markup=False)
    return file.getvalue()


def test_models_table() -> None:
    row = {
        "name": "B/16",
        "width": 768,
        "depth": 12,
        "heads": 12,
        "parameters": 86_567_656,
        "gflops": 35.1,
        "size": [224, 224],
    }
    text = shown(models_table([row, {**row, "name": "BiT", "heads": 0}]))
    for word in ("B/16", "768", "86.57", "35.10", "224x224"):
        assert word in text
    assert "-" in next(line for line in text.splitlines() if "BiT" in line).split()


def test_few_classes_show_the_whole_matrix() -> None:
    logits = np.array([[2.0, 1.0], [2.0, 1.0], [0.0, 1.0]])
    text = shown(
        *evaluation_lines(evaluate_single_label(logits, [0, 1, 1], ["[a]", "나"], ["x", "y", "z"]))
    )
    assert "66.67 %" in text
    assert "2 of 3" in text
    assert "[a]" in text
    assert "나" in text


def test_probabilities_before_and_after_and_which_answers_are_sure() -> None:
    logits = np.array([[4.0, 0.0], [4.0, 0.0], [0.5, 0.0], [0.0, 0.25]])
    labels, names, keys = [0, 1, 0, 1], ["a", "b"], list("wxyz")
    plain = shown(*evaluation_lines(evaluate_single_label(logits, labels, names, keys)))
    assert "they are not calibrated" in plain and "sure  " not in plain
    assert "macro F1   73.33 %  (95 %: " in plain
    fitted = Calibration(temperature=2.0, threshold=0.7, target=0.9, samples=4)
    found = evaluate_single_label(logits, labels, names, keys, calibration=fitted)
    text = shown(*evaluation_lines(found))
    before, after = found.reliability.before.ece, found.reliability.after
    assert after is not None
    told = f"ECE        {100 * before:.2f} -> {100 * after.ece:.2f} points"
    assert told in text and "temperature 2\n" in text.replace(" \n", "\n")
    assert "sure       50.0 % of the images, 50.0 % of those right; " in text
    assert "at least 0.700, chosen for 90.0 %" in text and "cross" not in text
    own = evaluate_single_label(logits, labels, names, keys, calibration=fitted, cross_fit=True)
    assert shown(*evaluation_lines(own)).count(", cross-fitted") == 2
    never = Calibration(temperature=2.0, threshold=1.0, target=0.9, samples=4)
    none = evaluate_single_label(logits, labels, names, keys, calibration=never)
    assert "sure       0.0 % of the images; " in shown(*evaluation_lines(none))


def test_each_class_has_its_intervals_and_the_worst_of_many_are_shown() -> None:
    logits, names = np.array([[2.0, 1.0, 0.0]] * 3), ["[a]", "나", "never"]
    lines = shown(
        *evaluation_lines(evaluate_single_label(logits, [0, 0, 1], names, list("xyz")))
    ).splitlines()
    row = next(line for line in lines if "[a]" in line)
    assert "66.7 % (20.8 to 93.9)" in row and "100.0 % (34.2 to 100.0)" in row and "80.0 %" in row
    assert next(line for line in lines if "never" in line).count(" - ") == 3
    many = [f"c{i}_" for i in range(40)]
    answers = 2 * np.eye(40) - np.eye(40, k=1) * np.r_[[0.0] * 15, [9.0] * 25]
    answers[10:15, 0] = 5  # five mistakes, and 15 to 39 right
    found = evaluate_single_label(answers, range(40), many, list(map(str, range(40))))
    text = shown(*evaluation_lines(found))
    assert "the 20 classes of the lowest F1" in text
    table = text[: text.index("taken for")]
    assert all(f"c{i}_" in table for i in range(10, 15)) and "c39_" not in table


def test_a_comparison_says_what_it_means() -> None:
    right = np.array([[2.0, 0.0]] * 12)
    names, keys = ["a", "b"], list(map(str, range(12)))
    good, bad = (evaluate_single_label(x, [0] * 12, names, keys) for x in (right, -right))
    text = shown(*compare(good, bad).lines("runs/one", "two"))
    assert "runs/one   100.00 %  (95 %: " in text and "two        0.00 %" in text
    assert "both 0, only the first 12, only the second 0, neither 0 of 12 images" in text
    assert "by +100.00 points (95 %: " in text and "p = 0.000488 (McNemar, exact)" in text
    assert "verdict    runs/one is better" in text
    assert "two is better" in shown(*compare(bad, good).lines("runs/one", "two"))
    same = shown(*compare(good, good).lines("runs/one", "two"))
    assert "verdict    not distinguishable" in same and "p = 1 " in same


def test_what_was_left_out_is_one_line() -> None:
    found = evaluate_single_label([[2.0, 1.0]], [0], ["a", "b"], ["x"])
    assert not any("left out" in str(line) for line in evaluation_lines(found, {}))
    line = next(evaluation_lines(found, {name: 1000 + i for i, name in enumerate("dcba")}))
    assert isinstance(line, str) and "4,006 images" in line
    assert line.endswith("a (1,003), b (1,002), c (1,001) and 1 more")


def test_many_classes_show_the_most_common_confusions() -> None:
    classes = [f"class{i}" for i in range(30)]
    logits = np.eye(30)[[0, 0, 0, 1, 2]]
    evaluation = evaluate_single_label(logits, [0, 3, 3, 1, 4], classes, list("abcde"))
    text = shown(*evaluation_lines(evaluation))
    assert "top-5" in text
    assert "2  class3 taken for class0" in text
    assert text.index("class3 taken for class0") < text.index("class4 taken for class2")


def test_multi_labels_show_each_class() -> None:
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], bool)
    logits = np.array([[3, -1, -1], [2, 1, -1], [-2, 2, 1], [-1, 1.5, -1]])
    names = ["[a]", "나", "never"]
    text = shown(*evaluation_lines(evaluate_multi_label(logits, labels, names, list("wxyz"))))
    lines = text.splitlines()
    assert lines[0].startswith("mean average precision  91.67 %  (95 %: ")
    assert lines[0].endswith("over 2 of 3 classes")
    assert lines[1].startswith("exact match             50.00 %") and "2 of 4" in lines[1]
    assert "micro 80.00 %, macro 60.00 %" in lines[2]
    assert "never: no image has it" in lines[3]
    assert len([line for line in lines if "[a]" in line and line.count("100.0 %") == 4]) == 1
    assert len([line for line in lines if "나" in line and "83.3 %" in line]) == 1


def test_many_classes_of_multi_labels_show_the_worst() -> None:
    random = np.random.default_rng(0)
    labels = random.random((200, 40)) < 0.3
    logits = random.normal(0, 1, (200, 40)) + labels * np.arange(40) / 4
    found = evaluate_multi_label(
        logits, labels, [f"c{i}_" for i in range(40)], list(map(str, range(200)))
    )
    text = shown(*evaluation_lines(found))
    assert text.count("_") == 20
    assert "c0_" in text and "c39_" not in text


def test_a_check_shows_three_examples_of_each_problem() -> None:
    problems = tuple(Problem(f"a/{i}.jpg", "The file is empty.") for i in range(1234))
    check = Check(
        source="photos",
        layout="class folders",
        images=3670,
        classes={f"class{i}": 10 * (i + 1) for i in range(25)},
        train=Side(3000, {}),
        val=Side(670, {}),
        how="its own",
        sizes=((9, 12), (240, 320), (3000, 4000)),
        problems={"unreadable": problems},
        refusal="",
        full=True,
        decisions=(Decision("split", "The split is its own."), Decision("labels", "A column.")),
    )
    text = shown(*check_lines(check))
    assert "photos: 3,670 images, 25 classes" in text
    assert "class19 200 and 5 more" in text.replace("\n", " ") and "25.0 images" in text
    assert "smallest 9x12, median 240x320, largest 3000x4000" in text
    assert "3,000 to train, 670 held out" in text
    assert text.index("labels    A column.") < text.index("split     The split is its own.")
    assert "1,234  left out" in text and text.count("The file is empty.") == 3
    assert "ready to train" in text
    for full, word in ((True, "none\n"), (False, "--full decodes")):
        fine = dataclasses.replace(check, problems={}, refusal="No.", full=full)
        assert word in shown(*check_lines(fine)) and "ready" not in shown(*check_lines(fine))


def test_each_value_of_a_recipe_with_its_origin() -> None:
    recipe = {"seed": 3, "start": None, "optimizer": {"lr": 5e-4, "kind": "adamw"}, "size": [3, 4]}
    origins = {"seed": "--seed", "optimizer.lr": "scratch-small", "optimizer.kind": "default"}
    lines = list(origin_lines(recipe, origins | {"size": "--size", "start": "default"}))
    assert [line.split("  ")[0] for line in lines] == [
        "seed=3",
        "optimizer.lr=0.0005",
        "optimizer.kind=adamw",
        "size=[3, 4]",
        "start=null",
    ]
    assert [line.split("  ")[-1].strip() for line in lines] == [
        "--seed",
        "scratch-small",
        "default",
        "--size",
        "default",
    ]
