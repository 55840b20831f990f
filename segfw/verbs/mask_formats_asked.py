"""What ``predict`` and ``ensemble`` have in common about the formats of masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.file_names import QUALITY_TABLE_FILE
from segfw.base.speech import say_next

if TYPE_CHECKING:
    from segfw.dataset.finished_mask import MaskFormat
    from segfw.inference.prediction_options import EnsembleOptions, FormatOptions

FOLDER_OF = {"seg.nrrd": "seg-nrrd", "dicom-seg": "dicom-seg", "rtstruct": "rtstruct", "bids": "bids"}
OF_SERIES = ("dicom-seg", "rtstruct")


def formats_of(options: FormatOptions) -> tuple[MaskFormat, ...]:
    """The formats that options ask for; UserError for those that there are not."""
    from segfw.interop.mask_formats import FormatWishes, mask_formats

    wishes = FormatWishes(is_labelmap=options.seg_type == "labelmap", report=options.sr, holes=options.holes)
    return mask_formats(options.formats, wishes)


def series_of_cases(options: EnsembleOptions, masks: Path) -> dict[str, Path]:
    """The DICOM series that masks are of, by case: in ``images``, or where a folder of masks says its images were.

    By what that folder keeps of each image, so that cases may have pseudonyms, and images several channels, of which
    the first is referred to; images that have changed since are found by the names of cases.

    Nothing where no format asked for refers to a series, or none is found: who needs one says so of its case.
    """
    from segfw.base.records import UserError
    from segfw.dataset.cases import Channel
    from segfw.dataset.image_files import every_series
    from segfw.dataset.new_images import find_images
    from segfw.evaluation.mask_facts import read_mask_facts
    from segfw.inference.output_folder import images_of_masks
    from segfw.interop.reference_series import is_series

    if not set(options.formats) & set(OF_SERIES):
        return {}
    source = options.images
    if source is None:
        source = (masks / (read_mask_facts(masks).images or "no images")).resolve()
    by_record = images_of_masks(masks, every_series(source))
    try:
        cases = find_images(source, (Channel(name="image"),))
    except UserError:
        if options.images is not None and not by_record:
            raise
        cases = []
    return {case.id: case.images[0] for case in cases if is_series(case.images[0])} | by_record


def say_where_masks_are(output: Path, formats: Sequence[str]) -> None:
    """Where each format lies, and what comes next: a queue of judged masks, or experts' masks to compare with."""
    apart = [name for name in FOLDER_OF if name in formats]
    places = [] if set(formats) == set(apart) else [output]
    places += [output / FOLDER_OF[name] for name in apart]
    print(f"masks are in {', '.join(map(str, places))}; they are drafts, which nobody has reviewed")
    if (output / QUALITY_TABLE_FILE).is_file():
        say_next("queue", output)
        return
    say_next("evaluate", places[0], "EXPERT_MASKS", "--output", "scores.json", "--report", "report.html")
