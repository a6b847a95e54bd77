"""Pictures worth a look of a person: new ones to label, and labels that are perhaps wrong.

    rows = next_pictures(classifier, ["pool/"], 50)     # unsure of them, and unlike one another
    rows = label_errors(classifier, "photos/", 50)      # the likeliest first
    write(Path("relabel.csv"), rows)                    # a person fills in the column label

What is filled in is read by `--labels relabel.csv` (`data.corrections`); nothing else is written.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from vitral.classifier import Classifier
from vitral.data import corrections, label_studio
from vitral.data.datasets import list_images
from vitral.data.loader import eval_batches, with_progress
from vitral.data.near_duplicates import Tick
from vitral.data.sources import Files, Problem, Split
from vitral.errors import DataError, UsageError
from vitral.evaluation import Prediction, probes
from vitral.evaluation.foreign import Sample, unit
from vitral.evaluation.outputs import Outputs, compute_outputs
from vitral.report.label_errors import likely_label_errors
from vitral.storage import files

AMONG = 10  # times as many of the least sure pictures, from which unlike ones are chosen
FOLDS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Suggestion:
    """A picture that a person should look at.

    Attributes:
        path: as `--labels` finds it: relative to labelled data, otherwise whole.
        given: the label that it has; "" for none.
        suggested: the class that it seems to be.
        score: probability of that class.
        reason: why it is here, in words.
        place: the file; "" where it is none.
    """

    path: str
    given: str
    suggested: str
    score: float
    reason: str
    place: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Ranking:
    """Pictures in the order in which they should be looked at.

    Attributes:
        rows: those.
        looked_at: pictures that could be read.
        failed: pictures that could not.
    """

    rows: tuple[Suggestion, ...]
    looked_at: int
    failed: tuple[Problem, ...]


def next_pictures(
    classifier: Classifier,
    sources: Sequence[str | Path],
    count: int,
    *,
    done: Sequence[str] = (),
    seed: int = 0,
    tick: Tick | None = None,
) -> Ranking:
    """Chooses the pictures whose labels would teach the most: unsure, and unlike one another.

    Of ten times as many pictures of the smallest margin between the two best classes, k-means makes
    as many groups in the network's features, weighted by how unsure it is; the picture nearest to
    each middle is chosen (Zhdanov 2019, "Diverse mini-batch Active Learning"). A foreign picture
    counts as unsure by how far it lies beyond the limit. The least sure come first. Of several
    labels the margin of the class nearest to one half counts.

    Args:
        classifier: the model.
        sources: pictures and folders of pictures, labelled or not.
        count: how many to choose.
        done: paths of pictures that have their label by now.
        seed: of k-means.
        tick: called with (pictures seen, of how many).

    Raises DataError if there is no picture or none can be read.
    """
    splits = _all_of(sources, classifier)
    outputs, places = _outputs(classifier, splits, tick)
    probabilities, features = _parts(classifier, outputs)
    unsure = unsureness(probabilities, several=classifier.task.multi_label)
    distances = np.zeros(len(unsure))
    if classifier.foreign is not None:
        distances = classifier.foreign.distances(outputs.values[:, len(classifier.classes) :])
    whole = {str(Path(path).absolute()) for path in done}
    left = [str(Path(place).absolute()) not in whole for _, place in places]
    rows = np.flatnonzero(left)
    if not len(rows):
        raise DataError("Every picture has its label by now; give others.")
    worth = np.maximum(unsure, (distances - 1).clip(0, 1))
    chosen = rows[choose(worth[rows], features[rows], count, seed)]
    suggestions = [
        _suggestion(classifier, probabilities[row], *places[row], foreign=distances[row] > 1)
        for row in chosen
    ]
    return Ranking(rows=tuple(suggestions), looked_at=len(unsure), failed=tuple(outputs.failed))


def choose(worth: np.ndarray, features: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Picks rows of much worth that are unlike one another, those of the most worth first.

    Args:
        worth: (n,), from 0 to 1.
        features: (n, width), of length one.
        count: how many to pick; all where there are no more.
        seed: of k-means.
    """
    rows = np.argsort(-worth, kind="stable")[: AMONG * count]
    if len(rows) > count:
        rows = rows[_unlike(features[rows], worth[rows], count, seed)]
    return rows[np.argsort(-worth[rows], kind="stable")]


