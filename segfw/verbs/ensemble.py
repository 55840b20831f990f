"""``segfw ensemble``: masks from the mean of probabilities that several models stored."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.inference.prediction_options import EnsembleOptions
from segfw.verbs.mask_formats_asked import formats_of, say_where_masks_are, series_of_cases

if TYPE_CHECKING:
    from segfw.base.parallel import Outcome
    from segfw.inference.averaged_folder import EnsembleSettings, MaskWriter
    from segfw.inference.probabilities import Probabilities
    from segfw.model.postprocess import Postprocessing


@takes_options(options=EnsembleOptions)
def ensemble(
    folders: Sequence[Path],
    output: Path,
    options: EnsembleOptions = EnsembleOptions(),
    *,
    postprocessing: Path | Postprocessing | None = None,
) -> None:
    """Writes ``output/CASE.nii.gz`` for every case of which all ``folders`` hold probabilities.

    Masks already there from the same models are kept, unless a file of probabilities is newer. No image is read: its
    header's place is not copied, as ``predict`` does, but made of the affine that segfw went by, and a plane becomes a
    volume of one slice. DICOM SEG and RTSTRUCT alone refer to the images, which are DICOM series.

    Parameters
    ----------
    folders
        Folders that ``predict`` wrote with ``save_probabilities``, one a model.
    output
        Folder for the masks.
    options
        ``weights`` are relative, one per folder. ``maps_of`` names labels whose mean probability (0 to 1, float32) is
        written as well, as ``output/probability/CASE_LABEL.nii.gz``. ``formats`` (``--as``) are as for ``predict``;
        ``images`` is the folder of the series that DICOM formats refer to.
    postprocessing
        A selection.json, the postprocessing.json of an imported model, or the steps themselves; goes before that of
        ``options``.

    Raises
    ------
    UserError
        If the folders hold no case in common, or differ in labels, or if there is no label of ``maps_of`` or
        ``postprocessing``.
    CasesFailed
        At the end, with the cases that lack a folder or could not be averaged.
    """
    from segfw.base.output_paths import require_outside
    from segfw.base.parallel import FAILURES_FILE, CasesFailed
    from segfw.base.words import count
    from segfw.inference.averaged_folder import EnsembleSettings, MaskWriter, checked_weights, lacking_cases
    from segfw.inference.averaging import check_same_kind, class_index
    from segfw.interop.mask_formats import format_note, require_distinct_masks
    from segfw.model.postprocess import Postprocessing, require_steps
    from segfw.model.selection import load_postprocessing

    # Which cases there are, and which lack a folder
    formats = formats_of(options)
    output = Path(output)
    folders = [Path(folder) for folder in folders]
    require_outside(output, folders)
    weights = checked_weights(options.weights, len(folders))
    steps = postprocessing or options.postprocessing or Postprocessing()
    if not isinstance(steps, Postprocessing):
        steps = load_postprocessing(steps)
    stored = _Stored.of(folders)
    failures = lacking_cases(folders, stored.files, stored.cases)

    # Whether the models, labels and postprocessing fit each other
    labels = stored.first[0].info.labels
    settings = EnsembleSettings(
        models=tuple(opened.info.model for opened in stored.first),
        weights=weights,
        postprocessing=steps,
        holes=options.holes_asked,
        seg_type=options.seg_type_asked,
    )
    check_same_kind(stored.first)
    for name in options.maps_of:
        class_index(name, stored.first[0])
    require_steps(steps, labels, stored.first[0].path)

    # One case after the other
    writer = MaskWriter(
        folder=output,
        formats=formats,
        labels=labels,
        maker=settings.maker(stored.configurations),
        series=series_of_cases(options, folders[0]),
    )
    require_distinct_masks(formats, stored.cases)
    _begin_folder(writer, stored, settings, options)
    note = format_note(options.formats, labels, ())
    if note:
        print(f"note: {note}")
    print(f"averaging {count(len(stored.cases), 'case')} of {', '.join(stored.configurations)}")
    failures += _average(writer, stored, settings, options)
    if failures:
        raise CasesFailed("in averaging", failures, output)
    (output / FAILURES_FILE).unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """The probabilities in all folders: a model a folder, of the ``cases`` that every one of them holds."""

    files: Sequence[Mapping[str, Path]]  # by case, of each folder
    cases: Sequence[str]
    first: Sequence[Probabilities]  # of the first case, which tell what models they are of

    @staticmethod
    def of(folders: Sequence[Path]) -> _Stored:
        """What the folders hold; UserError if that is no case in common."""
        from segfw.base.records import UserError
        from segfw.inference.probabilities import probability_files, read_probabilities

        files = [probability_files(folder) for folder in folders]
        common = sorted(set.intersection(*(set(found) for found in files)))
        if not common:
            raise UserError(f"{', '.join(map(str, folders))}: have no case in common; give folders of the same images")
        first = [read_probabilities(found[common[0]]) for found in files]
        return _Stored(files=files, cases=common, first=first)

    @property
    def configurations(self) -> list[str]:
        """Of each model."""
        return [opened.info.configuration for opened in self.first]

    def sources(self, case: str) -> list[Path]:
        """The files that a mask is averaged of."""
        return [found[case] for found in self.files]


def _begin_folder(writer: MaskWriter, stored: _Stored, settings: EnsembleSettings, options: EnsembleOptions) -> None:
    """Makes the folder one of these masks; UserError where it is another one's, or somebody reviews what it holds."""
    from segfw.inference.averaged_folder import claim_folder, is_up_to_date
    from segfw.reviewing.new_draft import is_under_review, note_new_drafts, require_same_model

    output = writer.folder
    masks = {case: writer.files(case) for case in stored.cases}
    if is_under_review(output):
        digest = settings.maker(()).digest
        require_same_model(output, digest, overwrite=options.overwrite)
        replaced = {
            case
            for case, made in masks.items()
            if made[-1].is_file() and (options.overwrite or not is_up_to_date(made, stored.sources(case)))
        }
        note_new_drafts(output, digest, "segfw ensemble", replaced)
    every_mask = [file for made in masks.values() for file in made]
    every_other = [file for case in stored.cases for file in _in_any_format(output, case)]
    claim_folder(output, settings, every_mask, every_other, overwrite=options.overwrite)
    writer.write_about()


