"""What ``calibrate`` is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segfw.base.options import DEVICES, OFF_ON, ONE_CONFIGURATION_HELP, option
from segfw.base.records import UserError
from segfw.base.words import did_you_mean
from segfw.inference.prediction_options import TilingOptions

FAIL_BELOW = 0.7


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions(TilingOptions):
    """What is learned, of which cases, and how these are predicted.

    ``fail_below`` are Dice ('0.7') or Dice of one structure ('liver=0.8'). ``cases`` is a folder of images and masks
    that the model never saw, in any layout of training data.
    """

    configuration: str | None = option(None, ONE_CONFIGURATION_HELP)
    cases: Path | None = option(
        None, "labelled cases that the model never saw, instead of those of its folds (imported models need them)"
    )
    shifts: bool = option(
        True, "also of spoilt copies, which show failures (default: on)", name="--shifts", words=OFF_ON
    )
    fail_below: tuple[str, ...] | None = option(
        None,
        f"Dice below which a mask has failed, for all or each structure (default: {FAIL_BELOW})",
        metavar="DICE|LABEL=DICE",
    )
    alpha: float = option(0.1, "share of masks whose Dice may lie below the bound (default: {default})", gt=0, lt=1)
    wrong_share: float = option(
        0.05, "largest share of failed masks among those of verdict 'use' (default: {default})", gt=0, lt=1
    )
    device: str = option("auto", DEVICES)
    groups: str | Path | None = option(
        None, "cases of one patient (default: as the folds were planned)", metavar="CSV|REGEX"
    )


def fail_limits(texts: Sequence[str] | None, structures: Sequence[str]) -> dict[str, float]:
    """The Dice below which a mask has failed, by structure; UserError for what is neither a share nor LABEL=SHARE."""
    of_all = FAIL_BELOW
    own: dict[str, float] = {}
    for text in texts or ():
        name, separator, share = text.rpartition("=")
        try:
            limit = float(share)
        except ValueError:
            limit = -1.0
        if not 0 < limit < 1:
            raise UserError(f"--fail-below {text!r}: give a Dice between 0 and 1, such as 0.7 or LABEL=0.8")
        if not separator:
            of_all = limit
        elif name in structures:
            own[name] = limit
        else:
            known = did_you_mean(name, structures) or f"; it has {', '.join(structures)}"
            raise UserError(f"--fail-below {text!r}: the model has no structure {name!r}{known}")
    return dict.fromkeys(structures, of_all) | own
