"""``segfw doctor``: what is wrong with this machine."""

from __future__ import annotations

from segfw.base.command import Command


def doctor() -> str:
    """Versions, devices, memory and disk, and a remedy for each thing that is wrong; several lines of text."""
    from segfw.base.machine import describe_machine

    return describe_machine()


COMMAND = Command(
    function=doctor,
    what="Show versions, devices, memory and disk, and what to do about anything wrong.",
    example="segfw doctor",
)
