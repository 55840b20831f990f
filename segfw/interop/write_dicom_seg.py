"""DICOM SEG: the voxels of a mask for viewers and archives (DICOM PS3.3, A.51), written by highdicom.

BINARY holds a frame of bits for each slice that a structure is in, which every viewer reads. LABELMAP (2024) holds a
number a voxel: smaller, but structures may not overlap, and few viewers know it yet. Slices are given in the order of
the mask, with the headers of their own: highdicom puts nothing in order by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segfw.base.files import whole_file
from segfw.base.own_version import own_version
from segfw.base.records import UserError
from segfw.base.words import count, listed
from segfw.dataset.finished_mask import FinishedMask
from segfw.interop.dicom_codes import AI, UNICODE, code_item, complete_header, concept, taken_as_they_are
from segfw.interop.mask_centres import CENTROID_MM, sizes_and_centres
from segfw.interop.reference_series import ReferenceSeries, read_reference
from segfw.interop.signed_elements import add_evidence, state_creator
from segfw.interop.written_structures import (
    WrittenStructure,
    dicom_text,
    in_layers,
    numbered,
    written_structures,
)

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom import Dataset

OFF = "its centre lies elsewhere"
SERIES_NUMBER = 300  # of what is made of a study's series, behind its own


def require_highdicom() -> None:
    """UserError with what to install, where highdicom is not there."""
    try:
        import highdicom  # noqa: F401
    except ImportError:
        raise UserError("dicom-seg needs highdicom; install it with: pip install 'segfw[dicom]'") from None


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """A DICOM SEG as it was written, and what it was written of."""

    dataset: Dataset
    series: ReferenceSeries
    structures: tuple[WrittenStructure, ...]
    voxels: dict[int, int]  # of each structure that has any, by its number


@contextmanager
def written_segmentation(path: Path, mask: FinishedMask, *, is_labelmap: bool = False) -> Iterator[Segmentation]:
    """Writes a mask of a DICOM series, reads it back, and leaves it only if it holds the mask and the block ends well.

    Raises UserError if the image is no series or its headers lack what is referred to, if structures overlap in a
    label map, and if what was written is not the mask.
    """
    require_highdicom()
    series = read_reference(mask.image, mask.geometry)
    values_zyx = series.mask_in_order(mask.values_zyx, mask.geometry)
    structures = written_structures(mask.labels, mask.structures)
    layers = in_layers(structures)
    if is_labelmap and len(layers) > 1:
        names = [each.name for each in layers[1]]
        raise UserError(f"{path}: a label map holds no structures that overlap ({listed(names, 'and')}); write BINARY")
    numbers = [numbered(values_zyx, layer, mask.labels) for layer in layers]
    dataset = _segmentation(mask, series, structures, numbers, is_labelmap=is_labelmap, path=path)
    with whole_file(path) as partial:
        with taken_as_they_are(path):
            dataset.save_as(partial, enforce_file_format=True)
        voxels = _checked(partial, path, series, layers, numbers)
        yield Segmentation(dataset=dataset, series=series, structures=structures, voxels=voxels)


# ---- what is written ----


def _segmentation(
    mask: FinishedMask,
    series: ReferenceSeries,
    structures: Sequence[WrittenStructure],
    numbers: Sequence[np.ndarray],
    *,
    is_labelmap: bool,
    path: Path,
) -> Dataset:
    from highdicom.seg import Segmentation as HighdicomSegmentation
    from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

    pixels = numbers[0]
    if len(numbers) > 1:
        pixels = np.stack([_is_of(each, numbers) for each in structures], -1)
    with taken_as_they_are(path):
        dataset: Dataset = HighdicomSegmentation(
            source_images=[complete_header(part) for part in series.slices],
            pixel_array=pixels,
            segmentation_type="LABELMAP" if is_labelmap else "BINARY",
            segment_descriptions=[_description(each, mask, series) for each in structures],
            series_instance_uid=generate_uid(prefix=None),
            series_number=SERIES_NUMBER,
            sop_instance_uid=generate_uid(prefix=None),
            instance_number=1,
            manufacturer="segfw",
            manufacturer_model_name=dicom_text(mask.maker.name),
            software_versions=dicom_text(own_version()),
            device_serial_number=dicom_text(mask.maker.digest or own_version()),
            content_description=dicom_text(mask.statement.title),
            content_label=mask.statement.word,
            content_creator_name=None,
            series_description=dicom_text(f"{mask.statement.title}: {mask.maker.name}"),
            specific_character_set=UNICODE,
            transfer_syntax_uid=RLELossless if is_labelmap else ExplicitVRLittleEndian,
            # Else, where no structure has a voxel in any slice, all frames of all structures are written.
            omit_empty_frames=bool(any(each.any() for each in numbers)),
        )
    # highdicom has no argument for the side, and viewers that know no modifiers show the label.
    for item, structure in zip(_described(dataset), structures):
        if structure.modifier is not None:
            kind = item.SegmentedPropertyTypeCodeSequence[0]
            kind.SegmentedPropertyTypeModifierCodeSequence = [code_item(structure.modifier)]
    state_creator(dataset, mask, series)
    add_evidence(dataset, mask)
    return dataset


def _is_of(structure: WrittenStructure, numbers: Sequence[np.ndarray]) -> np.ndarray:
    """The voxels of a structure, whichever layer holds it."""
    found = np.zeros(numbers[0].shape, bool)
    for numbers_zyx in numbers:
        found |= numbers_zyx == structure.number
    return found


def _description(structure: WrittenStructure, mask: FinishedMask, series: ReferenceSeries) -> SegmentDescription:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription

    algorithm = AlgorithmIdentificationSequence(
        name=dicom_text(mask.maker.name), family=concept(AI), version=dicom_text(mask.maker.digest or own_version())
    )
    algorithm_type = mask.statement.algorithm_type(structure.name)
    description = SegmentDescription(
        segment_number=structure.number,
        segment_label=dicom_text(structure.name),
        segmented_property_category=concept(structure.category),
        segmented_property_type=concept(structure.kind),
        algorithm_type=algorithm_type,
        algorithm_identification=None if algorithm_type == "MANUAL" else algorithm,
        tracking_uid=structure.tracking_uid(str(series.first.SeriesInstanceUID)),
        tracking_id=dicom_text(structure.name),
        display_color=CIELabColor.from_rgb(*structure.colour),
    )
    description.SegmentDescription = structure.description(mask.statement)
    return description


def _described(dataset: Dataset) -> list[Dataset]:
    """The descriptions of structures, without that of the background, which a label map may have."""
    return [item for item in dataset.SegmentSequence if int(item.SegmentNumber) > 0]


# ---- what is proven ----


def _checked(
    partial: Path,
    path: Path,
    series: ReferenceSeries,
    layers: Sequence[Sequence[WrittenStructure]],
    numbers: Sequence[np.ndarray],
) -> dict[int, int]:
    """Voxels of each structure; UserError naming ``path`` unless the frames in ``partial`` hold the mask."""
    from pydicom import dcmread

    dataset = dcmread(partial)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    axes = np.array([float(part) for part in shared.PlaneOrientationSequence[0].ImageOrientationPatient]).reshape(2, 3)
    spacing_y, spacing_x = (float(part) for part in shared.PixelMeasuresSequence[0].PixelSpacing)
    steps_mm = np.stack([axes[1] * spacing_y, axes[0] * spacing_x])
    found: dict[int, _Found] = {}
    wrong: Counter[int] = Counter()  # voxels of each structure
    layer_of = {each.number: numbers_zyx for layer, numbers_zyx in zip(layers, numbers) for each in layer}
    for frame_yx, group in zip(_frames(dataset), dataset.PerFrameFunctionalGroupsSequence):
        place_mm = np.array([float(part) for part in group.PlanePositionSequence[0].ImagePositionPatient])
        z = int(np.linalg.norm(series.positions_mm - place_mm, axis=1).argmin())
        if "SegmentIdentificationSequence" in group:
            in_frame = [int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)]
            frame_yx = frame_yx * in_frame[0]
        else:
            in_frame = [number for number in np.unique(frame_yx).tolist() if number]
        for number in in_frame:
            inside = frame_yx == number
            wrong[number] += int(np.count_nonzero(inside != (layer_of[number][z] == number)))
            found.setdefault(number, _Found()).add(inside, place_mm, steps_mm)
    voxels: dict[int, int] = {}
    for layer, numbers_zyx in zip(layers, numbers):
        expected = sizes_and_centres(numbers_zyx, series)
        for structure in layer:
            number, centre_mm = expected.get(structure.number, (0, np.zeros(3)))
            written = found.get(structure.number, _Found())
            is_off = number > 0 and np.linalg.norm(written.centre_mm - centre_mm) > CENTROID_MM
            if wrong[structure.number] or written.voxels != number or is_off:
                what = f"{written.voxels} voxels instead of {number}"
                if written.voxels == number:
                    what = count(wrong[structure.number], "wrong voxel") if wrong[structure.number] else OFF
                raise UserError(
                    f"{path}: {structure.name} would not be what the mask holds ({what}), so that the file was not "
                    "written; please report it with the series' geometry"
                )
            if number:
                voxels[structure.number] = number
    return voxels


class _Found:
    """Voxels of a structure as frames hold them, and the sum of their places."""

    def __init__(self) -> None:
        self.voxels = 0
        self._sum_mm = np.zeros(3)

    def add(self, inside_yx: np.ndarray, place_mm: np.ndarray, steps_mm: np.ndarray) -> None:
        """The voxels of one frame, whose first one is at ``place_mm``."""
        by_row = np.count_nonzero(inside_yx, axis=1)
        by_column = np.count_nonzero(inside_yx, axis=0)
        number = int(by_row.sum())
        self.voxels += number
        self._sum_mm += number * place_mm
        self._sum_mm += int(by_row @ np.arange(len(by_row))) * steps_mm[0]
        self._sum_mm += int(by_column @ np.arange(len(by_column))) * steps_mm[1]

    @property
    def centre_mm(self) -> np.ndarray:
        return self._sum_mm / max(1, self.voxels)


def _frames(dataset: Dataset) -> Iterator[np.ndarray]:
    """The frames of a file (Y, X): bits, or the numbers of structures."""
    shape = (int(dataset.Rows), int(dataset.Columns))
    if int(dataset.BitsAllocated) > 1:
        from pydicom.pixels import iter_pixels

        yield from (frame.reshape(shape) for frame in iter_pixels(dataset, raw=True))
        return
    content = np.frombuffer(dataset.PixelData, np.uint8)
    size = shape[0] * shape[1]
    for first in range(0, int(dataset.NumberOfFrames) * size, size):
        part = np.unpackbits(content[first // 8 : -(-(first + size) // 8)], bitorder="little")
        yield part[first % 8 : first % 8 + size].reshape(shape)