def label_errors(
    classifier: Classifier,
    source: str | Path,
    count: int,
    *,
    seed: int = 0,
    tick: Tick | None = None,
) -> Ranking:
    """Finds the labels that are likely wrong, the likeliest first, at most `count`.

    A network has learnt its training labels, wrong ones as well. So each picture is judged by a
    logistic regression on the network's features that learnt from the other four fifths of the
    pictures (5 stratified folds), and these probabilities by confident learning
    (`report.label_errors`), one rule for pictures that were trained on and others.

    Args:
        classifier: the model, whose classes may be others.
        source: labelled images, as `open_dataset` takes them, with one label each.
        count: how many to name.
        seed: of the folds.
        tick: called with (pictures seen, of how many).

    Raises DataError for data without labels, with several for a picture, and of which no class has
    two pictures.
    """
    listing = list_images([str(source)], max(classifier.card.images.size))
    if not listing.classes:
        raise DataError(f"{source} has no labels; to choose pictures to label: --next.")
    if any(split.labels.ndim > 1 for split in listing.splits):
        raise DataError(
            f"{source} has several labels for a picture; label errors are looked for among single "
            f"ones."
        )
    root = Path(source)
    outputs, places = _outputs(
        classifier, listing.splits, tick, root=root if root.is_dir() else root.parent
    )
    _, features = _parts(classifier, outputs)
    probabilities = held_out_probabilities(features, outputs.labels, len(listing.classes), seed)
    predictions = []
    for row, (path, _) in enumerate(places):
        answer = int(probabilities[row].argmax())
        predictions.append(
            Prediction(
                key=path,
                labels=(listing.classes[outputs.labels[row]],),
                predicted=(listing.classes[answer],),
                score=float(probabilities[row, answer]),
                label_probability=float(probabilities[row, outputs.labels[row]]),
            )
        )
    rows = []
    for row in likely_label_errors(predictions)[:count]:
        one = predictions[row]
        rows.append(
            Suggestion(
                path=one.key,
                given=one.label,
                suggested=one.answer,
                score=one.score,
                reason=f"looks like {one.answer} ({one.score:.2f}), not like {one.label} "
                f"({one.label_probability:.2f})",
                place=places[row][1],
            )
        )
    return Ranking(rows=tuple(rows), looked_at=len(predictions), failed=tuple(outputs.failed))


def write(path: Path, rows: Sequence[Suggestion]) -> None:
    """Writes relabel.csv, whose column `label` is for a person to fill in."""
    table = [(r.path, r.given, r.suggested, f"{r.score:.4f}", r.reason, "") for r in rows]
    files.write_csv(path, [corrections.COLUMNS, *table])


def write_tasks(
    path: Path, rows: Sequence[Suggestion], classes: Sequence[str], *, several: bool
) -> None:
    """Writes Label Studio's tasks, and its labelling configuration beside them (.xml)."""
    tasks = [label_studio.task(r.path, r.place or r.path, [r.suggested], r.score) for r in rows]
    files.write_json(path, tasks)
    files.write_text(path.with_suffix(".xml"), label_studio.configuration(classes, several=several))


def _all_of(sources: Sequence[str | Path], classifier: Classifier) -> tuple[Split, ...]:
    listing = list_images([str(source) for source in sources], max(classifier.card.images.size))
    if listing.classes and len(sources) == 1:  # class folders: their pictures by their whole paths
        root = Path(sources[0])
        return tuple(_whole(split, root) for split in listing.splits)
    return listing.splits


def _whole(split: Split, root: Path) -> Split:
    """The same pictures, called by their whole paths where they are files."""
    names = tuple(str((root / split.key(index)).absolute()) for index in range(len(split)))
    if not all(Path(name).is_file() for name in names):
        return split
    return replace(split, reader=Files("", names), rows=np.arange(len(names)))


