"""How ``segfw serve-monailabel`` serves a folder of masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segfw.base.options import DEVICES, Options, option


@dataclass(frozen=True, kw_only=True)
class LabelServerOptions(Options):
    """Which models answer, where the server listens, and who the versions are of.

    ``host`` is this computer alone; ``allow_origin`` are addresses of pages, such as OHIF's, that may ask as well.
    """

    model: Path | None = option(
        None, "work folder or model file that predicts when asked (default: none)", metavar="MODEL"
    )
    refiner: Path | None = option(
        None, "work folder or model file whose 3d_refine answers points (default: none)", metavar="MODEL"
    )
    port: int = option(8000, "default: {default}, where the plug-ins look; 0 is a free one", ge=0, le=65535)
    host: str = option("127.0.0.1", "of this computer alone (default: {default})", choices=("127.0.0.1", "localhost"))
    allow_origin: tuple[str, ...] = option(
        (), "pages that may ask from a browser, such as http://localhost:3000 of OHIF", metavar="URL"
    )
    user: str | None = option(None, "who saves, as the log will have it (default: your account)", metavar="NAME")
    device: str = option("auto", DEVICES)
