"""A small 3-D data set that looks like abdominal MR, in nnU-Net v2 raw layout, from a seed; for the demo and tests.

The anatomy is a set of signed distances in patient millimetres (RAS), evaluated at smoothly displaced positions, so
edges stay crisp at any spacing, orientation or tilt of the voxel grid. The scanner (blur, coil shading, ghost, noise)
comes after. Unlike the rest of segfw, arrays here are (x, y, z): nibabel's order, and only nibabel sees them.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from segfw.base.files import is_empty, write_text

Array = np.ndarray
Rng = np.random.Generator

# Values are not consecutive on purpose: whoever reads them as class indices must fail here.
LABELS = {"background": 0, "liver": 1, "kidneys": 2, "lesion": 5, "aorta": 7}
SMALLEST_VOXELS = {1: 600, 2: 150, 5: 50, 7: 80}


@dataclass(frozen=True, kw_only=True)
class Tissue:
    """How a structure shows: its signal (fat is about 0.9), relative mottling of one grain size, and its label."""

    signal: float
    mottle: float = 0.06
    grain_mm: float = 2.0
    label: int = 0


# Signals overlap between labelled and unlabelled structures on purpose: place and shape must tell them apart.
TISSUES = {
    "subcutaneous fat": Tissue(signal=0.95, mottle=0.05, grain_mm=4),
    "muscle": Tissue(signal=0.27, mottle=0.12, grain_mm=1.5),
    "cortical bone": Tissue(signal=0.13),
    "visceral fat": Tissue(signal=0.96, mottle=0.06, grain_mm=3),
    "wall": Tissue(signal=0.38, mottle=0.10),
    "bowel content": Tissue(signal=0.34, mottle=0.18, grain_mm=5),
    "pancreas": Tissue(signal=0.4, mottle=0.12, grain_mm=2),
    "stomach content": Tissue(signal=0.44, mottle=0.20, grain_mm=3),
    "gas": Tissue(signal=0.05, mottle=0.3),
    "spleen": Tissue(signal=0.4, mottle=0.05),
    "liver": Tissue(signal=0.5, mottle=0.04, label=1),
    "liver vessels": Tissue(signal=0.6, label=1),
    "gallbladder": Tissue(signal=0.95, mottle=0.03),
    "lesion": Tissue(signal=0.75, mottle=0.06, grain_mm=2.5, label=5),
    "lesion core": Tissue(signal=0.85, mottle=0.08, grain_mm=2.5, label=5),
    "kidney cortex": Tissue(signal=0.66, label=2),
    "kidney medulla": Tissue(signal=0.6, mottle=0.06, label=2),
    "marrow": Tissue(signal=0.46, mottle=0.10, grain_mm=2),
    "disc": Tissue(signal=0.28),
    "cerebrospinal fluid": Tissue(signal=0.95, mottle=0.02),
    "vena cava": Tissue(signal=0.25, mottle=0.05),
    "aorta": Tissue(signal=0.16, mottle=0.05, label=7),
}


def smooth_noise(rng: Rng, points: Array, wavelength_mm: float, count: int = 10) -> Array:
    """A random function of position with unit variance: a sum of waves, so it has a value off the voxels too."""
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    waves = directions * (2 * np.pi / wavelength_mm) * rng.uniform(0.6, 1.4, (count, 1))
    total = np.zeros(points.shape[1:])
    for (kx, ky, kz), phase in zip(waves, rng.uniform(0, 2 * np.pi, count)):
        total += np.sin(kx * points[0] + ky * points[1] + kz * points[2] + phase)
    return total * np.sqrt(2 / count)


def ellipsoid(points: Array, centre: ArrayLike, radii_mm: ArrayLike) -> Array:
    """Signed distance to an ellipsoid, negative inside, to first order (Quilez); an infinite radius makes a tube."""
    radii = np.reshape(np.asarray(radii_mm), (3, 1, 1, 1))
    scaled = (points - np.reshape(np.asarray(centre), (3, 1, 1, 1))) / radii
    level = np.sqrt((scaled**2).sum(0) + 1e-12)
    slope = np.sqrt(((scaled / radii) ** 2).sum(0) + 1e-12)
    return level * (level - 1) / slope


def largest(*distances: Array) -> Array:
    """Intersection: inside all of them."""
    return np.maximum.reduce(distances)


class Sketch:
    """Positions of one patient after a smooth random push, and a pen that draws a little off the atlas each time."""

    def __init__(self, rng: Rng, points: Array) -> None:
        self.rng = rng
        # Some 3 mm over the whole body, and half a millimetre of local bumps.
        slow = [smooth_noise(rng, points, 110) for _ in range(3)]
        bumpy = [smooth_noise(rng, points, 30) for _ in range(3)]
        self.points = points + rng.uniform(1.5, 3.0) * np.stack(slow) + 0.5 * np.stack(bumpy)
        self.x, self.y, self.z = self.points

    def blob(self, centre: ArrayLike, radii_mm: ArrayLike, lean: float = 0.0) -> Array:
        """An ellipsoid; ``lean`` moves it towards +x per millimetre of height, which tilts it."""
        moved = np.add(centre, self.rng.normal(0, 1.2, 3))
        scaled_mm = np.multiply(radii_mm, np.clip(self.rng.normal(1, 0.07, 3), 0.85, 1.15))
        upright = np.stack([self.x - lean * (self.z - moved[2]), self.y, self.z])
        return ellipsoid(upright, moved, scaled_mm)

    def tubes(self, spread_mm: float, radius_mm: float) -> Array:
        """Winding tubes about ``spread_mm`` apart: where two random functions vanish together they leave a curve."""
        first = smooth_noise(self.rng, self.points, spread_mm, count=14)
        second = smooth_noise(self.rng, self.points, spread_mm, count=14)
        return np.hypot(first, second) * spread_mm / 7 - radius_mm


# Each part below adds (tissue name, signed distance in mm) in painting order; later structures cover earlier ones.
Layers = list[tuple[str, Array]]


def wall_layers(s: Sketch, cavity: Array) -> Layers:
    """Skin to abdominal wall: fat rim, muscle with slanting ribs, and the fat that fills the cavity."""
    muscle = ellipsoid(s.points, (0, -1, 0), (s.rng.uniform(40, 43), s.rng.uniform(29, 31.5), np.inf))
    skin = ellipsoid(s.points, (0, -0.5, 0), (46.5, s.rng.uniform(34, 36), np.inf))
    ribs_z = np.abs((s.z + 0.5 * s.y + s.rng.uniform(0, 16)) % 16 - 8) - 3
    rib = largest(ribs_z, np.abs(muscle + 2.2) - 1.6, -12 - s.z, 7 - np.abs(s.x))
    outer = [("subcutaneous fat", skin), ("muscle", muscle), ("cortical bone", rib), ("marrow", rib + 1.2)]
    return [*outer, ("visceral fat", cavity)]


def gut_layers(s: Sketch, cavity: Array) -> Layers:
    """Unlabelled soft organs that look much like the labelled ones."""
    belly = largest(cavity + 1, -6 - s.y, s.z - 6)
    loops = largest(s.tubes(34, 6.0), belly)
    stomach = largest(s.blob((-19, 9, 9), (13, 13, 18), lean=-0.2), cavity + 1)
    # The patient lies on the back, so gas gathers under the front wall with a level surface.
    level = s.rng.uniform(11, 17) - s.y
    bend = 0.004 * (s.x**2) - 0.12 * s.x
    pancreas = ellipsoid(np.stack([s.x, s.y - 2 + bend, s.z - 0.25 * np.abs(s.x)]), (-5, 0, -1), (20, 4.5, 5.5))
    pockets = largest(loops + 2, 13 - s.y + 4 * smooth_noise(s.rng, s.points, 40))
    bowel = [("wall", loops), ("bowel content", loops + 1.6), ("gas", pockets)]
    filling = [("wall", stomach), ("stomach content", stomach + 1.6), ("gas", largest(stomach + 1.6, level))]
    spleen = largest(s.blob((-29, -8, 12), (8, 12, 15)), cavity + 0.8)
    return [*bowel, ("pancreas", largest(pancreas, cavity + 1)), *filling, ("spleen", spleen)]


def liver_layers(s: Sketch, cavity: Array, diaphragm: Array) -> Layers:
    """A wedge under the diaphragm: big right lobe, left lobe across the midline, thin lower edge, bright vessels."""
    right = s.blob((17, 2, 8), (22, 24, 28))
    left = s.blob((-1, 14, 13), (18, 10, 15))
    lobes = -2 * np.logaddexp(-right / 2, -left / 2)  # a union with a fillet where the lobes meet
    underside = 0.8 * (s.rng.normal(-13, 2) - s.z + 0.75 * (12 - s.x) - 0.25 * s.y)
    liver = largest(lobes, underside, cavity + 1, diaphragm + 1.5)
    return [("liver", liver), ("liver vessels", largest(s.tubes(26, 1.6), liver + 3))]


def lesion_layers(s: Sketch, liver: Array, kidneys: Array) -> Layers:
    """One or two tumours seated in the liver; they may bulge out of it, and the larger ones have a dark core."""
    whole = np.full(liver.shape, np.inf)
    core = np.full(liver.shape, np.inf)
    for radius in s.rng.uniform(11, 14, s.rng.integers(1, 3)):
        # Away from what is painted later (kidneys, great vessels, spine), which would cut the tumour to pieces.
        free = np.minimum(kidneys, np.hypot(s.x - 2, s.y + 10) - 13) > 0.5 * radius
        seats = np.argwhere((liver < -0.5 * radius) & free & (np.abs(s.z - 6) < 16))
        seat = s.points[(slice(None), *s.rng.choice(seats))]
        lumps = 0.6 * smooth_noise(s.rng, s.points, 16)
        tumour = ellipsoid(s.points, seat, radius * s.rng.uniform(0.85, 1.15, 3)) + lumps
        whole = np.minimum(whole, largest(tumour, liver - 2.5))
        if radius > 9:
            core = np.minimum(core, tumour + 0.5 * radius)
    return [("lesion", whole), ("lesion core", core)]


def kidney_layers(s: Sketch) -> tuple[Layers, Array]:
    """Two beans in their own fat, with a hilum towards the spine and dark pyramids; also the distance to both."""
    layers: Layers = []
    beans = []
    for side, height in ((1, -13), (-1, -7)):
        centre = np.array((side * 23.5, -11, height)) + s.rng.normal(0, 1, 3)
        bean = s.blob(centre, (10.5, 9.5, 18), lean=-0.18 * side)
        hilum = ellipsoid(s.points, centre + (-side * 8.5, 3, 0), (5, 3.5, 6))
        rays = np.cos((s.z - height) * 2 * np.pi / 11) + np.cos(3 * np.arctan2(s.y - centre[1], s.x - centre[0]))
        medulla = largest(bean + 2.2, 1.6 - hilum, -0.4 - rays)
        layers += [("visceral fat", bean - 2), ("kidney cortex", largest(bean, -hilum)), ("kidney medulla", medulla)]
        beans.append(bean)
    return layers, np.minimum(*beans)


def midline_layers(s: Sketch) -> Layers:
    """Back muscles, spine with discs and canal, and the two great vessels, of which only the aorta is labelled."""
    back = [s.blob((side * 9.5, -26.5, 0), (9, 5.5, np.inf)) for side in (1, -1)]
    psoas = [s.blob((side * 11.5, -15.5, -30), (5.5, 6, 34)) for side in (1, -1)]
    vertebra = s.blob((0, -16, 0), (8.5, 7, np.inf))
    disc = largest(vertebra - 0.5, np.abs((s.z + s.rng.uniform(0, 17)) % 17 - 8.5) - 2.6)
    canal = s.blob((0, -25.5, 0), (3.6, 3, np.inf))
    aorta_x = s.x + s.rng.uniform(3, 5) + s.rng.uniform(-2, 2) * np.sin(s.z / 20)
    aorta = np.hypot(aorta_x, s.y + 4.5 + 0.05 * s.z) - s.rng.uniform(4.7, 5.5)
    cava_x = (s.x - s.rng.uniform(6.5, 8) - 0.03 * s.z) / 1.25
    cava = np.hypot(cava_x, s.y + 3.5 - 0.08 * s.z) - s.rng.uniform(2.8, 3.8)
    spine = [("cortical bone", canal - 1.8), ("cerebrospinal fluid", canal), ("cortical bone", vertebra)]
    spine += [("marrow", vertebra + 1.1), ("disc", disc)]
    vessels = [("wall", cava - 0.8), ("vena cava", cava), ("wall", aorta - 0.8), ("aorta", aorta)]
    return [*(("muscle", distance) for distance in (*back, *psoas)), *spine, *vessels]


def anatomy(rng: Rng, points: Array) -> Layers:
    """All structures of one patient, at the given patient positions (3, X, Y, Z) in mm."""
    size = rng.uniform(0.92, 1.07) * rng.uniform(0.96, 1.04, (3, 1, 1, 1))
    s = Sketch(rng, points / size)
    cavity = s.blob((0, 1, 0), (37.5, 26, np.inf))
    domes = 0.022 * (np.abs(s.x) - 14) ** 2 + 0.015 * s.y**2 - 0.1 * s.x
    diaphragm = 0.8 * (s.z - rng.uniform(28, 34) + domes)
    liver, vessels = liver_layers(s, cavity, diaphragm)
    gallbladder = ("gallbladder", s.blob((9, 9, -8), (4.5, 5.5, 7.5), lean=0.2))
    kidneys, kidney_distance = kidney_layers(s)
    lesions = lesion_layers(s, liver[1], kidney_distance)
    chest = [("muscle", largest(cavity, -diaphragm)), ("gas", largest(cavity + 1, 1.5 - diaphragm))]
    organs = [*gut_layers(s, cavity), liver, vessels, gallbladder, *lesions, *kidneys]
    return [*wall_layers(s, cavity), *organs, *chest, *midline_layers(s)]


def painted(rng: Rng, layers: Layers, spacing_mm: Array) -> tuple[Array, Array]:
    """Noise-free signal and the label map. A soft edge one voxel wide stands for partial volume within the slice."""
    shape = layers[0][1].shape
    signal = np.full(shape, 0.01)
    label = np.zeros(shape, np.uint8)
    contrast = rng.uniform(0.9, 1.15)
    grain = {mm: gaussian_filter(rng.normal(size=shape), mm / spacing_mm) for mm in (1.5, 2.0, 2.5, 3, 4, 5)}
    grain = {mm: field / field.std() for mm, field in grain.items()}
    shade = {name: tissue.signal**contrast * np.exp(rng.normal(0, 0.04)) for name, tissue in TISSUES.items()}
    for name, distance in layers:
        tissue = TISSUES[name]
        cover = np.clip(0.5 - distance / spacing_mm[0], 0, 1)
        signal += cover * (shade[name] * (1 + tissue.mottle * grain[tissue.grain_mm]) - signal)
        label[distance < 0] = tissue.label
    return np.maximum(signal, 0), label


def scanned(rng: Rng, signal: Array, points: Array) -> Array:
    """What the scanner stores: slice blur, coil shading, a faint breathing ghost, Rician noise, an arbitrary gain."""
    blurred = gaussian_filter(signal, (0.4, 0.4, 0.4))
    shaded = blurred * np.exp(rng.uniform(0.04, 0.1) * smooth_noise(rng, points, 180, count=4))
    shaded += rng.uniform(0.0, 0.04) * np.roll(shaded, shaded.shape[1] // 2, axis=1)
    real, imaginary = rng.normal(0, rng.uniform(0.015, 0.025), (2, *signal.shape))
    return np.rint(rng.uniform(250, 1500) * np.hypot(shaded + real, imaginary)).astype(np.int16)


def draw_grid(rng: Rng) -> tuple[Array, Array, Array]:
    """Affine, spacing and patient positions of the voxels. Some grids are tilted, and some are not stored as RAS."""
    shape = rng.integers((49, 40, 15), (56, 47, 19))
    in_plane = rng.choice((1.95, 2.0, 2.05, 2.1))
    spacing_mm = np.array((in_plane, in_plane, rng.choice((4.6, 4.8, 5.0, 5.2))))
    signs = np.where([code in "RAS" for code in rng.choice(("RAS", "RAS", "LPS", "LAS"))], 1, -1)
    tilt = Rotation.from_euler("xyz", rng.uniform(-9, 9, 3) * (rng.random() < 0.35), degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = tilt * (signs * spacing_mm)
    # The anatomy keeps its place in the world whatever grid is laid over it; the couch sets where that place is.
    off_centre = rng.uniform(-2.5, 2.5, 3) - affine[:3, :3] @ ((shape - 1) / 2)
    indices = np.indices(shape.tolist())
    points = np.einsum("ij,j...->i...", affine[:3, :3], indices) + off_centre.reshape(3, 1, 1, 1)
    affine[:3, 3] = off_centre + rng.uniform((-15, -30, -400), (15, 10, 200))
    return affine, spacing_mm, points


def make_case(rng: Rng) -> tuple[Array, Array, Array]:
    """One patient: image (int16), labels (uint8) and the affine of both."""
    affine, spacing_mm, points = draw_grid(rng)
    signal, label = painted(rng, anatomy(rng, points), spacing_mm)
    for value, smallest in SMALLEST_VOXELS.items():
        voxels = np.count_nonzero(label == value)
        assert voxels >= smallest, f"label {value} has {voxels} voxels, wanted at least {smallest}"
    return scanned(rng, signal, points), label, affine


def save(array: Array, affine: Array, path: Path) -> None:
    """Writes NIfTI: the array (X, Y, Z), and a 4x4 affine from its indices to RAS millimetres."""
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def make_toy_dataset(out: Path, *, cases: int = 24, test_cases: int = 6, seed: int = 0) -> None:
    """Write the data set into the new or empty folder ``out``; case k is the same however many are made."""
    out = Path(out)
    if out.exists() and not is_empty(out):
        raise ValueError(f"{out} is not empty; choose another folder, lest cases of an older run mix with new ones")
    for split, (suffix, name, count) in enumerate([("Tr", "torso", cases), ("Ts", "torsotest", test_cases)]):
        for folder in ("images", "labels"):
            (out / f"{folder}{suffix}").mkdir(parents=True)
        for number in range(count):
            image, label, affine = make_case(np.random.default_rng((seed, split, number)))
            save(image, affine, out / f"images{suffix}" / f"{name}_{number:03d}_0000.nii.gz")
            save(label, affine, out / f"labels{suffix}" / f"{name}_{number:03d}.nii.gz")
    description = {"name": "ToyTorso", "channel_names": {"0": "MR"}, "labels": LABELS, "numTraining": cases}
    write_text(out / "dataset.json", json.dumps(description | {"file_ending": ".nii.gz"}, indent=2) + "\n")
