"""A model that is loaded when it is first asked for; a server without one runs without PyTorch."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segfw.base.records import UserError
from segfw.images.formats import write_labels
from segfw.images.geometry import Geometry
from segfw.images.values import count_values
from segfw.model.labels_of_path import labels_at
from segfw.monailabel.label_desk import ServedFile, Unknown
from segfw.monailabel.sent_labels import label_names

if TYPE_CHECKING:
    from segfw.inference.predictor import Predictor

ENDINGS = (".nii.gz", ".nii", ".nrrd")


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """A mask as a file, and the labels that it holds by their values."""

    file: ServedFile
    label_names: dict[str, int]


class ModelOnDemand:
    """One model, by the name of its folder or file. One image is predicted at a time."""

    def __init__(self, path: Path, device: str) -> None:
        self.path = path
        self.labels = labels_at(path)
        self.name = served_name(path)
        self._device = device
        self._predictor: Predictor | None = None
        self._alone = threading.Lock()

    @property
    def about(self) -> dict[str, Any]:
        """What the plug-ins show of it."""
        return {
            "type": "segmentation",
            "labels": {name: self.labels.values[index] for name, index in self.labels.foreground.items()},
            "dimension": 3,
            "description": f"segfw model {self.name}",
            "config": {},
        }

    def predict(self, name: str, images: Sequence[Path], params: dict[str, Any], folder: Path) -> Predicted:
        """The mask of an image, one file a channel, in ``folder``; in the format that ``params`` ask for.

        Raises Unknown for another model, and UserError for an image that the model cannot take.
        """
        if name != self.name:
            raise Unknown(f"{name!r} is no model here; there is {self.name}")
        result_ending(params)
        with self._alone:
            mask = self._loaded()([str(path) for path in images])
        served = result_file(mask.array[0], mask.geometry, params, folder, self.name)
        return Predicted(file=served, label_names=label_names(list(count_values(mask.array[0])), self.labels))

    def _loaded(self) -> Predictor:
        if self._predictor is None:
            from segfw.inference.predictor import Predictor
            from segfw.model.load import load_model

            self._predictor = Predictor.of(load_model(self.path), device=self._device)
        return self._predictor


def served_name(path: Path) -> str:
    """What a model is called; the plug-ins write names into addresses in a way that only these letters survive."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", path.resolve().name.removesuffix(".zip")) or "segfw"


def result_ending(params: Mapping[str, Any]) -> str:
    """The format that a plug-in asks for; UserError for others than ENDINGS."""
    ending = str(params.get("result_extension") or ENDINGS[0])
    if ending not in ENDINGS:
        raise UserError(f"result_extension is {ending!r}; choose one of {', '.join(ENDINGS)}")
    return ending


def result_file(
    values_zyx: np.ndarray, geometry: Geometry, params: Mapping[str, Any], folder: Path, name: str
) -> ServedFile:
    """A mask as a file in ``folder``, in the format that ``params`` ask for."""
    ending = result_ending(params)
    path = folder / f"mask{ending}"
    write_labels(path, values_zyx, geometry)
    if ending == ".nrrd" and params.get("result_compress") is False:
        path = _uncompressed(path)
    return ServedFile(path=path, name=f"{name}{ending}")


def _uncompressed(path: Path) -> Path:
    """The same NRRD as plain bytes, as OHIF reads it."""
    import SimpleITK

    plain = path.with_name(f"plain_{path.name}")
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(plain), useCompression=False)
    return plain
