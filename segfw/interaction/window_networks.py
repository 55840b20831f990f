"""The networks of a refiner's folds, run on one window: the mean of their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from segfw.base.device import autocast
from segfw.images.geometry import Shape
from segfw.interaction.click_windows import Start, inside, within


@dataclass(frozen=True, kw_only=True)
class WindowNetworks:
    """Networks that take (1, C + 4, *patch_size) and answer (1, 2, *patch_size): not the structure, the structure."""

    networks: tuple[nn.Module, ...]
    patch_size: Shape
    device: torch.device
    precision: torch.dtype

    def odds(self, image_czyx: Tensor, start: Start, channels_czyx: np.ndarray) -> np.ndarray:
        """Log-odds (Z, Y, X), float32, that voxels are of the structure, in the part of a window inside the image.

        ``channels_czyx`` are those after the image's own, on the whole window.
        """
        found = self.odds_by_fold(image_czyx, start, channels_czyx)
        return np.asarray(np.mean(found, axis=0, dtype=np.float32))

    def odds_by_fold(self, image_czyx: Tensor, start: Start, channels_czyx: np.ndarray) -> Sequence[np.ndarray]:
        """The same of each fold by itself."""
        shape = image_czyx.shape[1:]
        block = inside(start, (shape[0], shape[1], shape[2]), self.patch_size)
        place = within(block, start)
        window = torch.zeros((1, len(image_czyx) + len(channels_czyx), *self.patch_size))
        window[0, : len(image_czyx)][(slice(None), *place)] = image_czyx[(slice(None), *block)].float()
        window[0, len(image_czyx) :] = torch.from_numpy(channels_czyx)
        window = window.to(self.device)
        found = []
        with torch.inference_mode(), autocast(self.device, self.precision):
            for network in self.networks:
                logits = network(window)[0].float()
                found.append(_on_host((logits[1] - logits[0])[place]))
        return found


def _on_host(odds_zyx: Tensor) -> np.ndarray:
    return odds_zyx.cpu().numpy()
