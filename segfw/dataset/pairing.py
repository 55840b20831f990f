"""Which image and mask files belong together, told from their names alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from segfw.base.words import with_folder
from segfw.dataset.cases import Case, Finding
from segfw.images.formats import split_ending

SEPARATORS = "_. -"


class ImageName(NamedTuple):
    """What an image's name says: its case, and which channel of the case it is ('' where it does not say)."""

    case: str
    channel: str
    path: Path


class Pairing(NamedTuple):
    """One reading of the names: every image with its case, and the mask of each case."""

    images: list[ImageName]
    masks: dict[str, Path]

    @property
    def cases(self) -> list[str]:
        """Cases that have both an image and a mask, sorted."""
        return sorted({image.case for image in self.images} & self.masks.keys())

    def channels_of(self, case: str) -> dict[str, list[Path]]:
        """Files of a case by channel, in order; more than one where names differ by their endings only."""
        found: dict[str, list[Path]] = {}
        for image in sorted(self.images):
            if image.case == case:
                found.setdefault(image.channel, []).append(image.path)
        return found


def pair(images: Sequence[Path], masks: Sequence[Path]) -> Pairing:
    """Pairs the files of two folders by the first of four rules that places most masks, then most images.

    Equal names; CASE_0000 channels; names that share their leading parts, where what follows is a channel
    (BRAIN_01_flair and BRAIN_01_t1 with BRAIN_01_seg); names that share their last parts (volume-7, segmentation-7).
    """
    attempts = [rule(images, masks) for rule in (_pair_equal, pair_numbered, _pair_by_head, _pair_by_tail)]

    def placed(attempt: Pairing) -> tuple[int, int]:
        return len(attempt.cases), sum(image.case in attempt.masks for image in attempt.images)

    return max(attempts, key=placed)


def pair_numbered(images: Sequence[Path], masks: Sequence[Path]) -> Pairing:
    """CASE_0000, CASE_0001, ... are channels of CASE, unless there is a mask of that very name (scan_2021)."""
    mask_of = _by_stem(masks)
    named = []
    for path in images:
        stem = split_ending(path)[0]
        match = re.fullmatch(r"(.+)_(\d{4})", stem)
        if match is None or stem in mask_of:
            named.append(ImageName(stem, "", path))
        else:
            named.append(ImageName(match[1], match[2], path))
    return Pairing(named, mask_of)


