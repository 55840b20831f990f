"""What the shape of a patch allows: how far it is turned, by augmentation and therefore by what mirroring may do.

Limits as in nnU-Net v2 (Isensee et al. 2021, supplement).
"""

from __future__ import annotations

from math import pi

from segfw.images.geometry import Shape

ANISOTROPIC_PATCH = 3.0  # a patch this much shorter along its first axis is rotated and scaled in plane only
LONG_SLICE = 1.5  # a slice this much longer than wide, turned far, would mostly show what lies outside of it


def is_in_plane(patch_size: Shape) -> bool:
    """True if the patch is so flat that rotating it out of its plane would tear it apart."""
    return max(patch_size) / patch_size[0] > ANISOTROPIC_PATCH


def is_long_slice(patch_size: Shape) -> bool:
    """True for a single slice that is far longer along one axis than along the other."""
    return patch_size[0] == 1 and max(patch_size[1:]) / min(patch_size[1:]) > LONG_SLICE


def largest_angle(patch_size: Shape) -> float:
    """Rotation about each axis in radians is drawn up to this."""
    if is_long_slice(patch_size):
        return pi / 12
    return pi if is_in_plane(patch_size) else pi / 6


def is_turned_round(patch_size: Shape) -> bool:
    """True if the augmentation turns such a patch by up to half a turn in its plane."""
    return largest_angle(patch_size) > pi / 2
