"""``segfw refine``: a mask corrected by clicks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.interaction.refine_options import RefineOptions

if TYPE_CHECKING:
    from segfw.clicks.click import Click
    from segfw.dataset.cases import Channel
    from segfw.interaction.refined import DoneClick, Refined
    from segfw.interaction.refiner import OpenCase
    from segfw.networks import BuildNetwork

FIRST_CHANNEL = "_0000"


@takes_options(options=RefineOptions)
def refine(
    model: Path,
    image: Path,
    mask: Path,
    clicks: Path | Sequence[Path],
    output: Path,
    options: RefineOptions = RefineOptions(),
    *,
    build: BuildNetwork | None = None,
) -> Refined:
    """Corrects a mask by clicks on structures and beside them.

    A network that was trained on mistakes of masks looks at a window around each click. A change that is not connected
    with its click is dropped, the clicked voxel obeys, other labels are protected. The mask is written in its own
    format, on its own grid; all else in it stays as it is.

    Parameters
    ----------
    model
        Work folder or model file with a trained 3d_refine.
    image
        A file, a folder of one DICOM series, or the folder of the channels of one image. Of CASE_0000 the other
        channels are looked for beside it.
    mask
        A mask in any format. It is not changed.
    clicks
        One or more files: clicks.json, a point list of 3D Slicer (.mrk.json), points of napari (.csv).
    output
        The corrected mask.
    options
        ``may_overwrite`` lets clicks take voxels from other labels. ``overwrite`` replaces ``output``.
    build
        Makes the network of a NetworkSpec, where another one than the plan's was trained.

    Returns
    -------
    Refined
        What each click changed.

    Raises
    ------
    UserError
        If a click lies outside the image or means no label, or would take its voxel from another label; or if there is
        no refiner, it is of other channels, or the mask lies on another grid. Nothing is written then.
    """
    from segfw.base.output_paths import require_outside
    from segfw.base.records import UserError
    from segfw.clicks.click_files import read_clicks
    from segfw.dataset.finished_mask import MaskMaker
    from segfw.images.formats import files_read
    from segfw.interaction.edits_log import EDITS_FILE, Edit, read_edits, write_edits
    from segfw.interaction.mask_names import labels_of_mask
    from segfw.interaction.refined import Refined
    from segfw.interaction.refiner import Refiner
    from segfw.interaction.written_mask import WrittenMask
    from segfw.model.source import kept_folders

    # Whether paths go together
    model = Path(model)
    mask = Path(mask)
    output = Path(output)
    paths = [Path(clicks)] if isinstance(clicks, str | Path) else [Path(path) for path in clicks]
    require_outside(output, kept_folders(model))
    if output.exists() and not output.is_dir() and not options.overwrite:
        is_input = mask.exists() and output.resolve() == mask.resolve()
        problem = "is the mask itself, which is not changed" if is_input else "is there already"
        raise UserError(f"{output}: {problem}; give another name, or --overwrite to replace it")
    read_edits(output.parent / EDITS_FILE)  # which says what is wrong with it before anything is done

    # The model, the image and its mask
    refiner = Refiner(model, folds=options.folds, device=options.device, precision=options.precision, build=build)
    images = _files_of(Path(image), refiner.model.plan.channels)
    if output.resolve() in {file.resolve() for source in images for file in files_read(source)}:
        raise UserError(f"{output}: is the image; give a name of its own for the mask")
    written = WrittenMask(output=output, mask=mask, image=images[0])
    written.require()
    known, named_by = labels_of_mask(mask, refiner.labels, options.label_names)
    with refiner.open([str(file) for file in images], mask, labels=known) as case:
        asked = [(path, click) for path in paths for click in read_clicks(path, case.labels, case.image_geometry)]

        # The work
        done = _clicked(case, asked, may_overwrite=options.may_overwrite)
        made_by = MaskMaker(name=f"segfw {refiner.model.configuration.name}", digest=refiner.digest)
        written.write(case.mask, case.labels, made_by)
    edits = [
        Edit(
            mask=output.name,
            made_from=mask.name,
            number=number,
            click=each.click,
            may_overwrite=options.may_overwrite,
            gained=each.gained,
            lost=each.lost,
            seconds=each.seconds,
            model=refiner.digest,
        )
        for number, each in enumerate(done, start=1)
    ]
    # In place of the mask itself the earlier clicks are of this mask, too.
    is_in_place = output.resolve() == mask.resolve()
    write_edits(output.parent / EDITS_FILE, edits, replaces="" if is_in_place else output.name)
    return Refined(
        output=output,
        edits=output.parent / EDITS_FILE,
        clicks=tuple(done),
        labels_from=named_by,
        model=refiner.digest,
    )


def _clicked(case: OpenCase, asked: Sequence[tuple[Path, Click]], *, may_overwrite: bool) -> list[DoneClick]:
    """Does all clicks; UserError naming the file of the first that cannot be done."""
    from segfw.base.records import UserError
    from segfw.interaction.refined import DoneClick

    done = []
    for path, click in asked:
        try:
            change = case.click(click.label, click.ras_mm, click.inside, may_overwrite=may_overwrite)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        done.append(
            DoneClick(click=click, gained=dict(change.gained), lost=dict(change.lost), seconds=round(change.seconds, 3))
        )
    return done


def _files_of(image: Path, channels: Sequence[Channel]) -> tuple[Path, ...]:
    """The files of an image, one per channel, or one with all."""
    from segfw.base.records import UserError
    from segfw.base.words import count
    from segfw.dataset.new_images import find_images
    from segfw.images.formats import split_ending

    stem, ending = split_ending(image)
    if image.is_file() and stem.endswith(FIRST_CHANNEL) and len(channels) > 1:
        case = stem.removesuffix(FIRST_CHANNEL)
        beside = tuple(image.with_name(f"{case}_{number:04}{ending}") for number in range(len(channels)))
        return beside if all(file.is_file() for file in beside) else (image,)
    cases = find_images(image, channels)
    if len(cases) > 1:
        names = f"{cases[0].id} and {cases[1].id}"
        raise UserError(
            f"{image}: holds {count(len(cases), 'image')}, such as {names}; give the one that the mask is of"
        )
    return cases[0].images


COMMAND = Command(
    function=refine,
    what="Correct a mask by clicks; other labels are protected, and what no click is connected with stays as it is.",
    example="segfw refine work scan.nii.gz mask.nii.gz --clicks clicks.json --output corrected.nii.gz",
    arguments=(
        Argument(name="model", help="work folder or model file with a trained 3d_refine"),
        Argument(name="image", help="file, folder of one DICOM series, or folder of one image's channels"),
        Argument(name="mask", help="mask of the image, in any format"),
        Argument(
            name="clicks", help="clicks.json, .mrk.json of 3D Slicer, .csv of napari", shown="--clicks", nargs="+"
        ),
        Argument(name="output", help="the corrected mask, best with the ending of MASK", shown="--output"),
    ),
    gives_json=True,
)
