"""Which class or region wins at each voxel, given the logits of all."""

# K logits, A channels that they are made of, N voxels, Z Y X space

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segfw.grid.boxes import Block
from segfw.grid.expected_dice import LOWEST

VECTOR = 16  # float32 in a register of the processor
SURELY_ABOVE = 1e-3  # of logits: more than those of a few can differ from the same among all, by rounding


def first_largest(logits_kzyx: Tensor) -> Tensor:
    """Index of the largest of K at each voxel, int32, of equals the lowest; K where some are no number.

    As ``argmax``, which is ten times slower across the first axis on the CPU.
    """
    count = logits_kzyx.shape[0]
    ranks = torch.arange(count, 0, -1, dtype=torch.float32, device=logits_kzyx.device).view(-1, 1, 1, 1)
    largest = torch.empty(logits_kzyx.shape, dtype=torch.float32, device=logits_kzyx.device)
    torch.eq(logits_kzyx, logits_kzyx.amax(0), out=largest)  # as floats, for which the comparison is vectorised
    return (count - largest.mul_(ranks).amax(0)).int()


def last_above_zero(logits_kzyx: Tensor) -> Tensor:
    """Index of the last of K that is above 0 at each voxel, int32; K where none is."""
    count = logits_kzyx.shape[0]
    ranks = torch.arange(1, count + 1, dtype=torch.float32, device=logits_kzyx.device).view(-1, 1, 1, 1)
    last = ((logits_kzyx > 0) * ranks).amax(0).int()
    return torch.where(last == 0, count, last - 1)


