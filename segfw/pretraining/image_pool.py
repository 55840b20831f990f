"""The images that are learnt of: those of the work folder and of further folders, without those that must stay unseen.

They lie in a folder of their own, as images alone: no mask is there to be read. Those of the work folder are taken
over as they are preprocessed, by hard links.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from segfw.base.array_files import open_array
from segfw.base.files import link_or_copy
from segfw.base.parallel import CasesFailed, map_bounded
from segfw.base.records import UserError
from segfw.base.words import count, listed
from segfw.checkup.duplicates import same_scans
from segfw.checkup.signature import signature
from segfw.dataset.cases import Case
from segfw.dataset.new_images import find_images
from segfw.grid.preprocess import Preprocessing, preprocess_image, stack_channels
from segfw.grid.store import load_stored, preprocess_images, read_case, save_image_record
from segfw.images.formats import read_volume
from segfw.images.header_only import volume_of_header
from segfw.images.image_hash import image_sha256, voxels_sha256
from segfw.model.pretraining_record import KeptOutImage, SeenImage
from segfw.planning.plan import Plan

IMAGES = "images"  # folder of what is learnt of
UNKNOWN_BYTES = 1 << 29  # of an image whose header tells no size
BYTES_PER_STORED = 30  # of a compressed file of unknown size
JUDGED_EVERY = 20  # one image in so many is not learnt of, but judged on


@dataclass(frozen=True, kw_only=True)
class ImageSources:
    """Where images come from. ``unseen`` are cases of the work folder that must stay so, with the reason for each."""

    work: Path
    data_name: str
    preprocessing: Preprocessing
    plan: Plan
    cases: tuple[Case, ...]  # of the work folder
    unseen: Mapping[str, str]
    folders: tuple[Path, ...]
    keep_out: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class ImagePool:
    """What is learnt of, and what was offered and is not; ``signatures`` are by id what the seen images show."""

    seen: tuple[SeenImage, ...]
    kept_out: tuple[KeptOutImage, ...]
    signatures: Mapping[str, np.ndarray]

    @property
    def judged(self) -> tuple[str, ...]:
        """Ids on whose patches the progress is judged: every twentieth; none where there are fewer."""
        return tuple(image.id for image in self.seen[JUDGED_EVERY - 1 :: JUDGED_EVERY])


def gather_images(sources: ImageSources, folder: Path, workers: int | None) -> ImagePool:
    """Puts all images that may be learnt of into ``folder``.

    An image stays unseen if the bytes of its files, or the scan that it shows, are those of one that must. Raises
    UserError, or CasesFailed for images that cannot be read, if none is left or a folder does not fit the plan.
    """
    own = [case for case in sources.cases if case.id not in sources.unseen]
    taken = {case.id for case in sources.cases}
    of_folder = {source: _with_own_ids(images_in(source, sources.plan), taken) for source in sources.folders}
    further = [case for cases in of_folder.values() for case in cases]
    unseen = {case.id: case for case in sources.cases if case.id in sources.unseen}
    others = [case for source in sources.keep_out for case in images_in(source, sources.plan)]
    digests = {case.id: _sha256(case) for case in (*own, *further)}
    unseen_of = {_sha256(case): f"is {case.id}, which {sources.unseen[case.id]}" for case in unseen.values()}
    unseen_of |= {_sha256(case): f"is {case.images[0]}, which is kept out" for case in others}
    same = {case: unseen_of[digest] for case, digest in digests.items() if digest in unseen_of}

    # What can be told by the files alone goes first: the rest is preprocessed.
    folder.mkdir(parents=True, exist_ok=True)
    for case in own:
        if case.id not in same:
            _take_over(sources, case, folder)
    left = [case for case in further if case.id not in same]
    _preprocess(left, sources, folder, workers)
    signatures = {
        case.id: signature(open_array(folder / f"{case.id}.image.b2nd")[:])
        for case in (*own, *left)
        if case.id not in same
    }
    copies = _near_copies(sources, signatures, unseen, others, workers)
    reasons = same | copies
    for source, cases in of_folder.items():
        if all(case.id in reasons for case in cases):
            raise UserError(
                f"{source}: none of its images may be learnt of: {cases[0].images[0].name} {reasons[cases[0].id]}; "
                "give other images, or leave this folder out"
            )
    seen = [case for case in (*own, *further) if case.id not in reasons]
    voxels = voxels_of(seen, "telling images by their voxels", workers)
    pool = ImagePool(
        seen=tuple(
            SeenImage(
                id=case.id, sha256=digests[case.id], source=case.images[0].absolute(), voxels_sha256=voxels[case.id]
            )
            for case in seen
        ),
        kept_out=tuple(
            KeptOutImage(id=case, sha256=digests[case], reason=reason) for case, reason in sorted(reasons.items())
        ),
        signatures={case.id: signatures[case.id] for case in seen},
    )
    if not pool.seen:
        raise UserError(
            f"{sources.work}: no image is left to learn of, because all must stay unseen; give further ones with "
            "--images, or fewer --folds"
        )
    return pool


def images_in(folder: Path, plan: Plan) -> list[Case]:
    """The images of a folder; UserError if there are none, or one has not the plan's channels."""
    if folder.is_file():
        raise UserError(f"{folder}: is a file; give a folder of images")
    channels = len(plan.channels)
    names = listed((channel.name for channel in plan.channels), "and")
    cases = find_images(folder, plan.channels)
    for case in cases:
        headers = [volume_of_header(path) for path in case.images]
        known = [header.array.shape[0] for header in headers if header is not None]
        if len(known) == len(headers) and sum(known) != channels:
            has = count(sum(known), "channel")
            raise UserError(f"{folder}: {case.id} has {has}, but the plan has {channels} ({names}); give such images")
    return cases


