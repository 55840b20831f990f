"""Published checkpoints of residual encoders, such as self-supervised ones, as the start of a training.

What they call their weights is nnU-Net's names (``layer_names``), with or without the first word. Whatever has our
network's name there and fits its shape is taken; heads are not. Nothing that a checkpoint holds is run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from segfw.base.files import file_sha256
from segfw.base.records import UserError
from segfw.model.training_record import StartFacts
from segfw.networks.spec import RESIDUAL_ENCODER, NetworkSpec
from segfw.networks.transfer import transfer
from segfw.nnunet.layer_names import PARTS, layer_names, without_wrappers
from segfw.nnunet.torch_checkpoint import is_dense, read_data

HOLDERS = ("network_weights", "state_dict", "model")  # under which checkpoints keep their weights
ENCODER = "encoder."  # which releases of an encoder alone leave out
LICENCE = re.compile(r"^license:\s*(\S[^\n]*)$", re.MULTILINE)  # in the head of a README.md, as model hubs have it
LONGEST_LICENCE = 80


def published_start(path: Path, spec: NetworkSpec) -> tuple[Callable[[nn.Module], None], StartFacts]:
    """What changes a new network's weights, and what is written down of it; UserError if it is of no use."""
    if not path.is_file():
        raise UserError(f"--init-from {path}: no such file")
    if spec.architecture != RESIDUAL_ENCODER:
        raise UserError(
            f"--init-from {path}: published checkpoints are read into a {RESIDUAL_ENCODER}, but here is a "
            f"{spec.architecture}; plan with --preset resenc-l"
        )
    weights = published_weights(read_data(path), spec, path)
    digest = file_sha256(path)
    facts = StartFacts(name=path.name, sha256=digest, kind="published", licence=licence_beside(path))

    def start(network: nn.Module) -> None:
        taken = transfer(network, weights)
        print(f"starting from {path}: {taken.sentence()}")
        if taken.details():
            print(taken.details())
        print(f"its licence is {facts.licence or 'not stated in a README.md beside it: look where it was published'}")

    return start, facts


def published_weights(found: object, spec: NetworkSpec, path: Path) -> dict[str, Tensor]:
    """Our weights, float32, of a checkpoint's, as far as it has them; UserError if it has none of the encoder's."""
    state: object = found
    if isinstance(found, Mapping):
        state = next((found[name] for name in HOLDERS if isinstance(found.get(name), Mapping)), found)
    tensors = {name: each for name, each in state.items() if is_dense(each)} if isinstance(state, Mapping) else {}
    plain = without_wrappers(tensors, str(path))
    weights = {}
    for ours, theirs in layer_names(spec).items():
        if ours.startswith("heads."):
            continue
        for part in PARTS:
            names = [f"{each}.{part}" for each in theirs]
            names += [name.removeprefix(ENCODER) for name in names if name.startswith(ENCODER)]
            tensor = next((plain[name] for name in names if name in plain), None)
            if tensor is not None:
                weights[f"{ours}.{part}"] = tensor.float().contiguous()
    if not any(name.startswith(ENCODER) for name in weights):
        there = ", ".join(list(plain)[:2]) or "nothing"
        raise UserError(
            f"--init-from {path}: holds no weights of a residual encoder of nnU-Net's names (there is {there}); give "
            "another checkpoint"
        )
    broken = next((name for name, tensor in weights.items() if not tensor.isfinite().all()), None)
    if broken is not None:
        raise UserError(f"--init-from {path}: {broken} holds NaN or infinity; take another checkpoint")
    return weights


def licence_beside(path: Path) -> str | None:
    """The licence that the README.md of a model hub beside a file states in its head; None without one."""
    readme = path.with_name("README.md")
    if not readme.is_file():
        return None
    head = readme.read_text(encoding="utf-8", errors="replace")[:4000]
    if not head.startswith("---"):
        return None
    found = LICENCE.search(head.split("\n---", 1)[0])
    return found[1].strip()[:LONGEST_LICENCE] if found else None
