"""Models for other programs: a folder of ONNX networks, and a trained folder of nnU-Net."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from segfw.base.answers import Answer
from segfw.base.file_names import PIPELINE_FILE
from segfw.base.shell_line import shell_line
from segfw.base.words import listed
from segfw.standing.facts import Facts


class OnnxStanding(Answer):
    """A folder of ``segfw export --onnx``."""

    kind: Literal["onnx"] = "onnx"
    path: Path
    dataset: str
    configuration: str
    folds: tuple[str, ...]
    channels: tuple[str, ...]
    next: str

    def text(self) -> str:
        """Two lines."""
        return (
            f"{self.path}: ONNX networks of {self.dataset}, {self.configuration}, fold {listed(self.folds, 'and')}, "
            f"channels {', '.join(self.channels)}\nnext: {self.next}"
        )


class NnunetStanding(Answer):
    """A trained folder of nnU-Net, of its own or of ``segfw export --nnunet``."""

    kind: Literal["nnunet"] = "nnunet"
    path: Path
    folds: tuple[str, ...]
    next: str

    def text(self) -> str:
        """Two lines."""
        folds = f"fold {listed(self.folds, 'and')}" if self.folds else "no fold with a checkpoint"
        return f"{self.path}: trained folder of nnU-Net, {folds}\nnext: {self.next}"


class _Pipeline(Facts):
    format: str
    dataset: str
    configuration: str
    folds: tuple[str, ...]
    channels: tuple[str, ...]


def onnx_standing(path: Path) -> OnnxStanding | None:
    """What a folder of ONNX networks is of; None if it is none. UserError if its pipeline.json is damaged."""
    if not (path / PIPELINE_FILE).is_file():
        return None
    found = _Pipeline.load(path / PIPELINE_FILE)
    return OnnxStanding(
        path=path,
        dataset=found.dataset,
        configuration=found.configuration,
        folds=found.folds,
        channels=found.channels,
        next=shell_line("python", path / "predict.py", "--help"),
    )


def nnunet_standing(path: Path) -> NnunetStanding | None:
    """Which folds a trained folder of nnU-Net has; None if it is none."""
    trained = sorted(path.glob("fold_*/checkpoint_*.pth")) if (path / "plans.json").is_file() else []
    if not trained:
        return None
    folds = tuple(dict.fromkeys(file.parent.name.removeprefix("fold_") for file in trained))
    return NnunetStanding(path=path, folds=folds, next=shell_line("segfw", "import-nnunet", path, "MODEL"))
