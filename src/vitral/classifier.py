"""A classifier: one artifact, ready to answer, as `vitral.load` returns it.

clf = vitral.load("runs/flowers")
clf.predict("tulip.jpg").label
clf.explain("tulip.jpg").save("tulip.png")
"""
# ruff: noqa: PLC0415 - with a compiled network an answer needs no torch, which takes a second to import

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from vitral import catalog
from vitral.answers import Answer, AnswerRequest, Computed, answers_of
from vitral.data import class_names
from vitral.data.class_names import ClassNames
from vitral.data.datasets import EvalSet, open_for_scoring
from vitral.data.near_duplicates import Tick
from vitral.data.sources import Problem, Split
from vitral.engines import ties
from vitral.engines.base import Engine
from vitral.errors import DataError, ModelError, UsageError
from vitral.evaluation import Evaluation, evaluate
from vitral.evaluation.answer_sets import (
    SetCalibration,
    SetMethod,
    SetRule,
    check_level,
    check_method,
)
from vitral.evaluation.foreign import ForeignDetector
from vitral.evaluation.score import ForeignShare
from vitral.images import preprocess
from vitral.images.limits import check_bytes
from vitral.specs.task import Task
from vitral.weights.card import Card
from vitral.weights.stored_network import StoredNetwork

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vitral.engines.base import Images
    from vitral.evaluation.neighbours import NeighbourIndex
    from vitral.explanation import ExplainRequest, Explanation
    from vitral.model import ViT

Picture = str | os.PathLike[str] | bytes | np.ndarray | Image.Image


