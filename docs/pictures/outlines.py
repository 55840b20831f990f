"""Draws the pictures of docs/howto/planning-system.md: what a structure set of a made-up CT holds, read from its file.

    PYTHONPATH=. python docs/pictures/outlines.py

``rtstruct_ct.png`` is a slice with all outlines, beside the mask and beside what comes of the outlines when they are
filled. ``rtstruct_holes.png`` is a hole as ``--holes`` writes it, and an outline through the centres of voxels. Every
number in them is counted in the files.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import contourpy
import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from PIL import Image
from pydicom import dcmread
from skimage.draw import polygon2mask

from bench.mask_formats import write_series
from segfw.dataset.finished_mask import FinishedMask, MaskMaker
from segfw.dataset.labels import LabelSet
from segfw.dataset.named_structures import drawn_as_of
from segfw.images.formats import read_mask, read_volume
from segfw.images.geometry import Geometry
from segfw.interop.write_rtstruct import Holes, write_rtstruct

FOLDER = Path(__file__).parent
SPACING_MM = (5.0, 2.5, 2.5)
SHAPE = (5, 100, 144)
LABELS = LabelSet(
    names=("background", "liver", "kidney_left", "kidney_right", "aorta", "vertebra"), values=(0, 1, 2, 3, 4, 5)
)
WINDOW = (-160, 240)  # HU
SHOWN_SLICE = 2
ZOOM = (slice(30, 58), slice(11, 51))  # the liver's holes and its border, in voxels
COLOURS = ("#d1495b", "#2e86ab", "#178a5c", "#e07a1f", "#7b5ea7")  # of the structures, on light and dark ground
OUTER = "#b3243a"
HOLE = "#1f5fa8"
TINT = "#f3c6cc"
DPI = 100
PALETTE = 128


def main() -> None:
    matplotlib.use("Agg")
    pyplot.rcParams.update({"font.size": 10, "axes.titlesize": 10})
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        ct, mask_zyx = made_up_ct()
        write_series(work / "series", ct, SPACING_MM)
        volume = read_volume(work / "series")
        mask = FinishedMask(
            case_id="case",
            values_zyx=mask_zyx,
            geometry=volume.geometry,
            labels=LABELS,
            maker=MaskMaker(),
            image=work / "series",
        )
        files: dict[Holes, Path] = {"keyhole": work / "keyhole.dcm", "xor": work / "xor.dcm"}
        for holes, path in files.items():
            write_rtstruct(path, mask, holes=holes)
        filled_zyx = read_mask(files["keyhole"], volume, drawn_as_of(files["keyhole"], LABELS)).array[0]
        draw_ct(volume.array[0], mask_zyx, filled_zyx, polygons_in(files["keyhole"], volume.geometry))
        draw_holes(mask_zyx, {holes: polygons_in(path, volume.geometry) for holes, path in files.items()})


def made_up_ct() -> tuple[np.ndarray, np.ndarray]:
    """A belly of ellipses in HU, head first and seen from the feet, and the mask of its structures; (Z, Y, X) each."""
    z, y, x = np.indices(SHAPE)
    grows = 1 + 0.02 * (z - SHOWN_SLICE)

    def ellipse(centre_y: float, centre_x: float, radius_y: float, radius_x: float) -> np.ndarray:
        return ((y - centre_y) / radius_y) ** 2 + ((x - centre_x) / radius_x) ** 2 < grows

    body = ellipse(50, 72, 42, 64)
    ct = np.where(body, -100, -1000).astype(np.float64)
    ct[ellipse(50, 72, 38, 60)] = 45
    ct[ellipse(38, 92, 14, 20) & ~ellipse(38, 92, 11, 17)] = 35
    ct[ellipse(38, 92, 11, 17)] = -40
    mask = np.zeros(SHAPE, np.uint8)
    liver = ellipse(45, 38, 26, 25) & ~ellipse(36, 70, 26, 16)
    parts = {
        1: (liver & ~ellipse(43, 40, 6.2, 7.4) & ~ellipse(51, 31, 2.2, 2.6), 110),
        2: (ellipse(65, 98, 9, 7), 160),
        3: (ellipse(74, 44, 8, 7) & ~liver, 160),
        4: (ellipse(57, 76, 4, 4), 190),
        5: (ellipse(72, 72, 8, 10), 220),
    }
    ct[liver] = 0  # of the two cysts, which are no liver
    for value, (inside, hu) in parts.items():
        ct[inside] = hu
        mask[inside] = value
    ct += np.random.default_rng(0).normal(0, 12, SHAPE)
    return np.rint(ct).astype(np.int16), mask


def polygons_in(path: Path, grid: Geometry) -> list[tuple[int, np.ndarray]]:
    """Structure number and corners (N, 2) in voxels (y, x) of every outline in the slice that is shown.

    By the places in the file alone, brought to the grid of the series.
    """
    lps_to_ras = np.array([-1, -1, 1])
    to_voxels = np.linalg.inv(grid.matrix)
    found = []
    for roi in dcmread(path).ROIContourSequence:
        for contour in roi.get("ContourSequence", ()):
            places_mm = np.array(contour.ContourData, float).reshape(-1, 3) * lps_to_ras
            corners = places_mm @ to_voxels[:3, :3].T + to_voxels[:3, 3]
            if round(corners[0, 0]) == SHOWN_SLICE:
                found.append((int(roi.ReferencedROINumber), corners[:, 1:]))
    return found


def draw_ct(
    ct: np.ndarray, mask_zyx: np.ndarray, filled_zyx: np.ndarray, polygons: list[tuple[int, np.ndarray]]
) -> None:
    """A slice with its outlines, the mask, and the outlines filled."""
    wrong = int(np.count_nonzero(mask_zyx != filled_zyx))
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(10.5, 3.35), dpi=DPI)
    grey(left, ct[SHOWN_SLICE])
    for number, corners in polygons:
        closed(left, corners, COLOURS[number - 1], 1.4)
    left.set_title("the series, with the outlines of the file")
    for axes, values, title in (
        (middle, mask_zyx, "the mask"),
        (right, filled_zyx, f"the outlines filled: {wrong} voxels differ"),
    ):
        axes.imshow(values[SHOWN_SLICE], cmap=ListedColormap(["#ffffff", *COLOURS]), vmin=0, vmax=len(COLOURS))
        axes.set_title(title)
    middle.text(2, 97, f"slice {SHOWN_SLICE + 1} of {SHAPE[0]}", color="#555555", size=9)
    for axes in (left, middle, right):
        frame(axes)
    handles = [pyplot.Line2D([], [], color=colour, linewidth=2.5) for colour in COLOURS]
    figure.legend(handles, LABELS.names[1:], loc="lower center", ncols=len(COLOURS), frameon=False)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.9, bottom=0.11, wspace=0.04)
    save(figure, "rtstruct_ct")


def draw_holes(mask_zyx: np.ndarray, polygons: dict[Holes, list[tuple[int, np.ndarray]]]) -> None:
    """The liver's holes in both ways, and what an outline through the centres of voxels loses."""
    liver = mask_zyx[SHOWN_SLICE] == 1
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(10.5, 2.75), dpi=DPI)
    for axes, holes, title in (
        (left, "keyhole", "keyhole: {} polygon"),
        (middle, "xor", "--holes xor: {} polygons"),
    ):
        of_liver = [corners for number, corners in polygons[holes] if number == 1]
        with_holes(axes, of_liver)
        axes.set_title(title.format(len(of_liver)))
        assert (filled(of_liver) == liver).all()
    by_centres = contourpy.contour_generator(z=liver.astype(float)).lines(1.0 - 1e-6)
    through_centres = [line[:-1, ::-1] for line in by_centres]
    with_holes(right, through_centres)
    lost = 1 - abs(sum(map(signed_area, through_centres))) / liver.sum()
    right.set_title(f"through centres: {lost:.0%} of the area lost")
    for axes in (left, middle, right):
        axes.imshow(liver, cmap=ListedColormap(["#ffffff", TINT]))
        rows, columns = ZOOM
        axes.set_xlim(columns.start - 0.5, columns.stop - 0.5)
        axes.set_ylim(rows.stop - 0.5, rows.start - 0.5)
        axes.set_xticks(np.arange(columns.start, columns.stop + 1) - 0.5)
        axes.set_yticks(np.arange(rows.start, rows.stop + 1) - 0.5)
        axes.grid(color="#d8d8d8", linewidth=0.5)
        frame(axes, keeps_grid=True)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.9, bottom=0.02, wspace=0.04)
    save(figure, "rtstruct_holes")


