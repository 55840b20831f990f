"""How a training goes on from pretrained weights: gently, so that what they know is not lost in its first steps."""

from __future__ import annotations

from dataclasses import replace

from segfw.training.settings import TrainSettings

WARM_UP_SHARE = 0.05  # of the steps
ENCODER_RATE = 0.3  # of the learning rate; chosen once, before any comparison, and not tuned


def fine_tuning_settings(settings: TrainSettings) -> TrainSettings:
    """The settings with a longer warm-up and a slower encoder, unless they say other than the defaults themselves."""
    if settings.warm_up_share != 0 or settings.encoder_rate != 1:
        return settings
    return replace(settings, warm_up_share=WARM_UP_SHARE, encoder_rate=ENCODER_RATE)
