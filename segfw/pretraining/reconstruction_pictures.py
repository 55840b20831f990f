"""Pictures of what a pretrained network makes of hidden voxels: what was there, what it saw, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from segfw.base.files import whole_file
from segfw.grid.store import open_case
from segfw.images.geometry import Shape, as_shape
from segfw.pretraining.reconstruction import hide_blocks
from segfw.training.batches import OUTSIDE, cut_padded

MOST_SHOWN = 6  # patches


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """A slice (Y, X) of one image's first channel: as it was, as the network saw it, and with its hidden voxels said.

    ``explained`` is of all hidden voxels of the patch.
    """

    case_id: str
    original: np.ndarray
    shown: np.ndarray
    said: np.ndarray
    explained: float


@torch.no_grad()
def reconstruct(
    network: nn.Module, folder: Path, case_ids: Sequence[str], patch_size: Shape, downsampling: Shape
) -> list[Reconstruction]:
    """The patch in the middle of some images, spread evenly over ``case_ids``, each with its own hidden blocks."""
    network.eval()
    device = next(network.parameters()).device
    number = min(MOST_SHOWN, len(case_ids))
    found = []
    for seed, index in enumerate(place * len(case_ids) // number for place in range(number)):
        case = open_case(folder, case_ids[index])
        start = as_shape((size - edge) // 2 for size, edge in zip(case.image.shape[1:], patch_size))
        image = cut_padded(case.image, start, patch_size)[None].float().to(device)
        inside = (cut_padded(case.classes, start, patch_size, OUTSIDE) >= 0)[None].to(device)
        shown, truth = hide_blocks(image, inside, [seed], downsampling)
        hidden = truth[:, -1:]
        said = torch.where(hidden > 0, network(shown).float(), image)
        error = ((said - image) * hidden).square().sum()
        energy = (image * hidden).square().sum()
        middle = patch_size[0] // 2
        slices = [each[0, 0, middle].cpu().numpy() for each in (image, shown, said)]
        found.append(
            Reconstruction(
                case_id=case_ids[index],
                original=slices[0],
                shown=slices[1],
                said=slices[2],
                explained=float(1 - error / energy) if energy > 0 else 0.0,
            )
        )
    return found


def write_pictures(path: Path, found: Sequence[Reconstruction]) -> None:
    """One PNG: a row a patch, on the grey values of the original."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 2.5 * len(found)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(found), 3, squeeze=False)
    for row, each in zip(axes, found):
        low, high = np.percentile(each.original, (1, 99)).tolist()
        titles = (each.case_id, "blocks hidden", f"{each.explained:.0%} explained")
        for ax, picture, title in zip(row, (each.original, each.shown, each.said), titles):
            ax.imshow(picture[::-1, ::-1], cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
            ax.set_title(title, fontsize=9)
            ax.set_axis_off()
    with whole_file(path) as partial:
        figure.savefig(partial, format="png")
