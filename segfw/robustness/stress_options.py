"""What ``stress`` tries, and with which networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segfw.base.options import CONFIGURATION_HELP, DEVICES, ONLY_HELP, Precision, option
from segfw.inference.prediction_options import PredictOptions, TilingOptions

CASES = 8


@dataclass(frozen=True, kw_only=True)
class StressOptions(TilingOptions):
    """What ``stress`` tries. ``cases`` are taken evenly from all; ``quick`` is one level of each change."""

    reference: Path | None = option(None, "folder of expert masks: Dice is told, too", metavar="MASKS")
    cases: int = option(CASES, "how many images, evenly from all (default: {default})", ge=1)
    only: tuple[str, ...] | None = option(None, ONLY_HELP, metavar="NAMES")
    quick: bool = option(False, "one level of each change, one other order of axes")
    configuration: str | None = option(None, CONFIGURATION_HELP)
    folds: tuple[str, ...] | None = option(None, "default: all that are trained, averaged", metavar="FOLD")
    device: str = option("auto", DEVICES)
    overwrite: bool = option(False, "try again what is there")

    def of_prediction(self, precision: Precision | None = None) -> PredictOptions:
        """The same as options of a prediction."""
        return PredictOptions(
            configuration=self.configuration,
            folds=self.folds,
            step=self.step,
            mirroring=self.mirroring,
            precision=precision or self.precision,
        )