@dataclass(frozen=True, slots=True)
class Classifier:
    """A model with its preprocessing and class names.

    Attributes:
        network: the network, or where it is; `model` is the network itself.
        engine: computes its logits; several threads may ask it at a time.
        card: the artifact's model.json.
        foreign: what tells images of none of the classes, where it was fitted.
        sets: what answer sets are made by, where it was fitted.
        merge: how many tokens each block of the engine's network merges; () for none.
    """

    network: ViT | StoredNetwork
    engine: Engine
    card: Card
    foreign: ForeignDetector | None = None
    sets: SetCalibration | None = None
    merge: tuple[int, ...] = ()

    @property
    def model(self) -> ViT:
        """The plain nn.Module, in evaluation mode, which explanations look into."""
        return self.network.module() if isinstance(self.network, StoredNetwork) else self.network

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self.card.classes

    @property
    def task(self) -> Task:
        """The meaning of the logits, and the probabilities that follow from them."""
        return self.card.task

    def logits(self, images: Tensor) -> Tensor:
        """Compute the logits of ready images, normalised (B, C, H, W): float32 (B, classes)."""
        import torch

        return torch.from_numpy(self.engine.logits(images))

    def outputs(self, images: Images) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
        """Compute logits, and how foreign images are, in one pass: (B, classes) and (B,).

        The second is None of a model that nothing of the kind was fitted for.
        """
        computed = self._computed(images, features=False)
        return computed.logits, computed.distances

    def _computed(self, images: Images, *, features: bool) -> Computed:
        if self.foreign is None and not features:
            return Computed(logits=self._decided_logits(images))
        logits, detector_features = self.engine.logits_and_detector_features(images)
        return Computed(
            logits=self._decided(images, logits),
            distances=None if self.foreign is None else self.foreign.distances(detector_features),
            features=detector_features[:, : self.card.model.read_width] if features else None,
        )

    def _decided_logits(self, images: Images) -> NDArray[np.float32]:
        """Logits whose largest is that of float32, whatever the engine computes in."""
        return self._decided(images, self.engine.logits(images))

    def _decided(self, images: Images, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.task.multi_label:  # each label has a probability of its own, near a half or not
            return logits
        return ties.decided(self.engine, images, logits)

    def predict(
        self,
        image: Picture,
        *,
        top: int = 5,
        sets: float | None = None,
        sets_by: SetMethod = "adaptive",
        similar: int = 0,
        similar_to: str | os.PathLike[str] | NeighbourIndex | None = None,
    ) -> Answer:
        """Answer for one picture: a path, encoded bytes, a PIL image, or uint8 (H, W, 3).

        Args:
            image: the picture.
            top: classes to name.
            sets: share of pictures whose `Answer.set` is to hold their class, such as 0.95.
            sets_by: the method of those sets, "adaptive" or "least-ambiguous".
            similar: how many training images to name, those most alike.
            similar_to: other images to name instead, or what `neighbours` gave.

        Raises DataError when it cannot be read; `predict_files` takes many and goes on instead.
        Raises what `set_rule` and `neighbours` do.
        """
        request = self.request(
            top=top, sets=sets, sets_by=sets_by, similar=similar, similar_to=similar_to
        )
        computed = self._computed(self.read(image)[None], features=similar > 0)
        self.refuse_without_head()
        return answers_of(self.card, computed, [_name(image)], request)[0]

    def request(
        self,
        *,
        top: int = 5,
        sets: float | None = None,
        sets_by: SetMethod = "adaptive",
        similar: int = 0,
        similar_to: str | os.PathLike[str] | NeighbourIndex | None = None,
    ) -> AnswerRequest:
        """Prepare what answers are to tell, for `predict_files`; as of `predict`."""
        rule = None if sets is None else self.set_rule(sets, sets_by)
        request = AnswerRequest(top=top, rule=rule, similar=similar)
        if not similar:
            return request
        from vitral.evaluation.neighbours import NeighbourIndex

        index = similar_to
        if not isinstance(index, NeighbourIndex):
            index = self.neighbours(index)
        return replace(request, index=index)

    def set_rule(self, level: float, method: SetMethod = "adaptive") -> SetRule:
        """The rule by which answer sets of a level are made; `rule.guarantee()` is its sentence.

        Raises UsageError for a level outside of (0, 1), an unknown method and a multi-label model,
        ModelError where nothing was set aside to make them by.
        """
        check_level(level)
        check_method(method)
        if self.task.multi_label:
            raise UsageError(
                "Answer sets hold classes of which one is right, and this model gives any number "
                "of labels: each with its own probability, those of 0.5 and more as its answer."
            )
        if self.sets is None:
            raise ModelError(
                "This model has no images that answer sets could be made by. Fit it to labelled "
                "images that it has not learnt from: vitral fit RUN DATA."
            )
        return self.sets.rule(level, method)

    def neighbours(
        self,
        source: str | os.PathLike[str] | None = None,
        *,
        tick: Tick | None = None,
        announce: Callable[[str], None] = print,
    ) -> NeighbourIndex:
        """Compute, or find in the cache, what the network sees of its training images.

        `source` names other images instead. Raises DataError where they are not there, ModelError
        where the artifact does not say which images it learnt from.
        """
        from vitral.evaluation.neighbours import neighbours_of, neighbours_of_training

        if self.merge:
            raise UsageError("Similar images are found without merging: leave --merge out.")

        if source is None:
            return neighbours_of_training(
                self.engine, self.model, self.card, tick=tick, announce=announce
            )
        return neighbours_of(
            self.engine, self.model, self.card, os.fspath(source), tick=tick, announce=announce
        )

    def prepare(self, image: Picture) -> Tensor:
        """Read a picture as the network wants it: normalised, float32 (channels, height, width).

        Raises DataError when it cannot be read.
        """
        import torch

        return torch.from_numpy(self.read(image))

    def read(self, image: Picture) -> NDArray[np.float32]:
        """Read a picture as `prepare` does, without torch."""
        if isinstance(image, str | os.PathLike):
            path = Path(image)
            try:
                status = path.stat()
                if not stat.S_ISREG(status.st_mode):  # a pipe may never end
                    raise DataError(f"{path} is not a file.")
                check_bytes(status.st_size)
                image = path.read_bytes()
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise DataError(f"{path} cannot be read: {reason}.") from None
        return preprocess.array(image, self.card.images)

    def answers(
        self,
        logits: ArrayLike,
        names: Sequence[str],
        distances: NDArray[np.float64] | None = None,
        *,
        top: int = 5,
    ) -> list[Answer]:
        """Turn what `outputs` gave of B images of these names into answers.

        Without `distances` (B,) nothing is said of foreign images.
        """
        self.refuse_without_head()
        computed = Computed(logits=np.asarray(logits, np.float32), distances=distances)
        return answers_of(self.card, computed, names, AnswerRequest(top=top))

    def refuse_without_head(self) -> None:
        """Raise ModelError for a network that was trained without classes."""
        if not self.classes:
            raise ModelError(
                "This model has no head: it names no class. Fine-tune it (vitral train --from), or "
                "score its features: vitral evaluate --probe linear."
            )

    def predict_files(
        self,
        paths: Iterable[Path],
        *,
        top: int = 5,
        request: AnswerRequest | None = None,
        batch: int = 32,
    ) -> Iterator[Answer | tuple[Path, DataError]]:
        """One result per file, in order: its answer, or the reason why it could not be read.

        `request` says more of the answers than `top` does; see `Classifier.request`.
        """
        self.refuse_without_head()
        request = request or AnswerRequest(top=top)
        waiting = iter(paths)
        while some := list(itertools.islice(waiting, batch)):
            arrays, results = self._read_files(some)
            if arrays:
                images = np.stack([*arrays.values()])
                computed = self._computed(images, features=request.similar > 0)
                answers = answers_of(self.card, computed, [*map(str, arrays)], request)
                results |= dict(zip(arrays, answers, strict=True))
            yield from (results[path] for path in some)

    def named(self, names: ClassNames) -> Classifier:
        """Gives the classes the names of a file, `data.class_names.read`, logit by logit.

        Names that the model has already change nothing. Raises DataError where they are not as
        many as the classes.
        """
        self.refuse_without_head()
        if set(self.classes) <= set(names.names):
            return self
        classes = class_names.for_logits(names, len(self.classes))
        tree = self.card.tree
        if tree is not None:
            tree = tree.renamed(dict(zip(self.classes, classes, strict=True)))
        return replace(self, card=replace(self.card, classes=classes, tree=tree))

    def eval_set(
        self,
        data: str | Path,
        *,
        allow_unknown: bool = False,
        class_file: str = "",
        label_file: str = "",
    ) -> EvalSet:
        """Opens the images of `data` to be scored on; see data.datasets.open_for_scoring.

        Raises DataError for a class that the model does not know, unless those are allowed, and
        ModelError for a model without a head.
        """
        self.refuse_without_head()
        return open_for_scoring(
            data,
            self.classes,
            division=self.card.division,
            size=max(self.card.images.size),
            allow_unknown=allow_unknown,
            class_file=class_file,
            label_file=label_file,
        )

    def evaluate(
        self,
        data: str | Path | Split | EvalSet,
        *,
        allow_unknown: bool = False,
        sets: float | None = None,
        sets_by: SetMethod = "adaptive",
        batch: int = 64,
        workers: int = 0,
    ) -> Evaluation:
        """Scores a folder, a built-in source, or what `eval_set` gave.

        A multi-label model scores images that have one each as well. Images of classes that the
        model does not know are left out where `allow_unknown` says so. `sets` and `sets_by` count
        what answer sets hold, see `set_rule`. Raises DataError for unknown classes
        otherwise, for multi-label images where the model names one, and where none can be read.
        """
        if isinstance(data, str | Path):
            data = self.eval_set(data, allow_unknown=allow_unknown)
        rule = None if sets is None else self.set_rule(sets, sets_by)
        return self.scored(data, rule=rule, batch=batch, workers=workers)[0]

    def scored(
        self,
        data: str | Path | Split | EvalSet,
        *,
        rule: SetRule | None = None,
        batch: int = 64,
        workers: int = 0,
        tick: Tick | None = None,
    ) -> tuple[Evaluation, tuple[Problem, ...]]:
        """Evaluate, and name the images that are not in it as they could not be read.

        `rule` is of answer sets to be counted; `tick` is called with (images seen, images in all).
        """
        if isinstance(data, str | Path):
            data = self.eval_set(data)
        eval_set = EvalSet(split=data) if isinstance(data, Split) else data
        split = eval_set.split
        if split.labels.ndim > 1 and not self.task.multi_label:
            raise DataError(
                "These images have several labels each, and this model names one. Evaluate it on "
                "images with one label, or train one with theirs."
            )
        from vitral.data.loader import eval_batches, with_progress
        from vitral.evaluation.outputs import compute_outputs

        batches = eval_batches(split, self.card.images, batch=batch, workers=workers)
        batches = with_progress(batches, tick, len(split))
        # a last column is how far each image lies, where that is known
        compute = self._decided_logits if self.foreign is None else self._logits_and_distances
        outputs = compute_outputs(compute, batches, self.card.images, self.engine.device)
        if not len(outputs.indices):
            first = outputs.failed[0]
            raise DataError(
                f"None of the {len(split)} images can be read, for example {first.path}: "
                f"{first.reason}"
            )
        evaluation = evaluate(
            self.task.kind,
            outputs.values[:, : len(self.classes)],
            outputs.labels,
            self.classes,
            [split.key(int(i)) for i in outputs.indices],
            calibration=self.card.calibration,
            # what was fitted later to other images is not of these
            cross_fit=eval_set.held_out_by_training and (not self.sets or self.sets.of_training),
            tree=self.card.tree,
            rule=rule,
        )
        if self.foreign is not None:
            count = int((outputs.values[:, -1] > 1).sum())
            share = ForeignShare.of(count, len(outputs.values))
            evaluation = replace(evaluation, foreign=share)
        return evaluation, outputs.failed

    def _logits_and_distances(self, images: Tensor) -> NDArray[np.float32]:
        """(B, classes + 1): logits, and how far each image lies from what was learnt."""
        logits, detector_features = self.engine.logits_and_detector_features(images)
        logits = self._decided(images, logits)
        assert self.foreign is not None
        distances = self.foreign.distances(detector_features)
        return np.concatenate([logits, distances[:, None].astype(np.float32)], axis=1)

    def explain(self, image: Picture, request: ExplainRequest | None = None) -> Explanation:
        """Explain one picture: the patches that the answer needs, and whether that is true.

        Raises DataError when it cannot be read, and what explanation.explain raises;
        `explain_files` takes many and goes on instead.
        """
        try:
            array = self.read(image)
        except DataError as error:
            raise DataError(f"{_name(image) or 'The picture'}: {error}") from None
        return self._explained([array], [_name(image)], request)[0]

    def explain_files(
        self, paths: Iterable[Path], request: ExplainRequest | None = None, *, batch: int = 32
    ) -> Iterator[Explanation | tuple[Path, DataError]]:
        """One result per file, in order, `batch` at a time, without what is inside the network."""
        if batch < 1:
            raise UsageError(f"batch is at least 1, not {batch}.")
        from vitral.explanation import ExplainRequest

        few = replace(request or ExplainRequest(), details=False)
        waiting = iter(paths)
        while some := list(itertools.islice(waiting, batch)):
            arrays, results = self._read_files(some)
            if arrays:
                explained = self._explained([*arrays.values()], [*map(str, arrays)], few)
                results |= dict(zip(arrays, explained, strict=True))
            yield from (results[path] for path in some)

    def _explained(
        self,
        arrays: Sequence[NDArray[np.float32]],
        names: Sequence[str],
        request: ExplainRequest | None,
    ) -> list[Explanation]:
        """Explain the answers of `predict`, which the engine gives in its own precision."""
        import torch

        from vitral import explanation

        request = replace(request or explanation.ExplainRequest(), task=self.task)
        images = torch.from_numpy(np.stack(arrays))
        logits = None
        answers: list[Mapping[str, Any]] = [{}] * len(names)
        if self.classes:
            logits, distances = self.outputs(images)
            answers = [answer.to_dict() for answer in self.answers(logits, names, distances)]
        device = next(self.model.parameters()).device
        results = explanation.explain(
            self.model,
            images.to(device),
            self.card.images,
            self.classes,
            request,
            logits=None if logits is None else torch.from_numpy(logits),
            engine=self.engine,
        )
        return [
            replace(each, path=name, answer=answer)
            for each, name, answer in zip(results, names, answers, strict=True)
        ]

    def _read_files(
        self, paths: Iterable[Path]
    ) -> tuple[dict[Path, NDArray[np.float32]], dict[Path, Any]]:
        """The files as the model sees them, and (path, reason) of those that cannot be read."""
        arrays: dict[Path, NDArray[np.float32]] = {}
        problems: dict[Path, Any] = {}
        for path in paths:
            try:
                arrays[path] = self.read(path)
            except DataError as error:
                # the error itself would hold on to a picture that may be half a gigabyte
                problems[path] = (path, DataError(str(error)))
        return arrays, problems


def create(
    name: str, *, classes: int = 1000, size: int | tuple[int, int] | None = None, seed: int = 0
) -> nn.Module:
    """A freshly initialised model of the catalogue, e.g. create("R50+B/16", classes=10).

    Raises ModelError for an unknown name (with a suggestion), SpecError for a size that does not
    fit its patches.
    """
    spec = (
        catalog.model(name, classes=classes)
        if size is None
        else catalog.model(name, classes=classes, size=size)
    )
    import torch

    from vitral.model import build

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(spec)


def _name(image: Picture) -> str:
    return str(image) if isinstance(image, str | os.PathLike) else ""