class Winners:
    """Index of the winner at each voxel, of K logits or of what they are made of; K where there is none.

    ``last_layer`` is (K, A) weights and (K,) biases, None where channels are logits. Without ``of_regions`` the largest
    logit wins, with it the last one above 0. Only ``rows`` voxels' logits exist at a time, in one buffer.

    On the CPU NumPy finds them; ``on_device`` they stay where the logits lie, in the smallest type that holds K.
    """

    def __init__(
        self,
        last_layer: tuple[Tensor, Tensor] | None,
        count: int,
        *,
        of_regions: bool,
        rows: int,
        on_device: bool = False,
    ) -> None:
        self._count = count
        self._on_device = on_device
        self._of_regions = of_regions
        self._rows = rows
        self._buffer: Tensor | None = None
        self._last_layer: tuple[Tensor, Tensor] | None = None
        if last_layer is not None:
            weights_ka, bias_k = last_layer
            # Whole registers of classes, which is faster by a third; those added never win.
            added = -len(bias_k) % VECTOR
            weights_ak = F.pad(weights_ka, (0, 0, 0, added)).T.contiguous()
            self._last_layer = weights_ak, F.pad(bias_k, (0, added), value=-torch.inf)

    def __call__(self, channels_zyxa: Tensor) -> np.ndarray | Tensor:
        """(Z, Y, X) integers of channels (Z, Y, X, A): an array, or on a device a tensor."""
        return self._tensor(channels_zyxa) if self._on_device else self._array(channels_zyxa)

    def put(self, result: np.ndarray | Tensor, place: Block, channels_zyxa: Tensor) -> None:
        """Writes what a call gives into a part of a result of ``empty_like``."""
        if isinstance(result, Tensor):
            result[place] = self._tensor(channels_zyxa)
        else:
            result[place] = self._array(channels_zyxa)

    def _array(self, channels_zyxa: Tensor) -> np.ndarray:
        parts = channels_zyxa.flatten(0, 2).split(self._rows)
        return np.concatenate([self._of_voxels(rows) for rows in parts]).reshape(channels_zyxa.shape[:3])

    def _tensor(self, channels_zyxa: Tensor) -> Tensor:
        parts = channels_zyxa.flatten(0, 2).split(self._rows)
        return torch.cat([self._on_their_device(rows) for rows in parts]).view(channels_zyxa.shape[:3])

    def empty_like(self, channels_zyxa: Tensor, shape: Sequence[int]) -> np.ndarray | Tensor:
        """Room for the winners of voxels of ``shape``, of the kind that a call gives of the channels."""
        if self._on_device:
            return torch.empty(tuple(shape), dtype=self._dtype, device=channels_zyxa.device)
        return np.empty(tuple(shape), np.int64)

    @property
    def _dtype(self) -> torch.dtype:
        return torch.uint8 if self._count < 256 else torch.int16

    def put_few(
        self,
        result: np.ndarray | Tensor,
        place: Block,
        channels_zyxa: Tensor,
        outputs: Sequence[int],
        rivals: Sequence[int],
    ) -> None:
        """As ``put``, but 0 wherever one of ``rivals`` is surely above all of ``outputs``, which few logits show."""
        found = []
        for channels_na in channels_zyxa.flatten(0, 2).split(self._rows):
            logits_nk = self._few_logits(channels_na, [*rivals, *outputs])
            lead_n = logits_nk[:, : len(rivals)].amax(1) - logits_nk[:, len(rivals) :].amax(1)
            is_near_n = ~(lead_n > SURELY_ABOVE)  # also what is no number
            winners_n = torch.zeros(len(channels_na), dtype=torch.int64, device=channels_na.device)
            if is_near_n.any():
                near_na = channels_na[is_near_n]
                near_n = (
                    self._on_their_device(near_na) if self._on_device else torch.from_numpy(self._of_voxels(near_na))
                )
                winners_n[is_near_n] = near_n.long()
            found.append(winners_n)
        winners_zyx = torch.cat(found).view(channels_zyxa.shape[:3])
        if isinstance(result, Tensor):
            result[place] = winners_zyx.to(result.dtype)
        else:
            result[place] = winners_zyx.numpy()

    def _few_logits(self, channels_na: Tensor, chosen: Sequence[int]) -> Tensor:
        if self._last_layer is None:
            return channels_na[:, list(chosen)]
        weights_ak, bias_k = self._last_layer
        return torch.addmm(bias_k[list(chosen)], channels_na, weights_ak[:, list(chosen)])

    def log_odds(self, channels_zyxa: Tensor, outputs: Sequence[int]) -> Tensor:
        """Log-odds log p / (1 - p) (S, Z, Y, X) of some outputs, of channels (Z, Y, X, A)."""
        found = []
        for channels_na in channels_zyxa.flatten(0, 2).split(self._rows):
            logits_nk = self._logits(channels_na)
            chosen_ns = logits_nk[:, list(outputs)]
            if not self._of_regions:
                log_p_ns = chosen_ns - logits_nk.logsumexp(1, keepdim=True)
                chosen_ns = log_p_ns - torch.log1p(-log_p_ns.exp().clamp(max=1))
            found.append(chosen_ns.T)
        return torch.cat(found, 1).unflatten(1, channels_zyxa.shape[:3])

    def is_nothing_near(self, channels_zyxa: Tensor, outputs: Sequence[int]) -> np.ndarray:
        """Where none of ``outputs`` is likelier than LOWEST, (Z, Y, X) bool, nor is in between such voxels.

        Log-odds of background are a concave function of the logits: those of an interpolated voxel are not below all of
        those that it is made from. Of regions they are the logits.
        """
        if self._of_regions:
            return (self.log_odds(channels_zyxa, outputs) < LOWEST).all(0).cpu().numpy()
        return (self.log_odds(channels_zyxa, (0,))[0] > -LOWEST).cpu().numpy()

    def _of_voxels(self, channels_na: Tensor) -> np.ndarray:
        logits_nk = self._logits(channels_na)
        if self._of_regions:
            logits_kn = logits_nk[:, : self._count].T
            return last_above_zero(logits_kn[:, :, None, None]).flatten().numpy()
        # By NumPy, whose argmax along the last axis is vectorised. It finds what is no number first.
        logits = logits_nk.numpy()
        winners = logits.argmax(1)
        if not channels_na.sum().isfinite():  # seldom, and then worth a look at each voxel
            is_no_number = np.isnan(logits[np.arange(len(winners)), winners])
            winners[is_no_number] = self._count
        return winners

    def _on_their_device(self, channels_na: Tensor) -> Tensor:
        logits_nk = self._logits(channels_na)
        if self._of_regions:
            return last_above_zero(logits_nk[:, : self._count].T[:, :, None, None]).flatten().to(self._dtype)
        best, winner = logits_nk.max(1)
        return winner.masked_fill_(best.isnan(), self._count).to(self._dtype)

    def _logits(self, channels_na: Tensor) -> Tensor:
        if self._last_layer is None:
            return channels_na
        weights_ak, bias_k = self._last_layer
        if self._buffer is None:
            self._buffer = channels_na.new_empty(self._rows, len(bias_k))
        return torch.addmm(bias_k, channels_na, weights_ak, out=self._buffer[: len(channels_na)])
