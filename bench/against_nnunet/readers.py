"""Predicts images of every kind that nnU-Net reads, by nnU-Net and by segfw with the imported model, and compares.

    python -m bench readers MODEL IMAGES --keep FOLDER
    python -m bench readers MODEL_2D IMAGES --only png bmp tif

MODEL is a trained-model folder TRAINER__PLANS__CONFIGURATION of nnU-Net, IMAGES holds CASE_0000.nii.gz and further
channels. Copies of the images get rotated, permuted, contradictory and unequal headers, borders of zeros and other
formats, copies of the model each reader, and a 2-D model pictures too. Needs nnU-Net: make nnunet-venv.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK
from scipy.spatial.transform import Rotation

from bench.against_nnunet.models import working_folder
from bench.figures import columns, dices
from bench.runs import DEFAULT_NNUNET, IN_NNUNET, nnunet_environment, require_nnunet
from segfw.base.parallel import CasesFailed
from segfw.base.records import UserError
from segfw.images.formats import split_ending
from segfw.verbs.import_nnunet import import_nnunet
from segfw.verbs.predict import predict

DRIVER = IN_NNUNET / "predict_sets.py"  # one process for all sets, because nnU-Net takes long to start
NIFTI_READERS = "SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient"
ITK_READERS = NIFTI_READERS[:2]
PICTURES = ".png", ".bmp", ".tif"
TURN = Rotation.from_rotvec([0.4, -0.3, 0.25]).as_matrix()


def oblique(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """Turned by half a radian about no axis of the body."""
    return _placed(np.asanyarray(image.dataobj), TURN, image.header.get_zooms()[:3])


def very_oblique(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """Turned by nearly 45 degrees, and mirrored, with voxel sizes of more digits than a header keeps exactly."""
    turn = Rotation.from_euler("zx", [44, 31], degrees=True).as_matrix() @ np.diag([1, -1, 1])
    return _placed(np.asanyarray(image.dataobj), turn, np.multiply(image.header.get_zooms()[:3], (0.7421875, 1.1, 0.9)))


def permuted(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """Stored in another order of axes, two of them flipped."""
    array = np.asanyarray(image.dataobj).transpose(2, 0, 1)
    turn = np.array([[0, -1, 0], [0, 0, 1], [-1, 0, 0]])
    return _placed(array, turn, np.array(image.header.get_zooms()[:3])[[2, 0, 1]])


def scaled_sform(image: nibabel.Nifti1Image, turn: tuple[int, int, int] = (1, 1, 1)) -> nibabel.Nifti1Image:
    """The axes of the sform are longer than the voxel sizes beside them."""
    zooms = np.array(image.header.get_zooms()[:3])
    made = _placed(np.asanyarray(image.dataobj), np.diag(turn), zooms * (1.06, 1.25, 1.1))
    made.header["qform_code"] = 0
    made.header["pixdim"][1:4] = zooms
    return made


def other_qform(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """A qform of another code in another place, as after a registration."""
    made = _placed(np.asanyarray(image.dataobj), np.eye(3), image.header.get_zooms()[:3])
    made.set_qform(_placed(made.dataobj, TURN, made.header.get_zooms()[:3]).affine, code=1)
    made.set_sform(made.affine, code=4)
    return made


def anisotropic(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """Every fourth slice of oblique slices, four times as thick."""
    zooms = np.multiply(image.header.get_zooms()[:3], (1, 1, 4))
    return _placed(np.asanyarray(image.dataobj)[:, :, ::4], TURN, zooms)


def thick_other_axis(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """Thick along the axis that is stored first."""
    zooms = np.multiply(image.header.get_zooms()[:3], (4, 1, 1))
    return _placed(np.asanyarray(image.dataobj)[::4], TURN, zooms)


def bordered(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """Unequal borders of zeros."""
    array = np.pad(np.asanyarray(image.dataobj), ((3, 7), (0, 5), (4, 1)))
    return _placed(array, TURN, np.multiply(image.header.get_zooms()[:3], (0.9, 0.9, 1.3)))


def small(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """Smaller than any patch."""
    x, y, z = (size // 2 for size in image.shape)
    array = np.asanyarray(image.dataobj)[x - 7 : x + 7, y - 9 : y + 8, z - 5 : z + 6]
    return _placed(array, np.diag([-1, 1, 1]), image.header.get_zooms()[:3])


def one_slice(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """A volume of one slice."""
    middle = image.shape[2] // 2
    return _placed(np.asanyarray(image.dataobj)[:, :, middle : middle + 1], np.eye(3), image.header.get_zooms()[:3])


HEADERS = oblique, very_oblique, permuted, scaled_sform, other_qform
KINDS = {kind.__name__: kind for kind in (*HEADERS, anisotropic, thick_other_axis, bordered, small, one_slice)}
KINDS["scaled_and_turned"] = lambda image: scaled_sform(image, (-1, -1, 1))


def _placed(array_xyz: np.ndarray, axes: np.ndarray, zooms: np.ndarray) -> nibabel.Nifti1Image:
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(axes) * np.asarray(zooms, dtype=float)
    affine[:3, 3] = (-31.5, 12.25, 7)
    image = nibabel.Nifti1Image(np.ascontiguousarray(array_xyz), affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    return image


def write_volumes(sources: dict[str, list[Path]], folder: Path, ending: str) -> None:
    """Each kind of image of one case after the other, in turn, under ``ending``."""
    for (name, kind), paths in zip(KINDS.items(), cycle(sources.values())):
        for channel, path in enumerate(paths):
            target = folder / f"{name}_{channel:04d}.nii.gz"
            nibabel.save(kind(nibabel.load(path)), target)
            if ending != ".nii.gz":
                SimpleITK.WriteImage(SimpleITK.ReadImage(str(target)), str(folder / f"{name}_{channel:04d}{ending}"))
                target.unlink()


def write_stacks(sources: dict[str, list[Path]], folder: Path, ending: str) -> None:
    """TIFF stacks with and without a side file, and with tags that say another spacing than it."""
    from PIL import Image

    for index, (case, paths) in enumerate(sources.items()):
        for channel, path in enumerate(paths):
            pages = [Image.fromarray(page) for page in _stored_zyx(path).astype(np.float32)]
            tags = {270: f"ImageJ=1.53t\nimages={len(pages)}\nslices={len(pages)}\nunit=mm\nspacing=2.5\n"}
            tags |= {282: 0.5, 283: 0.5, 296: 1}
            where = folder / f"{case}_{channel:04d}{ending}"
            pages[0].save(where, save_all=True, append_images=pages[1:], tiffinfo=tags if index % 2 == 0 else {})
        if index % 3:
            (folder / f"{case}.json").write_text(json.dumps({"spacing": [1.25, 0.8, 1.1]}))


def write_pictures(sources: dict[str, list[Path]], folder: Path, ending: str) -> None:
    """The middle slice in 8 or 16 bits; PNG files say a spacing that pictures are not read by."""
    for index, (case, paths) in enumerate(sources.items()):
        for channel, path in enumerate(paths):
            array = _stored_zyx(path)
            middle = array[len(array) // 2].astype(float)
            most = 255 if ending == ".bmp" or index % 2 else 60_000
            pixels = (middle / middle.max() * most).astype(np.uint8 if most == 255 else np.uint16)
            image = SimpleITK.GetImageFromArray(pixels)
            image.SetSpacing((0.6, 0.8))
            SimpleITK.WriteImage(image, str(folder / f"{case}_{channel:04d}{ending}"))


def write_planes(sources: dict[str, list[Path]], folder: Path, ending: str) -> None:
    """Files of two dimensions, with pixels of unequal edges."""
    for index, (case, paths) in enumerate(sources.items()):
        for channel, path in enumerate(paths):
            array = _stored_zyx(path)
            image = SimpleITK.GetImageFromArray(array[len(array) // 2].astype(np.float32))
            image.SetSpacing(((1.0, 1.0), (0.7, 1.2), (4.0, 0.9))[index % 3])
            image.SetOrigin((-4.0, 17.5))
            SimpleITK.WriteImage(image, str(folder / f"{case}_{channel:04d}{ending}"))


def _stored_zyx(path: Path) -> np.ndarray:
    return np.asanyarray(nibabel.load(path).dataobj).transpose(2, 1, 0)


def jobs(is_2d: bool) -> Iterator[tuple[str, str, str, Callable]]:
    """Name, reader, ending and writer of every set of images."""
    yield from ((f"nii.gz {reader}", reader, ".nii.gz", write_volumes) for reader in NIFTI_READERS)
    for ending in (".nrrd", ".mha"):
        yield from ((f"{ending[1:]} {reader}", reader, ending, write_volumes) for reader in ITK_READERS)
    yield ("tif Tiff3DIO", "Tiff3DIO", ".tif", write_stacks)
    if is_2d:
        yield from ((f"{one[1:]} plane", "SimpleITKIO", one, write_planes) for one in (".nii.gz", ".mha", ".nrrd"))
        yield from ((f"{one[1:]} picture", "NaturalImage2DIO", one, write_pictures) for one in PICTURES)


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """One kind of files: its folder holds images/, theirs/ and ours/, and the model of nnU-Net that reads them."""

    name: str
    folder: Path
    nnunet_model: Path
    ending: str


def main(arguments: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(arguments)
    require_nnunet(args.nnunet_python)
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # headers are contradictory on purpose
    with working_folder(args.keep) as home:
        image_sets = prepare(args, home)
        if not args.again:
            _run_nnunet(args, image_sets, home)
        rows = [["images", "kind", "Dice", "voxels", "geometry"]]
        for image_set in image_sets:
            rows += [[image_set.name, *row] for row in _against(image_set, not args.no_mirroring)]
    print(columns(rows))


def prepare(args: argparse.Namespace, home: Path) -> list[ImageSet]:
    """Writes all sets of images that were asked for, each with a copy of the model; with --again those not there."""
    plans = json.loads((args.model / "plans.json").read_text(encoding="utf-8"))
    dataset = json.loads((args.model / "dataset.json").read_text(encoding="utf-8"))
    model_name = args.model.resolve().name
    sources: dict[str, list[Path]] = {}
    for path in sorted(args.images.glob("*_????.nii.gz")):
        sources.setdefault(path.name[: -len("_0000.nii.gz")], []).append(path)

    image_sets = []
    for name, reader, ending, write in jobs(is_2d=model_name.endswith("2d")):
        if args.only and not any(part in name.split() for part in args.only):
            continue
        folder = home / name.replace(" ", "_")
        image_set = ImageSet(name=name, folder=folder, nnunet_model=folder / model_name, ending=ending)
        image_sets.append(image_set)
        for part in ("model", "ours"):
            shutil.rmtree(folder / part, ignore_errors=True)
        if args.again and image_set.nnunet_model.is_dir():
            continue
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(args.model, image_set.nnunet_model)
        with_reader = plans | {"image_reader_writer": reader}
        (image_set.nnunet_model / "plans.json").write_text(json.dumps(with_reader), encoding="utf-8")
        with_ending = dataset | {"file_ending": ending}
        (image_set.nnunet_model / "dataset.json").write_text(json.dumps(with_ending), encoding="utf-8")
        for part in ("images", "theirs"):
            (folder / part).mkdir()
        write(sources, folder / "images", ending)
    return image_sets


def _run_nnunet(args: argparse.Namespace, image_sets: Sequence[ImageSet], home: Path) -> None:
    """All sets in one process, with all folds that have the weights of the first one."""
    tasks = []
    for image_set in image_sets:
        checkpoints = sorted(image_set.nnunet_model.glob("fold_*/*.pth"))
        file = checkpoints[0].name
        folds = [path.parent.name.removeprefix("fold_") for path in checkpoints if path.name == file]
        tasks.append(
            {
                "images": str(image_set.folder / "images"),
                "output": str(image_set.folder / "theirs"),
                "model": str(image_set.nnunet_model),
                "mirroring": not args.no_mirroring,
                "checkpoint": file,
                "folds": [fold if fold == "all" else int(fold) for fold in folds],
            }
        )
    (home / "jobs.json").write_text(json.dumps(tasks), encoding="utf-8")
    with (home / "nnunet.log").open("w", encoding="utf-8") as log:
        command = [str(args.nnunet_python), str(DRIVER), str(home / "jobs.json")]
        subprocess.run(command, check=True, env=nnunet_environment(home), stdout=log, stderr=log)


def _against(image_set: ImageSet, mirroring: bool) -> Iterator[list[str]]:
    """A row for each image of a set, after segfw has predicted them with the imported model."""
    folder = image_set.folder
    ending = image_set.ending
    try:
        import_nnunet(image_set.nnunet_model, folder / "model")
        predict(
            folder / "model",
            folder / "images",
            folder / "ours",
            device="cpu",
            precision="fp32",
            mirroring=mirroring,
            ending=ending,
        )
    except (CasesFailed, UserError) as error:
        print(f"segfw: {error}")
    images = [path for path in (folder / "images").iterdir() if split_ending(path)[1] == ending]
    for name in sorted({path.name.rsplit("_", 1)[0] for path in images}):
        ours = folder / "ours" / f"{name}{ending}"
        theirs = folder / "theirs" / f"{name}{ending}"
        missing = [program for program, path in (("segfw", ours), ("nnU-Net", theirs)) if not path.is_file()]
        if missing:
            yield [name, "-", "-", f"no mask by {' and '.join(missing)}"]
            continue
        yield [name, *_difference(ours, theirs, next((folder / "images").glob(f"{name}_0000*")))]


def _difference(ours: Path, theirs: Path, image: Path) -> list[str]:
    one, other, of = (SimpleITK.ReadImage(str(path)) for path in (ours, theirs, image))
    first, second = (SimpleITK.GetArrayFromImage(mask) for mask in (one, other))
    if first.shape != second.shape:
        return ["-", "-", f"shapes {first.shape} and {second.shape}"]
    dice = [*dices(first, second).values()] or [1.0]
    return [
        f"{min(dice):.5f} {statistics.fmean(dice):.5f}",
        f"{int((first != second).sum())} of {int((second > 0).sum())}",
        "-" if image.suffix in PICTURES else "equal" if _have_one_grid(one, of) else "differs",
    ]


def _have_one_grid(mask: SimpleITK.Image, image: SimpleITK.Image) -> bool:
    grids = [
        np.concatenate(
            [np.ravel(part) for part in (one.GetSize(), one.GetSpacing(), one.GetOrigin(), one.GetDirection())]
        )
        for one in (mask, image)
    ]
    return grids[0].shape == grids[1].shape and bool(np.allclose(*grids, atol=1e-4))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench readers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--only", nargs="*", help="sets of images by a word of their name (default: all)")
    parser.add_argument("--no-mirroring", action="store_true")
    parser.add_argument("--keep", type=Path, help="folder for models and masks (default: removed in the end)")
    parser.add_argument("--again", action="store_true", help="take images and nnU-Net's masks that are in --keep")
    parser.add_argument("--nnunet-python", type=Path, default=DEFAULT_NNUNET)
    return parser
