"""The images that are to be predicted: files, folders and DICOM series, grouped into cases."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from segfw.base.records import UserError
from segfw.base.words import count
from segfw.dataset.cases import Case, Channel
from segfw.dataset.image_files import group_channels, image_files, series_folders, series_in
from segfw.dataset.new_patients import find_patients
from segfw.dataset.pairing import as_word
from segfw.images.dicom import holds_dicom, is_dicom, what_it_is
from segfw.images.dicom_header import read_header
from segfw.images.formats import FORMATS, files_read, split_ending

MOST_CHANNELS = 9  # longer rows of numbers are frames of a film


def find_images(source: Path, channels: Sequence[Channel]) -> list[Case]:
    """Cases in a folder, or of a single file or DICOM series: CASE.nii.gz, CASE_0000.nii.gz, ..., or named by channel.

    Folders that hold DICOM files are images like files; for a folder a patient see ``find_patients``.

    Raises UserError if there is nothing to predict, or if two
    images would be one case.
    """
    source = Path(source)
    if source.is_file():
        if not split_ending(source)[1] and is_dicom(source) and not _is_whole_series(source):
            raise UserError(f"{source}: is one file of a DICOM series; give the folder {source.parent}")
        stem = source.stem if is_dicom(source) else split_ending(source)[0]
        return [Case(id=stem.removesuffix("_0000"), images=(source,))]
    if source.is_symlink() and not source.exists():
        raise UserError(f"{source}: {what_it_is(source)}")
    if not source.is_dir():
        raise UserError(f"{source}: no such file or folder; give one image, or a folder of images")
    files = image_files(source)
    if holds_dicom(source):
        if files:
            what = f"holds DICOM files and {files[0].name} beside them"
            raise UserError(f"{source}: {what}; give each series a folder of its own")
        name = source.resolve().name.removesuffix("_0000")
        series = series_in(source)
        if not series:
            raise UserError(f"{source}: holds a mask and no image; give the folder of the images")
        if len(series) == 1:
            return [Case(id=name, images=(source,))]
        return [Case(id=f"{name}_{number}", images=(path,)) for number, path in enumerate(series, 1)]
    patients = find_patients(source, channels)
    if patients is not None:
        return patients
    series = series_folders(source)
    inner = {folder for path in series for folder in path.parents}
    # What is named like an image but none is a case all the same: it fails with a sentence and is counted.
    apart = [path for folder in series for path in series_in(folder)]
    split = set(series) - set(apart)
    files = sorted({*apart, *(path for path in files if path not in inner and path not in split)})
    if not files:
        raise UserError(f"{source}: holds no image segfw can read ({', '.join(FORMATS)}, or folders of DICOM)")
    stem_of = _stems(files, source, set(apart) - set(series)).__getitem__
    _check_numbers(files, len(channels), stem_of, source)
    groups = _group_by_channel_name(files, channels, stem_of, source)
    if not groups:
        groups = group_channels(files, len(channels), stem_of)
        _require_numbers_alone(groups, stem_of, source)
    return [Case(id=case_id, images=tuple(paths)) for case_id, paths in sorted(groups.items())]


def _is_whole_series(file: Path) -> bool:
    """Whether a DICOM file is an image by itself: of several frames, or the only slice beside which there is none."""
    return read_header(file) is not None and files_read(file) == (file,)


def _check_numbers(files: Sequence[Path], channel_count: int, stem_of: Callable[[Path], str], source: Path) -> None:
    """Refuses CASE_0000, CASE_0001, ... of more channels than the model has: each would be predicted as a patient.

    Long rows of numbers are frames, and years are no numbers of channels.
    """
    numbers: dict[str, list[int]] = {}
    for path in files:
        match = re.fullmatch(r"(.+)_(\d{4})", stem_of(path))
        if match:
            numbers.setdefault(match[1], []).append(int(match[2]))
    for case, found in sorted(numbers.items()):
        if channel_count < len(found) <= MOST_CHANNELS and sorted(found) == list(range(len(found))):
            has = count(channel_count, "channel")
            what = f"{case}_0000 to {case}_{len(found) - 1:04} look like {len(found)} channels, but the model has {has}"
            raise UserError(f"{source}: {what}; give only what it needs, or rename what is an image of its own")


def _require_numbers_alone(groups: Mapping[str, Sequence[Path]], stem_of: Callable[[Path], str], source: Path) -> None:
    """UserError for CASE beside CASE_0000: each could be the image of the case."""
    for case, paths in groups.items():
        plain = [path for path in paths if stem_of(path) == case]
        numbered = [path for path in paths if path not in plain]
        if plain and numbered:
            names = " and ".join(str(path.relative_to(source)) for path in (plain[0], numbered[0]))
            raise UserError(f"{source}: {names} would both be the case {case}; rename or move one of them")


def _stems(files: Sequence[Path], source: Path, first_of_series: Collection[Path]) -> dict[Path, str]:
    """What each image is called: by its name, or by its folders too where series in several have one name.

    Of several series in one folder, for each of which a file stands (``first_of_series``), by the folder and a number.
    """
    stems = {path: split_ending(path)[0] for path in files}
    numbers: Counter[Path] = Counter()
    for path in files:
        if path in first_of_series:
            numbers[path.parent] += 1
            stems[path] = f"{path.parent.name}_{numbers[path.parent]}"
    if len(set(stems.values())) < len(files):
        stems = {path: "_".join([*path.relative_to(source).parts[:-1], stem]) for path, stem in stems.items()}
    first: dict[str, Path] = {}
    for path, stem in stems.items():
        if stem in first:
            names = " and ".join(str(file.relative_to(source)) for file in (first[stem], path))
            raise UserError(f"{source}: {names} would both be the case {stem}; rename or move one of them")
        first[stem] = path
    return stems


def _group_by_channel_name(
    files: Sequence[Path], channels: Sequence[Channel], stem_of: Callable[[Path], str], source: Path
) -> dict[str, list[Path]]:
    """Files by case where every name holds exactly one channel's name, in channel order; empty if they do not."""
    if len(channels) < 2:
        return {}
    groups: dict[str, dict[int, Path]] = {}
    for path in files:
        stem = stem_of(path)
        found = [as_word(channel.name).search(stem) for channel in channels]
        fitting = [(index, match) for index, match in enumerate(found) if match]
        if len(fitting) != 1:
            return {}
        index, match = fitting[0]
        case_id = (stem[: match.start()].rstrip("_-. ") + stem[match.end() :]).strip("_-. ")
        other = groups.setdefault(case_id, {}).setdefault(index, path)
        if other != path:
            names = " and ".join(str(file.relative_to(source)) for file in (other, path))
            what = f"{names} would both be channel {channels[index].name} of the case {case_id}"
            raise UserError(f"{source}: {what}; rename or move one of them")
    return {case_id: [paths[index] for index in sorted(paths)] for case_id, paths in groups.items()}
