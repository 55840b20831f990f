"""nnU-Net's trainers that build the plan's network and predict like nnUNetTrainer, so that segfw can follow them."""

from __future__ import annotations

import re

# Trainers of nnU-Net 2.8.1 that differ from nnUNetTrainer in length, augmentation, loss, sampling or optimiser alone.
# nnUNetTrainerBN is not among them: it has other norms.
OTHER_LENGTHS = re.compile(r"nnUNetTrainer(DA5|Benchmark)?(_\d+epochs?)?(_NoMirroring)?|nnUNet_Trainer_BS8")
OTHER_AUGMENTATION = {
    "NoDA",
    "NoMirroring",
    "DA5",
    "DA5ord0",
    "DA5Segord0",
    "_DASegOrd0",
    "_DASegOrd0_NoMirroring",
    "_noDummy2DDA",
    "_onlyMirror01",
    "_onlyMirror01_DA5",
    "_onlyMirror01_1500ep",
    "_onlyMirror01_DASegOrd0",
}
OTHER_LOSS = {
    "CELoss",
    "CELoss_5epochs",
    "DiceLoss",
    "DiceCELoss_noSmooth",
    "DiceTopK10Loss",
    "NoDeepSupervision",
    "Topk10Loss",
    "Topk10LossLS01",
}
OTHER_OPTIMISER = {
    "Adam",
    "Adam1en3",
    "Adam3en4",
    "Adan",
    "Adan1en1",
    "Adan1en3",
    "Adan3en4",
    "AdanCosAnneal",
    "CosAnneal",
    "VanillaAdam",
    "VanillaAdam1en3",
    "VanillaAdam3en4",
    "_warmup",
}
OTHER_SAMPLING = {
    "Benchmark_5epochs_noDataLoading",
    "_probabilisticOversampling",
    "_probabilisticOversampling_010",
    "_probabilisticOversampling_033",
}
KNOWN_TRAINERS = OTHER_AUGMENTATION | OTHER_LOSS | OTHER_OPTIMISER | OTHER_SAMPLING  # without 'nnUNetTrainer' before


def is_known_trainer(name: str) -> bool:
    """True for nnU-Net's own trainers whose networks are those of the plans."""
    return bool(OTHER_LENGTHS.fullmatch(name)) or name.removeprefix("nnUNetTrainer") in KNOWN_TRAINERS
