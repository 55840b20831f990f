"""In which orders of axes images are stored, for models that take them so; told once, from headers alone.

nnU-Net's common readers take arrays as files store them. A model that was trained on one order sees the same patient
mirrored or turned in another, and may give a poor mask without a word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from segfw.base.records import UserError
from segfw.base.words import count
from segfw.dataset.cases import Case
from segfw.images.geometry import axis_order
from segfw.images.header_only import volume_of_header
from segfw.images.volume import AS_STORED, Orientation


def axis_orders(cases: Sequence[Case]) -> Counter[str]:
    """How many cases have their first image stored in which order of axes ('LPS'), as far as headers tell it."""
    found: Counter[str] = Counter()
    for case in cases:
        try:
            volume = volume_of_header(case.images[0])
        except UserError:  # which is told when the case is read
            continue
        if volume is not None:
            found[axis_order(volume.geometry)] += 1
    return found


def axis_order_note(cases: Sequence[Case], orientation: Orientation) -> str:
    """A line on the orders that are met, of a model that takes images as they are stored; '' of all others."""
    found = axis_orders(cases) if orientation == AS_STORED else Counter()
    if not found:
        return ""
    orders = ", ".join(f"{order} ({count(number, 'image')})" for order, number in sorted(found.items()))
    takes = "this model takes axes as they are stored, as nnU-Net does"
    if len(found) == 1:
        return f"note: {takes}; they point to {orders}: were those of its training images stored so?"
    return (
        f"warning: {takes}, and these images are stored in different orders, {orders}: it sees some of them mirrored "
        "or turned, and may give poor masks without a word; store all images as those of its training, or import it "
        "again with segfw import-nnunet --trained-on AXES, which turns them"
    )
