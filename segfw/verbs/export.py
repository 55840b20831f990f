"""``segfw export``: a trained model as one file that can be handed on, or in a form that others run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.base.shell_line import shell_line
from segfw.base.speech import aside
from segfw.model.export_options import ExportFormat, ExportOptions, OnnxOptions
from segfw.verbs.export_nnunet import export_nnunet
from segfw.verbs.export_onnx import export_onnx

if TYPE_CHECKING:
    from segfw.model.card import Card
    from segfw.networks import BuildNetwork


@takes_options(options=ExportOptions)
def export_model(
    model: Path, output: Path, options: ExportOptions = ExportOptions(), *, build: BuildNetwork | None = None
) -> Card:
    """Packs a model into the file ``output``, which ``predict`` and all that take a model take.

    By default what selection.json says, which then comes along, else the only trained configuration with all its
    trained folds. The first stage of a cascade is packed with all its folds, and so are a trained refiner and the
    postprocessing that came with an imported configuration. One model gives the same bytes whenever and wherever one
    version of segfw packs it; but with ``half`` the card holds what was measured, whose last digits are of the
    processor.

    Parameters
    ----------
    model
        Work folder or model file.
    output
        FILE.zip.
    options
        Which configurations, folds and weights are packed. ``half`` stores float16 and measures what that changes.
        ``licence`` is a name, such as CC-BY-4.0, or a text file.
    build
        Makes the network of a NetworkSpec, where another one than the plan's was trained.

    Returns
    -------
    Card
        What the file says of itself.

    Raises
    ------
    UserError
        If there is nothing to pack, a file in the way, or a case or folder named in what would be packed.
    """
    from segfw.base.files import file_sha256
    from segfw.base.output_paths import require_outside, require_replaceable
    from segfw.base.records import UserError
    from segfw.dataset.cases import MANIFEST_FILE
    from segfw.model.packing import pack_model
    from segfw.model.private_names import PrivateNames
    from segfw.model.source import ModelSource, is_model_file_of_segfw, kept_folders
    from segfw.networks import build_network
    from segfw.planning.fingerprint import FINGERPRINT_FILE

    model = Path(model)
    output = Path(output)
    if output.suffix != ".zip":
        raise UserError(f"{output}: a model file ends in .zip; give another name, or --onnx for a folder of ONNX files")
    if output.exists() and (output.is_dir() or not options.overwrite):
        raise UserError(f"{output}: exists; give another name, or --overwrite")
    require_replaceable(output, (".zip",), is_model_file_of_segfw)
    require_outside(output, kept_folders(model))
    fingerprint = model / FINGERPRINT_FILE
    with ModelSource.open(model) as source:
        return pack_model(
            source,
            output,
            options,
            data_digest=file_sha256(fingerprint) if fingerprint.is_file() else None,
            private_names=PrivateNames.of(model, model / MANIFEST_FILE),
            build=build or build_network,
        )


@takes_options(form=ExportFormat, options=ExportOptions)
def _export(model: Path, output: Path, form: ExportFormat, options: ExportOptions) -> list[str]:
    """Writes the model in the form asked for and returns what is to be said."""
    from segfw.base.records import UserError
    from segfw.model.promotion import warn_if_not_promoted

    warn_if_not_promoted(model)
    if form.nnunet:
        if options != ExportOptions():
            raise UserError(
                "--nnunet writes all trained configurations and folds as they are; give no other option than --ending"
            )
        return [f"written: {folder}" for folder in export_nnunet(model, output, ending=form.ending)]
    if form.ending:
        raise UserError("--ending is of what nnU-Net shall read; give it with --nnunet")
    if form.onnx:
        return [
            export_onnx(model, output, _onnx_options(options)),
            f"next: {shell_line('python', output / 'predict.py', 'IMAGE.nii.gz', 'MASK.nii.gz')}",
        ]
    card = export_model(model, output, options)
    return [*_packed(card, output), f"next: {shell_line('segfw', 'predict', output, 'NEW_IMAGES', 'MASKS')}"]


def _onnx_options(options: ExportOptions) -> OnnxOptions:
    """The same for ONNX; UserError if something is asked for that it does not do."""
    from segfw.base.records import UserError

    if options.half:
        raise UserError("--half is for model files; ONNX networks are written as float32, leave it out")
    names = options.configurations or (None,)
    if len(names) > 1:
        raise UserError("--onnx writes one configuration; give one --configuration")
    return OnnxOptions(
        configuration=names[0],
        folds=options.folds,
        best=options.best,
        licence=options.licence,
        overwrite=options.overwrite,
    )


def _packed(card: Card, output: Path) -> list[str]:
    """What was packed, in words."""
    from segfw.base.words import count

    size_mb = output.stat().st_size / 1e6
    lines = [card.text(), f"written: {output} ({size_mb:.1f} MB, {count(len(card.folds), 'fold')})"]
    if not card.licence:
        lines.append("no licence is stated: others may not use it; say one with --licence")
    return lines


def _say_result(_: argparse.Namespace, lines: list[str]) -> None:
    for line in lines:
        say = aside if line.startswith("next: ") else print
        say(line)


COMMAND = Command(
    function=_export,
    what="Pack a trained model into one file to hand on, or write it as ONNX with a runner that needs no segfw.",
    example="segfw export work hippocampus.zip --licence CC-BY-4.0",
    arguments=(
        Argument(name="model", help="work folder or model file"),
        Argument(name="output", help="FILE.zip, or with --onnx or --nnunet a new folder"),
    ),
    say_result=_say_result,
)
