"""Lengths of time: as they are typed, and as they are said."""

from __future__ import annotations

import argparse
import re

MINUTE_S = 60
HOUR_S = 3600


def duration_s(text: str) -> float:
    """Seconds of '90s', '12m', '1h30m' or '2h'."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip())
    if not text.strip() or not match or not any(match.groups()):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write for example 90s, 12m, 2h or 1h30m")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    total = hours * HOUR_S + minutes * MINUTE_S + seconds
    if total <= 0:
        raise argparse.ArgumentTypeError("the duration must be longer than nothing")
    return total


def typed_duration(seconds: float) -> str:
    """'1h30m' of 5400 seconds, as ``duration_s`` reads it."""
    minutes, rest_s = divmod(seconds, MINUTE_S)
    hours, minutes = divmod(int(minutes), 60)
    parts = (f"{hours}h" if hours else "", f"{minutes}m" if minutes else "", f"{rest_s:.6g}s" if rest_s else "")
    return "".join(parts)


def duration_text(seconds: float) -> str:
    """'40 s', '2.5 min', '25 min', '3.2 h', '119 h (5 days)', for a reader."""
    if seconds < 1.5 * MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < 9.95 * MINUTE_S:
        return f"{seconds / MINUTE_S:.1f}".removesuffix(".0") + " min"
    if seconds < 1.5 * HOUR_S:
        return f"{seconds / MINUTE_S:.0f} min"
    hours = seconds / HOUR_S
    if hours < 10:
        return f"{hours:.1f} h"
    return f"{hours:,.0f} h" + (f" ({hours / 24:,.0f} days)" if hours >= 48 else "")
