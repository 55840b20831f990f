"""What is read of records that others write, where the rest of them does not matter here."""

from __future__ import annotations

from pydantic import ConfigDict, JsonValue

from segfw.base.records import Record
from segfw.dataset.cases import Channel
from segfw.dataset.labels import LabelSet


class Facts(Record):
    """A part of a record: keys that are not named are passed over."""

    model_config = ConfigDict(extra="ignore")


class ConfigurationFacts(Facts):
    """Of a configuration in plan.json."""

    name: str
    patch_size: tuple[int, int, int]
    batch_size: int
    previous_stage: str | None = None
    is_refiner: bool = False
    network: dict[str, JsonValue] = {}


class PlanFacts(Facts):
    """Of plan.json, whose whole record knows networks and therefore PyTorch."""

    dataset: str
    preset: str
    training_cases: int
    channels: tuple[Channel, ...]
    labels: LabelSet
    configurations: dict[str, ConfigurationFacts]
    is_imported: bool = False
    planned_time_s: float | None = None
    chosen: str = ""

    @property
    def channel_names(self) -> tuple[str, ...]:
        """In the order of the files."""
        return tuple(channel.name for channel in self.channels)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Of all but the background."""
        return tuple(self.labels.structures)
