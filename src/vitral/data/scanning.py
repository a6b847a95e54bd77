"""Look through the parts of a source, with the class names and corrections that files give it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vitral.catalog import wordnet
from vitral.data import class_names, corrections
from vitral.data.decisions import Decision
from vitral.data.sources import DataLayout, ScanResult, SourceOptions, SplitSource


def scan(
    places: Iterable[SplitSource | None], layout: DataLayout, options: SourceOptions
) -> list[ScanResult]:
    """Scans the parts that are there.

    Classes that are called by numbers get the names of a file beside them; every class gets that of
    `options.class_file`; labels are corrected by `options.label_file`. Raises DataError for a file
    that does not say which name is whose, and for corrections of what is not there.
    """
    parts = [place.scan() for place in places if place is not None]
    several = any(part.multi_label for part in parts)
    for part in parts:  # where one part has any number of labels, all have
        part.multi_label = several
    if not options.labelled:
        return parts
    parts = _named(parts, layout, options)
    if not options.label_file:
        return parts
    root = Path(layout.root)
    root = root if root.is_dir() else root.parent
    whole = len(parts) == sum(place is not None for place in (layout.train, layout.held_out))
    return corrections.apply(parts, root, options.label_file, whole=whole, classes=options.known)


def _named(parts: list[ScanResult], layout: DataLayout, options: SourceOptions) -> list[ScanResult]:
    folders = {name for part in parts for name in (*part.classes, *part.empty_classes)}
    if options.class_file:
        names = class_names.read(options.class_file)
        new = class_names.for_folders(names, folders)
    else:
        root = Path(layout.root)
        found = None
        if layout.is_path and not any(part.made_from for part in parts):
            found = class_names.beside(root if root.is_dir() else root.parent, folders)
        if found is None:
            return parts
        names, new = found
    if all(old == name for old, name in new.items()):
        return parts
    first = sorted(new)[:2]
    shown = ", ".join(f"{old} is '{new[old]}'" for old in first)
    sentence = f"Names are those of {names.path}: {shown}, ..."
    parts[0].decisions.append(Decision("classes", sentence))
    return [relabelled(part, new) for part in parts]


def matched(scanned: ScanResult, classes: Sequence[str]) -> ScanResult:
    """Gives labels that a model knows by another name, such as a WordNet id, the name it has."""
    others = wordnet.other_names(classes)
    strange = {name for name in scanned.classes if name not in classes and name in others}
    if not strange:
        return scanned
    new = {name: others[name] for name in strange}
    first = min(strange)
    how = "WordNet id" if wordnet.is_id(first) else "ImageNet's names of WordNet ids"
    sentence = f"{len(new):,} of them are matched by {how}: {first} is '{new[first]}', ..."
    matched = relabelled(scanned, new)
    return replace(matched, decisions=[*scanned.decisions, Decision("classes", sentence)])


def relabelled(part: ScanResult, new: Mapping[str, str]) -> ScanResult:
    """Gives classes other names; those without a new one keep theirs."""

    def of(labels: Sequence[str]) -> tuple[str, ...]:
        return tuple(sorted({new.get(name, name) for name in labels}))

    return replace(
        part,
        labels=[of(labels) for labels in part.labels],
        empty_classes=list(of(part.empty_classes)),
        class_names=of(part.class_names),
    )