def _with_own_ids(cases: Sequence[Case], taken: set[str]) -> list[Case]:
    """The cases under names that no other has, which are ``taken`` then: some folders call theirs alike."""
    named = []
    for case in cases:
        name = case.id
        number = 1
        while name in taken:
            number += 1
            name = f"{case.id}_{number}"
        taken.add(name)
        named.append(case.model_copy(update={"id": name}))
    return named


def voxels_of(cases: Sequence[Case], what: str, workers: int | None) -> dict[str, str]:
    """By id the hash of the voxels of each case's image, however its files store them; CasesFailed, in ``what``."""

    def digest(case: Case) -> str:
        return voxels_sha256(stack_channels([read_volume(path) for path in case.images]))

    found = {}
    for outcome in map_bounded(digest, cases, cost_bytes=image_bytes, workers=workers, what=what):
        if outcome.error is not None or outcome.result is None:
            raise CasesFailed(f"in {what}", [outcome], None)
        found[outcome.item.id] = outcome.result
    return found


def _sha256(case: Case) -> str:
    return image_sha256(case.images) or ""


def _take_over(sources: ImageSources, case: Case, folder: Path) -> None:
    """A preprocessed image of the work folder, and its record without what is known by the mask."""
    origin = sources.work / "preprocessed" / sources.data_name
    stored = load_stored(origin, case.id)
    if stored.preprocessing != sources.preprocessing:
        raise UserError(f"{origin}: {case.id} was preprocessed for another plan; run segfw plan-and-preprocess again")
    (folder / f"{case.id}.json").unlink(missing_ok=True)
    link_or_copy(origin / f"{case.id}.image.b2nd", folder / f"{case.id}.image.b2nd")
    of_images = stored.sources[: len(case.images)]
    save_image_record(folder, case.id, sources.preprocessing, stored.record, of_images)


def _preprocess(cases: Sequence[Case], sources: ImageSources, folder: Path, workers: int | None) -> None:
    sizes = {case.id: image_bytes(case) for case in cases}
    failures = preprocess_images(cases, sources.preprocessing, folder, case_bytes=sizes, workers=workers)
    if failures:
        raise CasesFailed("in preprocessing", failures, folder)


def image_bytes(case: Case) -> int:
    """About what an image takes as float32, by its header where that tells."""
    total = 0
    for path in case.images:
        volume = volume_of_header(path)
        if volume is not None:
            total += 4 * prod(volume.array.shape)
        else:
            total += BYTES_PER_STORED * path.stat().st_size if path.is_file() else UNKNOWN_BYTES
    return total


def _near_copies(
    sources: ImageSources,
    signatures: Mapping[str, np.ndarray],
    unseen: Mapping[str, Case],
    others: Sequence[Case],
    workers: int | None,
) -> dict[str, str]:
    """Why images stay unseen that show the scan of one that must, in other numbers."""
    origin = sources.work / "preprocessed" / sources.data_name
    wanted: dict[str, np.ndarray] = {}
    why: dict[str, str] = {}
    for case_id in unseen:
        wanted[case_id] = signature(open_array(origin / f"{case_id}.image.b2nd")[:])
        why[case_id] = f"shows the scan of {case_id}, which {sources.unseen[case_id]}"

    def read(case: Case) -> np.ndarray:
        return signature(preprocess_image(read_case(case)[0], sources.preprocessing)[0].numpy())

    what = "reading what is kept out"
    for outcome in map_bounded(read, list(others), cost_bytes=image_bytes, workers=workers, what=what):
        if outcome.error is not None or outcome.result is None:
            raise CasesFailed(f"in {what}", [outcome], None)
        name = str(outcome.item.images[0])
        wanted[name] = outcome.result
        why[name] = f"shows the scan of {name}, which is kept out"
    return {case: why[other] for case, other in same_scans(signatures, wanted).items()}
