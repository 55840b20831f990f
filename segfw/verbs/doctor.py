"""``segfw doctor``: what is wrong with this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segfw.base.command import Command

if TYPE_CHECKING:
    from segfw.base.machine import Machine


def doctor() -> Machine:
    """Versions, devices, memory and disk, and a remedy for each thing that is wrong."""
    from segfw.base.machine import describe_machine

    return describe_machine()


COMMAND = Command(
    function=doctor,
    what="Show versions, devices, memory and disk, and what to do about anything wrong.",
    example="segfw doctor",
    gives_json=True,
)
