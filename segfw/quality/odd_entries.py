"""In words, by which entries of its fingerprint an image differs from the training images."""

# N images, F entries

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segfw.quality.image_fingerprint import (
    CENTRE,
    CORRELATION,
    EXTENT,
    GRADIENT,
    NOISE,
    PERCENTILE,
    ROUGHNESS,
    SPACING,
)

MOST_REASONS = 3
LEAST_Z = 2.0  # standard deviations; less is no reason
TEXTURE = (NOISE, ROUGHNESS, GRADIENT)  # noise raises all of them, and blur lowers them
LARGEST_TOGETHER = "its values are each usual by themselves, but not together"
LOWER_HIGHER = {
    NOISE: ("smoother", "noisier"),
    ROUGHNESS: ("more blurred", "rougher"),
    CENTRE: ("darker in its middle", "brighter in its middle"),
}


def odd_entries(names: Sequence[str], row_f: np.ndarray, rows_nf: np.ndarray, scales_f: np.ndarray) -> tuple[str, ...]:
    """Up to MOST_REASONS reasons, the worst first: 'noisier than any training image'.

    ``row_f`` are the image's entries, ``rows_nf`` those of the training images, ``scales_f`` standard deviations. Of
    entries that say much the same, as all percentiles do, the worst one speaks; but of what noise makes sharper and
    rougher it is the noise.
    """
    z_f = (row_f - rows_nf.mean(0)) / scales_f
    has_channels = any(name.endswith("/1") for name in names)
    said: set[str] = set()
    reasons: list[str] = []
    for index in np.argsort(-np.abs(z_f), kind="stable"):
        if len(reasons) == MOST_REASONS or abs(z_f[index]) < LEAST_Z:
            break
        whole_kind, _, channel = names[index].partition("/")
        kind = whole_kind.partition(" ")[0]
        group = ("texture" if kind in TEXTURE else kind) + ("+" if z_f[index] > 0 else "-")
        if group in said:
            continue
        said.add(group)
        told = int(index)
        if group == "texture+" and z_f[names.index(f"{NOISE}/{channel}")] >= LEAST_Z:
            told = names.index(f"{NOISE}/{channel}")
        reasons.append(_in_words(names[told], float(row_f[told]), rows_nf[:, told], has_channels=has_channels))
    return tuple(reasons) or (LARGEST_TOGETHER,)


def _in_words(name: str, value: float, training_n: np.ndarray, *, has_channels: bool) -> str:
    whole_kind, _, channel = name.partition("/")
    kind, _, rest = whole_kind.partition(" ")
    is_more = value > float(np.median(training_n))
    than = _than(value, training_n, is_more=is_more)
    before = f"channel {channel}: " if has_channels and channel and kind != CORRELATION else ""
    if kind in LOWER_HIGHER:
        return f"{before}{LOWER_HIGHER[kind][is_more]} than {than}"
    if kind == GRADIENT:
        return f"{before}{'sharper' if is_more else 'less sharp'} along {rest} than {than}"
    if kind == PERCENTILE:
        part = "dark parts" if float(rest) < 25 else "bright parts" if float(rest) > 75 else "middle greys"
        return f"{before}its {part} are {'brighter' if is_more else 'darker'} than those of {than}"
    if kind == CORRELATION:
        first, _, second = channel.partition("/")
        return f"channels {first} and {second} are {'more' if is_more else 'less'} alike than in {than}"
    if kind in (SPACING, EXTENT):
        low_mm, high_mm = np.exp([training_n.min(), training_n.max()])
        what = "voxels" if kind == SPACING else "field of view"
        are = "are" if kind == SPACING else "is"
        more = "larger" if is_more else "smaller"
        had = f"{low_mm:.3g}" if f"{low_mm:.3g}" == f"{high_mm:.3g}" else f"{low_mm:.3g} to {high_mm:.3g}"
        return f"its {what} {are} {more} along {rest} ({np.exp(value):.3g} mm) than in {than} (these: {had} mm)"
    return (
        f"{before}bright and dark parts lie otherwise than in {than}: turned, mirrored, inverted, or another part of "
        "the body?"
    )


def _than(value: float, training_n: np.ndarray, *, is_more: bool) -> str:
    """'any training image', or '97 % of the training images'."""
    exceeded = float(np.mean(training_n < value if is_more else training_n > value))
    return "any training image" if exceeded == 1 else f"{int(100 * exceeded)} % of the training images"
