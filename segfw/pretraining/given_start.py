"""The weights that a training is asked to begin with: of segfw, trained or pretrained, or as others publish them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from segfw.model.pretraining_record import PretrainingRecord, read_pretraining
from segfw.model.training_record import StartFacts
from segfw.networks import BuildNetwork, build_network
from segfw.nnunet.published_encoder import published_start
from segfw.planning.plan import Configuration
from segfw.training.initial_weights import (
    find_start,
    is_foreign,
    require_same_architecture,
    require_some_fit,
    start_facts,
    start_from,
)


@dataclass(frozen=True, kw_only=True)
class GivenStart:
    """Weights to begin with. ``begin`` gives them to a new network and says which it has taken.

    ``folder`` is where they lie and ``pretraining`` the record there, of weights that segfw pretrained. ``facts`` are
    what a run writes down of them.
    """

    path: Path
    folder: Path
    begin: Callable[[nn.Module], None]
    facts: StartFacts | None
    pretraining: PretrainingRecord | None
    is_published: bool = False

    @property
    def is_gentle(self) -> bool:
        """Whether a training from it warms up for longer and trains the encoder more slowly."""
        return self.is_published or self.pretraining is not None


def given_start(path: Path, configuration: Configuration, fold: str, build: BuildNetwork = build_network) -> GivenStart:
    """What ``path`` means for a fold of a configuration; UserError if there are no weights of use for its network.

    ``build`` makes the network, where it is one of one's own.
    """
    if is_foreign(path):
        begin, facts = published_start(path, configuration.network)
        return GivenStart(path=path, folder=path.parent, begin=begin, facts=facts, pretraining=None, is_published=True)
    file = find_start(path, configuration.name, fold)
    require_same_architecture(path, file, configuration)
    require_some_fit(file, configuration.network, build)
    record = read_pretraining(file.parent)
    return GivenStart(
        path=path,
        folder=file.parent,
        begin=start_from(path, configuration.name, fold),
        facts=start_facts(file, "trained" if record is None else "pretrained"),
        pretraining=record,
    )
