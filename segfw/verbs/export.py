"""A trained model as one file that can be handed on: weights, plan and a card, and nothing that names a patient."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from segfw.base.records import UserError
from segfw.base.words import count
from segfw.model.card import Card
from segfw.model.export_options import ExportOptions
from segfw.model.packing import pack_model
from segfw.model.private_names import PrivateNames
from segfw.model.source import ModelSource
from segfw.networks import BuildNetwork, build_network
from segfw.verbs.plan_and_preprocess import FINGERPRINT_FILE, MANIFEST_FILE


def export_model(
    model: Path,
    output: Path,
    *,
    configurations: Sequence[str] | None = None,
    folds: tuple[str, ...] | None = None,
    best: bool = False,
    half: bool = False,
    licence: str | None = None,
    overwrite: bool = False,
    build: BuildNetwork = build_network,
) -> Card:
    """Packs a model into the file ``output``, which ``predict`` and all that take a model take, and returns its card.

    By default what selection.json says, which then comes along, else the only trained configuration with all its
    trained folds; ``best`` takes the weights of the best epoch. The first stage of a cascade is packed with all its
    folds, and so is the postprocessing that came with an imported configuration. ``half`` stores float16 and measures
    what that changes. ``licence`` is a name, such as CC-BY-4.0, or a text file. One model gives the same bytes whenever
    and wherever one version of segfw packs it; but with ``half`` the card holds what was measured, whose last digits
    are of the processor. Raises UserError if there is nothing to pack, a file in the way, or a case or folder named.
    """
    model = Path(model)
    output = Path(output)
    if output.suffix != ".zip":
        raise UserError(f"{output}: a model file ends in .zip; give another name, or --onnx for a folder of ONNX files")
    if output.exists() and (output.is_dir() or not overwrite):
        raise UserError(f"{output}: exists; give another name, or --overwrite")
    options = ExportOptions(
        configurations=None if configurations is None else tuple(configurations),
        folds=folds,
        best=best,
        half=half,
        licence=licence,
        overwrite=overwrite,
    )
    fingerprint = model / FINGERPRINT_FILE
    with ModelSource.open(model) as source:
        return pack_model(
            source,
            output,
            options,
            data_digest=hashlib.sha256(fingerprint.read_bytes()).hexdigest() if fingerprint.is_file() else None,
            private_names=PrivateNames.of(model, model / MANIFEST_FILE),
            build=build,
        )


def summary(card: Card, output: Path) -> str:
    """What was packed, in words."""
    size_mb = Path(output).stat().st_size / 1e6
    missing = "" if card.licence else "\nno licence is stated: others may not use it; say one with --licence"
    return f"{card.text()}\nwritten: {output} ({size_mb:.1f} MB, {count(len(card.folds), 'fold')}){missing}"
