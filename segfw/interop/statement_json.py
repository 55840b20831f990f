"""What is said of a reviewed mask as JSON: in the description of BIDS, and beside files whose headers are small."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from segfw.dataset.finished_mask import FinishedMask


def stated(mask: FinishedMask) -> dict[str, Any]:
    """Signature, version, log and who drew which structure; nothing of a mask that was never under review."""
    statement = mask.statement
    if statement.version is None:
        return {}
    return {
        "Review": statement.title,
        "Signature": None if statement.signature is None else asdict(statement.signature),
        "Version": asdict(statement.version),
        "Model": {"Name": mask.maker.name, "Digest": mask.maker.digest},
        "AlgorithmTypes": {name: statement.algorithm_type(name) for name in mask.structures},
    }


def is_manual(mask: FinishedMask) -> bool:
    """Whether a person drew all of the mask."""
    return all(mask.statement.algorithm_type(name) == "MANUAL" for name in mask.structures)