def _outputs(
    classifier: Classifier, splits: Sequence[Split], tick: Tick | None, root: Path | None = None
) -> tuple[Outputs, list[tuple[str, str]]]:
    """Logits and detector features of every picture side by side; (path, file) of each."""
    classifier.refuse_without_head()
    parts = []
    places: list[tuple[str, str]] = []
    total = sum(map(len, splits))
    for split in splits:
        spec = classifier.card.images
        batches = with_progress(eval_batches(split, spec, batch=64, workers=0), tick, total)
        outputs = compute_outputs(_both(classifier), batches, spec, classifier.engine.device)
        parts.append(outputs)
        for index in outputs.indices.tolist():
            key = split.key(index)
            place = key if root is None else str((root / key).absolute())
            path = str(Path(key).absolute()) if root is None and Path(key).is_file() else key
            places.append((path, place if Path(place).is_file() else ""))
    failed = tuple(problem for part in parts for problem in part.failed)
    if not places:
        raise DataError(f"None of the {len(failed)} files could be read as an image.")
    values = np.concatenate([part.values for part in parts if len(part.indices)])
    labels = np.concatenate([part.labels for part in parts if len(part.indices)])
    indices = np.arange(len(values))
    return Outputs(values=values, labels=labels, indices=indices, failed=failed), places


def _both(classifier: Classifier) -> Any:
    def compute(images: Tensor) -> np.ndarray:
        engine = classifier.engine
        return np.concatenate(engine.logits_and_detector_features(images), axis=1)

    return compute


def _parts(classifier: Classifier, outputs: Outputs) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, classes), and features (n, width) of length one."""
    sample = Sample.of(outputs.values, outputs.labels, classifier.card.model)
    return classifier.task.probabilities(sample.logits), unit(sample.features)


def unsureness(probabilities: np.ndarray, *, several: bool = False) -> np.ndarray:
    """Gives one less the margin between the two best classes, from 0 (sure) to 1."""
    if several or probabilities.shape[1] == 1:
        return 1 - np.abs(2 * probabilities - 1).min(axis=1)
    best = np.partition(probabilities, -2, axis=1)[:, -2:]
    return 1 - (best[:, 1] - best[:, 0])


def _unlike(features: np.ndarray, weights: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The rows nearest to the middles of `count` groups of rows; each once."""
    with warnings.catch_warnings():  # copies make fewer groups than are asked for, which is fine
        warnings.simplefilter("ignore", ConvergenceWarning)
        middles = KMeans(count, n_init=1, random_state=seed).fit(
            features, sample_weight=np.maximum(weights, 1e-6)
        )
    distances = middles.transform(features)
    chosen: list[int] = []
    for group in range(count):
        order = np.argsort(distances[:, group], kind="stable").tolist()
        chosen.append(next(row for row in order if row not in chosen))
    return np.array(chosen)


def _suggestion(
    classifier: Classifier, probabilities: np.ndarray, path: str, place: str, *, foreign: bool
) -> Suggestion:
    order = np.argsort(-probabilities, kind="stable")[:2]
    best = [(classifier.classes[i], float(probabilities[i])) for i in order]
    shown = " or ".join(f"{name} ({score:.2f})" for name, score in best)
    if foreign:
        shown += ", and unlike all classes"
    return Suggestion(
        path=path,
        given="",
        suggested=best[0][0],
        score=best[0][1],
        reason=shown,
        place=place,
    )


def held_out_probabilities(
    features: np.ndarray, labels: np.ndarray, classes: int, seed: int
) -> np.ndarray:
    """Gives the probabilities of each picture by a head that did not learn it: (n, classes)."""
    counts = np.bincount(labels, minlength=classes)
    often = np.flatnonzero(counts[labels] >= 2)
    if not len(often):
        raise DataError("No class has two pictures; there is nothing to compare labels with.")
    folds = int(min(FOLDS, counts[counts >= 2].min()))
    if folds < 2:
        raise UsageError("Label errors need two pictures of a class at least.")
    probabilities = np.zeros((len(labels), classes))
    single = np.setdiff1d(np.arange(len(labels)), often)
    division = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for learnt, held in division.split(features[often], labels[often]):
        rows = np.concatenate([often[learnt], single])
        weight, bias = probes.logistic(features[rows], labels[rows], classes)
        logits = torch.from_numpy(features[often[held]] @ weight.T + bias)
        probabilities[often[held]] = torch.softmax(logits.double(), dim=1).numpy()
    probabilities[single, labels[single]] = 1.0  # nothing says otherwise of a class's one picture
    return probabilities