def _in_any_format(output: Path, case: str) -> list[Path]:
    from segfw.interop.mask_formats import files_in_any_format

    return [output / file for file in files_in_any_format(case)]


def _average(
    writer: MaskWriter, stored: _Stored, settings: EnsembleSettings, options: EnsembleOptions
) -> list[Outcome[str, None]]:
    """Writes all masks that are not there yet; returns the cases that failed, which do not cost the others."""
    from segfw.base.parallel import Outcome
    from segfw.base.progress import progress
    from segfw.inference.averaged_folder import average_case, is_up_to_date, map_file

    failures: list[Outcome[str, None]] = []
    for case in progress("averaging", stored.cases):
        made = writer.files(case)
        maps = {name: map_file(writer.folder, case, name) for name in options.maps_of}
        sources = stored.sources(case)
        if is_up_to_date([*made, *maps.values()], sources):
            continue
        # Lest one of old probabilities stay where the new ones fail, or in a format that is not asked for now
        old = [file for file in _in_any_format(writer.folder, case) if not is_up_to_date([file], sources)]
        for file in (*reversed(made), *old):
            file.unlink(missing_ok=True)
        try:
            writer.require(case)
            average_case(case, sources, settings, writer, maps, stored.cases[0])
        except Exception as error:
            failures.append(Outcome(item=case, error=error))
    return failures


def _say_result(typed: argparse.Namespace, _: None) -> None:
    say_where_masks_are(typed.output, typed.formats)


COMMAND = Command(
    function=ensemble,
    what="Average the probabilities that several models stored for the same images, and write masks.",
    example="segfw ensemble masks_2d masks_3d --output masks",
    arguments=(
        Argument(
            name="folders", help="folders of masks with probabilities, one a model", shown="probabilities", nargs="+"
        ),
        Argument(name="output", help="folder for the masks", shown="--output"),
    ),
    say_result=_say_result,
)