def as_word(name: str, flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str]:
    """Finds a name as a word of its own in a file's name: 't1' is no part of 't1ce'."""
    return re.compile(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", flags)


def cases_of(pairing: Pairing) -> tuple[Case, ...]:
    """The cases that have both, with their images in the order of the channels."""
    return tuple(
        Case(id=case, images=tuple(chain(*pairing.channels_of(case).values())), label=pairing.masks[case])
        for case in pairing.cases
    )


def common_channels(pairing: Pairing) -> list[str]:
    """Channels that at least half of the cases have, in order; [''] if every case is a single file."""
    per_case = [pairing.channels_of(case) for case in pairing.cases]
    if all(len(channels) == 1 for channels in per_case):
        return [""]
    counts = Counter(chain.from_iterable(per_case))
    return sorted(channel for channel, count in counts.items() if 2 * count >= len(per_case))


def channel_names(channels: Sequence[str]) -> list[str]:
    """What sets channels apart, in words: 'flair' and 't1' of '_1_flair_reg' and '_1_t1_reg'."""
    if all(re.fullmatch(r"\d{4}", channel) for channel in channels):
        return [f"channel_{int(channel)}" for channel in channels]
    words = [re.findall(rf"[{SEPARATORS}]+|[^{SEPARATORS}]+", channel) for channel in channels]
    head = len(_common_head(*words)) if len(words) > 1 else 0
    words = _without_common_tail([parts[head:] for parts in words])
    return ["".join(parts).strip(SEPARATORS) or "image" for parts in words]


def file_findings(pairing: Pairing, masks: Sequence[Path], channels: Sequence[str]) -> list[Finding]:
    """Missing, extra and doubled files of all cases; ``channels`` are those that every case should have."""
    findings = []
    named = {split_ending(path)[0]: path for path in masks}
    for stem, number in Counter(split_ending(path)[0] for path in masks).items():
        if number > 1:
            findings.append(_doubled_file(stem, named[stem], f"{number} masks have this name"))
    for case in sorted({image.case for image in pairing.images} | pairing.masks.keys()):
        files = pairing.channels_of(case)
        if not files:
            remedy = "add the image or move the mask"
            findings.append(_error("missing-image", case, with_folder(pairing.masks[case]), "has no image", remedy))
            continue
        if case not in pairing.masks:
            first = next(iter(files.values()))[0]
            findings.append(
                _error("missing-mask", case, with_folder(first), "has no mask", "add the mask or move the image")
            )
        findings += _channel_findings(case, files, channels)
    return findings


def _error(kind: str, case: str, file: str, what: str, remedy: str) -> Finding:
    return Finding(kind=kind, severity="error", case=case, file=file, what=what, remedy=remedy)


def _doubled_file(case: str, one: Path, what: str) -> Finding:
    return _error(
        "doubled-file", case, with_folder(one.with_name(f"{split_ending(one)[0]}.*")), what, "keep one of them"
    )


def _channel_findings(case: str, files: Mapping[str, list[Path]], channels: Sequence[str]) -> list[Finding]:
    findings = []
    for paths in files.values():
        if len(paths) > 1:
            what = f"{len(paths)} images have this name with different endings"
            findings.append(_doubled_file(case, paths[0], what))
    # A single file may hold all channels; how many it does is seen when it is read.
    if len(files) == 1 and (list(channels) == [""] or next(iter(files)) in ("", "0000")):
        return findings
    expected = ", ".join(_in_words(channel) for channel in channels) or "the same ones in every case"
    remedy = f"add, rename or move files; expected are {expected}"
    for channel in channels:
        if channel not in files:
            what = f"lacks the image of channel {_in_words(channel)}"
            findings.append(_error("missing-channel", case, "", what, remedy))
    for channel, paths in files.items():
        if channel not in channels:
            what = f"its name says channel {_in_words(channel)}, which is not expected"
            findings.append(_error("unexpected-channel", case, with_folder(paths[0]), what, remedy))
    return findings


def _in_words(channel: str) -> str:
    return channel.strip(SEPARATORS) or "without a name"


def _by_stem(paths: Sequence[Path]) -> dict[str, Path]:
    return {split_ending(path)[0]: path for path in paths}


def _pair_equal(images: Sequence[Path], masks: Sequence[Path]) -> Pairing:
    return Pairing([ImageName(split_ending(path)[0], "", path) for path in images], _by_stem(masks))


def _pair_by_head(images: Sequence[Path], masks: Sequence[Path]) -> Pairing:
    ids = _without_common_tail([_parts(path) for path in masks])
    if len(masks) == 1 and images:  # nothing to compare the mask's name with: its id is what it shares with an image
        ids = [max((_common_head(ids[0], _parts(path)) for path in images), key=len) or ids[0]]
    return pair_by_ids(images, {"".join(parts).rstrip(SEPARATORS): path for parts, path in zip(ids, masks)})


def pair_by_ids(images: Sequence[Path], mask_of: dict[str, Path]) -> Pairing:
    """Images with the mask whose id, a key of ``mask_of``, their names begin with; what follows is the channel."""
    named = []
    for path in images:
        stem = split_ending(path)[0]
        fitting = [case for case in mask_of if re.match(re.escape(_alike(case)) + r"(?![a-z0-9])", _alike(stem))]
        case = max(fitting, key=len, default=stem)
        named.append(ImageName(case, stem[len(case) :], path))
    return Pairing(named, mask_of)


def _alike(name: str) -> str:
    """The name without what people write now so, now so: capitals, and which separator; as long as before."""
    return re.sub(f"[{SEPARATORS}]", "_", name.lower())


def _pair_by_tail(images: Sequence[Path], masks: Sequence[Path]) -> Pairing:
    stem_of = {tail: split_ending(path)[0] for tail, path in _by_tail(images).items()}
    masks_by_case = {stem_of.get(tail, split_ending(path)[0]): path for tail, path in _by_tail(masks).items()}
    return Pairing([ImageName(split_ending(path)[0], "", path) for path in images], masks_by_case)


def _by_tail(paths: Sequence[Path]) -> dict[str, Path]:
    """Files by what their names have beyond the parts that all begin with."""
    parts = [_parts(path) for path in paths]
    head = len(_common_head(*parts)) if len(paths) > 1 else 0
    return {"".join(parts_of_name[head:]): path for parts_of_name, path in zip(parts, paths)}


def _parts(path: Path) -> list[str]:
    """['brats', '_', 'pat', '01'] of 'brats_pat01.nii.gz': runs of letters, digits and separators."""
    return re.findall(r"[A-Za-z]+|\d+|[^A-Za-z\d]+", split_ending(path)[0])


def _common_head(*lists: list[str]) -> list[str]:
    head = []
    for parts in zip(*lists):
        if len(set(parts)) > 1:
            break
        head.append(parts[0])
    return head


def _without_common_tail(lists: list[list[str]]) -> list[list[str]]:
    if len(lists) < 2:
        return lists
    tail = len(_common_head(*(parts[::-1] for parts in lists)))
    return [parts[: len(parts) - tail] for parts in lists]
