"""Whether the masks of a call of ``predict`` are judged, and what is promised of them with the options it has."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from segfw.base.file_names import REGIONS_ENDING
from segfw.base.records import UserError
from segfw.base.shell_line import shell_line
from segfw.base.words import listed
from segfw.grid.preprocess import PreprocessRecord
from segfw.images.geometry import Geometry
from segfw.inference.prediction_options import PredictOptions
from segfw.model.load import Model
from segfw.model.source import QUALITY_FILE, ModelSource
from segfw.quality.case_page import CasePageMaker, changes_for
from segfw.quality.case_quality import EXCHANGEABLE, WITHDRAWN
from segfw.quality.folds_together import other_folds
from segfw.quality.image_fingerprint import image_fingerprint
from segfw.quality.input_gate import Gate
from segfw.quality.model_identity import ModelIdentity
from segfw.quality.plausible_masks import PlausibleMasks
from segfw.quality.quality_model import QualityModel
from segfw.quality.quality_sink import MaskJudge


@dataclass(frozen=True, kw_only=True)
class _Calibration:
    """A model's quality.json, and the digest of its bytes."""

    quality: QualityModel
    digest: str


def _calibration_of(model: Path) -> _Calibration | None:
    """None of a model that is not calibrated; UserError if the file is damaged."""
    with ModelSource.open(model) as source:
        content = source.read_if_there(QUALITY_FILE)
    if content is None:
        return None
    quality = QualityModel.parse(content, Path(model) / QUALITY_FILE)
    return _Calibration(quality=quality, digest=hashlib.sha256(content).hexdigest())


def judge_of(model: Path, loaded: Sequence[Model], options: PredictOptions) -> MaskJudge | None:
    """What judges the masks; None where they come without quality, which is said once if the model is calibrated.

    Parameters
    ----------
    model
        Work folder or model file.
    loaded
        The configurations whose mean predicts, with their weights.
    options
        Of ``predict``.

    Raises
    ------
    UserError
        If the model's quality.json is damaged or of another model.
    """
    if not options.quality:
        return None
    path = Path(model) / QUALITY_FILE
    calibration = _calibration_of(model)
    if calibration is None:
        return None
    quality = calibration.quality
    calibrated = quality.identity.configuration
    names = [each.configuration.name for each in loaded]
    if len(names) > 1:
        averaged = f"masks of {listed(names, 'and')}, which are averaged"
        print(f"note: {averaged}, come without quality; --configuration {calibrated} has it")
        return None
    if names != [calibrated]:
        print(f"note: {path} is of {calibrated}; masks of {names[0]} come without quality")
        return None
    used = ModelIdentity.of(loaded[0])
    if options.best and quality.identity.difference(used):
        print(f"note: {path} is of the weights of the training's end; masks of --weights best come without quality")
        return None
    quality.identity.require(used, path)
    require_known_entries(quality, loaded[0], path)
    guarantee = guarantee_with(quality, options, used)
    if guarantee != EXCHANGEABLE:
        print(f"warning: of how good masks are nothing is promised: {guarantee.removeprefix(WITHDRAWN)}")
    unused = [fold for fold in quality.identity.folds if fold not in used.folds]
    if unused and guarantee == EXCHANGEABLE:
        print(
            f"note: {path} was calibrated with fold {listed(quality.identity.folds, 'and')}, and fold "
            f"{listed(used.folds, 'and')} predicts; its bounds are of single networks and hold"
        )
    return MaskJudge(quality=quality, digest=calibration.digest, guarantee=guarantee)


