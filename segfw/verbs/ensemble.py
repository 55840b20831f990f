"""Masks from the mean of probabilities that several models stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from segfw.base.parallel import FAILURES_FILE, CasesFailed, Outcome
from segfw.base.progress import progress
from segfw.base.records import UserError
from segfw.base.words import count
from segfw.dataset.labels import LABELS_FILE
from segfw.images.formats import check_mask_ending, write_labels, write_map
from segfw.inference.averaged_folder import EnsembleSettings, checked_weights, claim_folder, is_up_to_date, map_file
from segfw.inference.averaging import check_same_kind, class_index, merged, probability_of
from segfw.inference.probabilities import probability_files, read_probabilities
from segfw.model.postprocess import Postprocessing, apply, require_steps
from segfw.model.selection import load_postprocessing


def ensemble(
    folders: Sequence[Path],
    output: Path,
    *,
    weights: Sequence[float] | None = None,
    postprocessing: Path | Postprocessing | None = None,
    maps_of: Sequence[str] = (),
    ending: str = ".nii.gz",
    overwrite: bool = False,
) -> None:
    """Writes ``output/CASE.nii.gz`` for every case of which all ``folders`` hold probabilities.

    ``weights`` are relative, one per folder. ``postprocessing`` is a selection.json, the postprocessing.json of an
    imported model, or the steps themselves. ``maps_of`` names labels whose mean probability is written as well, as
    ``output/probability/CASE_LABEL.nii.gz``. Masks already there from the same models are kept, unless a file of
    probabilities is newer. No image is at hand: its header's place is not copied, as ``predict`` does, but made of the
    affine that segfw went by, and a plane becomes a volume of one slice.

    Raises UserError if the folders hold no case in common, or differ in labels, or if there is no label of ``maps_of``
    or ``postprocessing``; CasesFailed, at the end, names the cases that lack a folder or could not be averaged.
    """
    # Which cases there are, and which lack a folder.
    check_mask_ending(ending)
    output = Path(output)
    folders = [Path(folder) for folder in folders]
    relative_weights = checked_weights(weights, len(folders))
    steps = _steps(postprocessing)
    files = [probability_files(folder) for folder in folders]
    common = sorted(set.intersection(*(set(found) for found in files)))
    if not common:
        raise UserError(f"{', '.join(map(str, folders))}: have no case in common; give folders of the same images")
    failures = _lacking(folders, files, common)

    # Whether the models, labels and postprocessing fit each other.
    first = [read_probabilities(found[common[0]]) for found in files]
    labels = first[0].info.labels
    settings = EnsembleSettings(
        models=tuple(opened.info.model for opened in first),
        weights=relative_weights,
        postprocessing=steps,
    )
    check_same_kind(first)
    for name in maps_of:
        class_index(name, first[0])
    require_steps(settings.postprocessing, labels, first[0].path)

    # One case after the other.
    masks = {case: output / f"{case}{ending}" for case in common}
    claim_folder(output, settings, list(masks.values()), overwrite=overwrite)
    labels.save(output / LABELS_FILE)
    print(f"averaging {count(len(common), 'case')} of {', '.join(opened.info.configuration for opened in first)}")
    for case, mask in progress("averaging", masks.items()):
        maps = {name: map_file(output, case, name) for name in maps_of}
        sources = [found[case] for found in files]
        if is_up_to_date([mask, *maps.values()], sources):
            continue
        mask.unlink(missing_ok=True)  # lest one of old probabilities stay where the new ones fail
        try:
            _average(sources, settings, mask, maps, common[0])
        except Exception as error:  # one bad case must not cost the user the others
            failures.append(Outcome(item=case, error=error))
    if failures:
        raise CasesFailed("in averaging", failures, output)
    (output / FAILURES_FILE).unlink(missing_ok=True)


def _lacking(folders: Sequence[Path], files: Sequence[Mapping[str, Path]], common: Sequence[str]) -> list[Outcome]:
    """A failure for every case that some folder lacks."""
    failures = []
    every_case = set.union(*(set(found) for found in files))
    for case in sorted(every_case - set(common)):
        where = [str(folder) for folder, found in zip(folders, files) if case not in found]
        error = UserError(f"{case}: is missing in {', '.join(where)}; predict it there too")
        failures.append(Outcome(item=case, error=error))
    return failures


def _steps(postprocessing: Path | Postprocessing | None) -> Postprocessing:
    if postprocessing is None or isinstance(postprocessing, Postprocessing):
        return postprocessing or Postprocessing()
    return load_postprocessing(postprocessing)


def _average(
    sources: Sequence[Path], settings: EnsembleSettings, mask: Path, maps: Mapping[str, Path], first_case: str
) -> None:
    """Writes the maps of one case and, last, its mask."""
    models = [read_probabilities(path) for path in sources]
    for digest, opened in zip(settings.models, models):
        if opened.info.model != digest:
            raise UserError(f"{opened.path}: was made by other weights than {first_case} beside it; predict again")
    labels = models[0].info.labels
    geometry = models[0].info.record.original
    for name, path in maps.items():
        write_map(path, probability_of(name, models, settings.weights), geometry)
    classes = apply(merged(models, settings.weights), settings.postprocessing)
    write_labels(mask, labels.to_values(classes), geometry)
