"""Tests of what only a card can tell, skipped where there is none; ``python -m bench gpu`` runs them where there is."""

from __future__ import annotations

import pytest
import torch

CARD = torch.device("cuda")
NEEDS_A_CARD = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device here")