def plausible_of(
    model: Path, loaded: Sequence[Model], options: PredictOptions, only: Sequence[str] = ()
) -> PlausibleMasks | None:
    """What makes the masks of ``--plausible``; None where they are not asked for. Parameters as of ``judge_of``.

    ``only`` are the structures that are wanted, by their names in training; all without any.

    Raises
    ------
    UserError
        If the model has no calibration, or one of another model or configuration, or of too few cases for whatever is
        wanted.
    """
    if not options.plausible:
        return None
    path = Path(model) / QUALITY_FILE
    calibration = _calibration_of(model)
    if calibration is None:
        raise UserError(
            f"{model}: --plausible needs thresholds from held-out cases, and this model is not calibrated; run segfw "
            f"calibrate {shell_line(model)} first"
        )
    quality = calibration.quality
    calibrated = quality.identity.configuration
    names = [each.configuration.name for each in loaded]
    if names != [calibrated]:
        raise UserError(
            f"{path}: --plausible is of {calibrated}, which was calibrated, and {listed(names, 'and')} predicts; add "
            f"--configuration {calibrated}"
        )
    used = ModelIdentity.of(loaded[0])
    problem = quality.identity.difference(used)
    if problem:
        raise UserError(f"{path}: is of another model ({problem}); run segfw calibrate anew, or leave out --plausible")
    require_known_entries(quality, loaded[0], path, "leave out --plausible")
    wanted = {name: found for name, found in quality.plausible.items() if not only or name in only}
    without = {name: found.note for name, found in wanted.items() if found.outer is None and found.inner is None}
    if len(without) == len(wanted):
        why = next(iter(without.values()), "it was made without them")
        of = f" of {listed(only, 'and')}" if only else ""
        raise UserError(
            f"{path}: holds no thresholds for --plausible{of} ({why}); calibrate with more cases, or leave out "
            "--plausible"
        )
    for name, note in without.items():
        print(f"note: no plausible masks of {name}: {note}")
    thresholds = {name: found for name, found in wanted.items() if name not in without}
    for name, found in thresholds.items():
        if found.says_little:
            print(f"note: the plausible masks of {name} keep their promise and say little: {found.says_little}")
    return PlausibleMasks(
        thresholds=thresholds,
        gate=quality.gate,
        guarantee=guarantee_with(quality, options, used),
        digest=calibration.digest,
    )


def require_known_entries(
    quality: QualityModel, model: Model, path: Path, remedy: str = "predict with --no-quality"
) -> None:
    """UserError if the gate looks at other entries of images than this version does: an older one made the file."""
    if quality.gate is None:
        return
    shape = (8, 8, 8)
    record = PreprocessRecord(
        original=Geometry.of(shape, np.eye(4)[[2, 1, 0, 3]]),
        box=((0, 8), (0, 8), (0, 8)),
        axis_order=model.configuration.preprocessing.axis_order,
        cropped_shape=shape,
        cropped_spacing_mm=(1.0, 1.0, 1.0),
        shape=shape,
        spacing_mm=(1.0, 1.0, 1.0),
        orientation=model.configuration.preprocessing.orientation,  # by which axes are called
    )
    image = torch.zeros((len(model.plan.channels), *shape))
    try:
        quality.gate.look(image_fingerprint(image, record))
    except ValueError:
        raise UserError(
            f"{path}: looks at other properties of images than this version of segfw; run segfw calibrate anew, or "
            f"{remedy}"
        ) from None


def page_maker(model: Path, loaded: Sequence[Model], gate: Gate | None) -> CasePageMaker:
    """Makes a page for each case, and says what that costs; UserError if several configurations are averaged."""
    if len(loaded) > 1:
        names = listed((each.configuration.name for each in loaded), "and")
        raise UserError(f"--report is of one configuration, but {names} are averaged; choose one with --configuration")
    passes = 1 + len(changes_for(loaded[0]))
    print(f"note: for its page each case is predicted {passes} times instead of once")
    return CasePageMaker(model=model, gate=gate)


def guarantee_with(quality: QualityModel, options: PredictOptions, used: ModelIdentity) -> str:
    """'exchangeable', or 'withdrawn: why' where masks are made otherwise than in the calibration, or by folds that were
    trained for much longer or shorter than others of it.

    What ``select`` chose after it does not count: it was kept because held-out masks become better by it.
    """
    different = []
    if options.step != quality.step:
        different.append(f"--step is {options.step:g} instead of {quality.step:g}")
    if options.mirroring != quality.mirroring:
        different.append("mirroring is off" if quality.mirroring else "mirroring is on")
    if options.postprocessing is not None:
        different.append(f"--postprocessing {options.postprocessing}")
    reasons = []
    if different:
        reasons.append(f"the model was calibrated with other options ({', '.join(different)})")
    unlike = other_folds(quality.identity, used, mirroring=options.mirroring)
    if unlike:
        reasons.append(f"the model was calibrated for all its folds together ({', '.join(unlike)})")
    return f"{WITHDRAWN}{', and '.join(reasons)}" if reasons else EXCHANGEABLE


def require_distinct_files(cases: Sequence[str], output: Path) -> None:
    """UserError if the suspected regions of one case would take the name of what is told of another."""
    suffix = REGIONS_ENDING.removesuffix(".json")
    known = set(cases)
    for case in cases:
        if f"{case}{suffix}" in known:
            raise UserError(
                f"{output}: what is told of the cases {case} and {case}{suffix} would be files of one name; rename an "
                "image, or predict with --no-quality"
            )