def with_holes(axes: Axes, polygons: list[np.ndarray]) -> None:
    """Polygons, the largest in another colour than those within it."""
    areas = [abs(signed_area(corners)) for corners in polygons]
    for corners, each in zip(polygons, areas):
        closed(axes, corners, OUTER if each == max(areas) else HOLE, 2)


def filled(polygons: list[np.ndarray]) -> np.ndarray:
    """Voxels (Y, X) of polygons by scikit-image, by the rule of even and odd."""
    inside = np.zeros(SHAPE[1:], bool)
    for corners in polygons:
        inside ^= polygon2mask(SHAPE[1:], corners)
    return inside


def signed_area(corners: np.ndarray) -> float:
    y, x = corners.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def grey(axes: Axes, image_yx: np.ndarray) -> None:
    axes.imshow(image_yx, cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1])


def closed(axes: Axes, corners: np.ndarray, colour: str, width: float) -> None:
    y, x = np.concatenate([corners, corners[:1]]).T
    axes.plot(x, y, color=colour, linewidth=width, solid_joinstyle="miter")


def frame(axes: Axes, *, keeps_grid: bool = False) -> None:
    """A thin grey line around, and no numbers."""
    axes.tick_params(length=0, labelbottom=False, labelleft=False)
    if not keeps_grid:
        axes.set_xticks([])
        axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color("#b0b0b0")


def save(figure: pyplot.Figure, name: str) -> None:
    path = FOLDER / f"{name}.png"
    figure.savefig(path, facecolor="white")
    pyplot.close(figure)
    Image.open(path).convert("RGB").quantize(PALETTE, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
