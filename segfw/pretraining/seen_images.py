"""Which of some cases weights were pretrained on.

An image is known again by the bytes of its files, by its voxels however a file stores them, and by what it shows in
other numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from segfw.base.array_files import open_array
from segfw.checkup.duplicates import same_scans
from segfw.checkup.signature import signature
from segfw.dataset.cases import Case
from segfw.images.image_hash import image_sha256
from segfw.model.pretraining_record import PretrainingRecord
from segfw.model.weights import load_tensors, save_tensors
from segfw.pretraining.image_pool import IMAGES, voxels_of

SIGNATURES_FILE = "signatures.safetensors"


def save_signatures(folder: Path, signature_of: Mapping[str, np.ndarray]) -> None:
    """Keeps what the seen images show, by id, so coarse that a copy is known again and no patient."""
    tensors = {image: torch.from_numpy(each.astype(np.float16)) for image, each in signature_of.items()}
    save_tensors(folder / SIGNATURES_FILE, tensors, {})


def read_signatures(folder: Path, record: PretrainingRecord) -> dict[str, np.ndarray]:
    """What the seen images show, by id: as it was kept, or of the images themselves where they still lie there."""
    if (folder / SIGNATURES_FILE).is_file():
        tensors, _ = load_tensors(folder / SIGNATURES_FILE)
        return {image: tensor.float().numpy() for image, tensor in tensors.items()}
    files = {image.id: folder / IMAGES / f"{image.id}.image.b2nd" for image in record.seen}
    return {image: signature(open_array(file)[:]) for image, file in files.items() if file.is_file()}


def seen_cases(folder: Path, record: PretrainingRecord, cases: Sequence[Case], preprocessed: Path) -> dict[str, str]:
    """By id each of the cases that was pretrained on in ``folder``, and what tells so, as the rest of a sentence.

    ``preprocessed`` holds the cases as they are trained and validated with. Records of before voxels and signatures
    were kept know images by bytes alone, which is said.
    """
    by_bytes = {image.sha256 for image in record.seen}
    found = {case.id: "by its bytes" for case in cases if image_sha256(case.images) in by_bytes}

    by_voxels = {image.voxels_sha256: image.id for image in record.seen if image.voxels_sha256 is not None}
    if by_voxels:
        left = [case for case in cases if case.id not in found]
        digests = voxels_of(left, "reading what validates", None)
        found |= {case: f"as {by_voxels[each]}, by its voxels" for case, each in digests.items() if each in by_voxels}

    seen = read_signatures(folder, record)
    files = {case.id: preprocessed / f"{case.id}.image.b2nd" for case in cases if case.id not in found}
    signatures = {case: signature(open_array(file)[:]) for case, file in files.items() if file.is_file()}
    copies = same_scans(signatures, seen)
    found |= {case: f"as {other}, which shows the same scan" for case, other in copies.items()}
    if record.seen and not by_voxels and not seen:
        print(f"note: {folder}: its record knows images by their bytes alone, not as other files store them")
    return {case.id: found[case.id] for case in cases if case.id in found}
