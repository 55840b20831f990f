"""Writes docs/reference/bad-input.md, what segfw says to wrong files: ``python tests/fuzz/bad_input.py``.

Each case is made and given to the command line; what it prints and its exit code are the table. A test makes it anew
and compares.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

import numpy as np

from builders.data import blocks_case, write_nifti, write_raw
from builders.dicom_masks import Grid, contour, contours_of, write_segmentation, write_series, write_structures
from builders.models import WEIGHTS, plan_of, selection_of, small_model, write_fold
from builders.networks import spec
from builders.nnunet import trained_folder
from builders.review import AFFINE, drawn, masks_folder
from builders.training import ZSCORE, configuration
from segfw.cli import main
from segfw.clicks.click_maps import CHANNELS
from segfw.dataset.cases import Channel
from segfw.images.formats import write_labels
from segfw.images.geometry import Geometry
from segfw.planning.plan import FULLRES, PLAN_FILE, REFINE
from segfw.planning.splits import Splits
from segfw.verbs.plan_and_preprocess import plan_and_preprocess

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "bad-input.md"
MASK = "raw/labelsTr/case_01.nii.gz"
IMAGE = "raw/imagesTr/case_01_0000.nii.gz"
HEAD = """# What bad input gets

Wrong input ends in one sentence that names the file, what is wrong and what to do, and in exit code 2; where other
cases can go on, they do, and the exit code is 1. Each case of this table is made by a test, given to the command, and
the sentence is what it says. What a format cannot tell is not known to segfw either, such as one changed bit among
plain, uncompressed voxels (`.nii`, raw `.nrrd`, `.mha` and `.mhd`, `.bmp`, uncompressed TIFF and DICOM). Compressed
files carry checksums, and these are looked at.

| file | what is wrong | command | what segfw says | exit code |
|---|---|---|---|---|
"""


class BadInput(NamedTuple):
    """One row: a file, what is wrong with it, and what is called."""

    file: str
    wrong: str
    spoil: Callable[[Path], object]
    command: tuple[str, ...]


def _text(content: str) -> Callable[[Path], object]:
    return lambda file: file.write_text(content, "utf-8")


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def _field(name: str, value: object) -> Callable[[Path], object]:
    return lambda file: file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))


def _decoding(name: str, temperature: float) -> Callable[[Path], object]:
    """A selection.json by which a structure is decoded."""
    postprocessing = {"steps": [], "decoding": [{"name": name, "temperature": temperature}]}
    selection = selection_of("3d_fullres").model_dump(mode="json") | {"postprocessing": postprocessing}
    return lambda file: file.write_text(json.dumps(selection))


def _radiomics(modality: str, **processing: object) -> Callable[[Path], object]:
    """Settings of features for the images' channel, of a modality."""
    channel = {"modality": modality, "bin_width": None, "levels": None, "range": None, "whole_numbers": False}
    settings = {"kind": "radiomics settings", "format": 1, "voxel_mm": 1.0, "texture": "3d", "cases": 3}
    return lambda file: file.write_text(json.dumps(settings | {"channels": {"MR": channel | processing}}))


def _unlabelled(*, seen: bool = False, channels: int = 1) -> Callable[[Path], object]:
    """A planned work folder, and beside it images without masks: those that fold 0 validates on, or a drawn one."""

    def write(file: Path) -> None:
        root = file.parent
        with contextlib.redirect_stdout(io.StringIO()):
            plan_and_preprocess(root / "raw", root / "work", configurations=("2d",), device="cpu")
        for case in Splits.load(root / "work" / "splits.json").folds[0].validation if seen else ():
            (root / "more").mkdir(exist_ok=True)
            shutil.copy(root / "raw" / "imagesTr" / f"{case}_0000.nii.gz", root / "more")
        if not seen:
            write_nifti(root / "more" / "a.nii.gz", np.stack([blocks_case(9)[0]] * channels, 3))
        (root / "start.pth").write_bytes(b"")

    return write


def _cohort(
    features: Mapping[int, str] | None = None,
    settings: Mapping[int, str] | None = None,
    outcomes: Mapping[int, str] | None = None,
    again: str = "",
) -> Callable[[Path], object]:
    """Tables of 50 patients, of whom 20 died, with other cells in some rows and a line more of the outcomes."""

    def write(file: Path) -> None:
        measured = ["case,structure,settings,volume_ml"]
        told = ["patient,died,age,sex"]
        for row in range(50):
            value = (features or {}).get(row, f"{10 + row % 7}")
            measured.append(f"case_{row:02d},liver,{(settings or {}).get(row, 'a1b2c3d4')},{value}")
            died = (outcomes or {}).get(row, str(int(row < 20)))
            told.append(f"case_{row:02d},{died},{50 + row % 30},F")
        file.with_name("features.csv").write_text("\n".join(measured) + "\n")
        file.with_name("patients.csv").write_text("\n".join(told) + "\n" + again)

    return write


def _strangers(file: Path) -> None:
    """The tables, with outcomes of other patients."""
    _cohort()(file)
    file.write_text("patient,died\nA,1\nB,0\n")


def _model_of_outcome(file: Path) -> None:
    """The tables, and a model that is cut."""
    _cohort()(file)
    file.write_text('{"kind": "outcome mod')


def _nothing(_: Path) -> None:
    """Leaves all as it is: what is asked for is wrong."""


def _linked(file: Path) -> None:
    file.unlink()
    file.symlink_to("not_there.nii.gz")


def _tree(root: Path) -> None:
    """Two patients, each with a CT and a structure set, and the table of its names."""
    for number in (1, 2):
        folder = root / "patients" / f"p{number}"
        grid = _grid(number)
        write_series(folder / "CT", BOX * 100.0 + np.arange(10), grid, patient=f"ID{number}")
        write_structures(folder / "drawn.dcm", {"Liver": contours_of(BOX, grid)}, grid)
    (root / "patients" / "structures.csv").write_text("structure,label\nLiver,liver\n")


def _grid(number: int) -> Grid:
    return Grid(series=f"1.2.{number}", frame=f"1.2.{number}.9")


def _rewritten(number: int, rois: dict[str, list], **changes: object) -> Callable[[Path], object]:
    return lambda file: write_structures(file, rois, _grid(number), **changes)


def _segment_of(number: int) -> Callable[[Path], object]:
    """In place of the structure set of the first patient."""

    def spoil(file: Path) -> None:
        file.with_name("drawn.dcm").unlink()
        write_segmentation(file, {"Liver": BOX}, _grid(number))

    return spoil


def _nobody(file: Path) -> None:
    write_series(file.parent, BOX * 100.0 + np.arange(10), _grid(1), patient="")


def _without_last_slice(file: Path) -> None:
    (file.parent / "CT" / "s001.dcm").unlink()


def _gone(file: Path) -> None:
    file.unlink()


def _line_changed(file: Path) -> None:
    """A review of another case, of which a line says another name now."""
    with contextlib.redirect_stdout(io.StringIO()):
        main(["accept", str(file.parents[1]), "case_02", "--user", "anna"])
    file.write_bytes(file.read_bytes().replace(b'"user":"anna"', b'"user":"eve"', 1))


def _policy(file: Path) -> None:
    file.parent.mkdir()
    file.write_text('{"signer": ["ben"]}')


def _queue(file: Path) -> None:
    file.parent.mkdir()
    file.write_text('{"format": "segfw que')


def _click(label: str, *, inside_of: int = 3, **changes: object) -> Callable[[Path], object]:
    """A click in the middle of where the mask has a value."""

    def write(file: Path) -> None:
        _, mask = blocks_case(1)
        x, y, z = np.argwhere(mask == inside_of).mean(0).round().tolist()
        click = {"label": label, "ras_mm": [x, 1.5 * y, 4.0 * z], "inside": True}
        file.write_text(json.dumps([click | changes]))

    return write


def _refiner(folder: Path, channels: int = 1) -> None:
    """A refiner with drawn weights."""
    whole = ZSCORE.model_copy(update={"normalization": ZSCORE.normalization * channels})
    network = spec(in_channels=channels + len(CHANNELS), classes=2)
    refines = {"name": REFINE, "is_refiner": True, "previous_stage": FULLRES}
    chosen = configuration(whole, network).model_copy(update=refines)
    folder.mkdir()
    plan_of(chosen, channels=tuple(Channel(name=name) for name in ("T1", "T2")[:channels])).save(folder / PLAN_FILE)
    write_fold(folder, chosen, "0")


def _doubt(spoil: Callable[[Path], object]) -> Callable[[Path], object]:
    """A table of doubt, by which masks of a model that is not calibrated are put in order; then something is spoilt."""

    def both(file: Path) -> None:
        Path("masks/uncertainty.csv").write_text("case,entropy\ncase_01,0.3\ncase_02,0.1\n")
        file.parent.mkdir(parents=True, exist_ok=True)
        spoil(file)

    return both


def _audited(file: Path) -> None:
    """An audit that was drawn, of which the file is cut then."""
    with contextlib.redirect_stdout(io.StringIO()):
        main(["queue", str(file.parents[1]), "--audit", "2"])
    _cut(file)


def _planted(file: Path) -> None:
    file.write_text('{"seed": 0, "plants": [], "seen": []}')


def _signed(file: Path) -> None:
    """A review in which a case was signed; one voxel of it was changed after that."""
    with contextlib.redirect_stdout(io.StringIO()):
        main(["accept", str(file.parents[2]), "case_01", "--user", "anna", "--sign", "Anna Weber"])
    values = drawn()
    values[0, 0, 0] = 2
    write_labels(file / "v0001.nii.gz", values, Geometry.of(values.shape, AFFINE))


def _delivered(file: Path) -> None:
    """What was delivered, and then cut."""
    with contextlib.redirect_stdout(io.StringIO()):
        masks = file.parents[1] / "masks"
        main(["accept", str(masks), "case_01", "--user", "anna", "--sign", "Anna Weber"])
        main(["deliver", str(masks), str(file.parent), "--user", "anna"])
    _cut(file)


def _corrected(shift_mm: float, value: int) -> Callable[[Path], object]:
    """A corrected mask that lies elsewhere, or in which one voxel has another value."""

    def spoil(file: Path) -> None:
        values = drawn()
        values[0, 0, 0] = value
        affine = AFFINE.copy()
        affine[2, 3] += shift_mm
        write_labels(file, values, Geometry.of(values.shape, affine))

    return spoil


BOX = np.zeros(Grid().shape, bool)
BOX[1:4, 2:8, 3:7] = True
OPEN = [contour(_grid(1).points(2, [(1, 1), (1, 5), (5, 5)]), "OPEN_PLANAR")]
BETWEEN = [contour(_grid(1).points(2.5, [(1, 1), (1, 5), (5, 5)]))]
TREE = ("plan-and-preprocess", "patients", "work", "--plan-only", "--device", "cpu")
RS = "patients/p1/drawn.dcm"
CT = "patients/p1/CT/s003.dcm"

CHECK = ("check", "raw")
PLAN = ("plan-and-preprocess", "raw", "work", "--plan-only", "--device", "cpu")
PREDICT = ("predict", "model", "raw/imagesTr", "out", "--device", "cpu")
IMPORT = ("import-nnunet", "theirs", "imported")
SCORE = ("evaluate", "raw/labelsTr", "raw/labelsTr", "--no-surface")
MEASURE = ("measure", "raw/labelsTr", "--images", "raw/imagesTr", "--output", "measures.csv")
FEATURES = (*MEASURE, "--radiomics", "--settings", "radiomics.json")
OUTCOME = ("outcome", "features.csv", "patients.csv", "--target", "died", "--output", "out")
STRESS = ("stress", "model", IMAGE, "out", "--quick", "--device", "cpu")
PRETRAIN = ("pretrain", "work", "2d", "--images", "more", "--epochs", "1", "--device", "cpu")
BEGIN = ("train", "work", "2d", "0", "--init-from", "start.pth", "--epochs", "1", "--device", "cpu")
ACCEPT = ("accept", "masks", "case_01", "--user", "anna")
SCANNER_POINTS = {"markups": [{"type": "Fiducial", "coordinateSystem": "IJK", "controlPoints": []}]}
REFINED = ("--output", "new.nii.gz", "--device", "cpu", "--clicks")
CLICKED = ("refine", "refiner", IMAGE, MASK, *REFINED, "clicks.json")
POINTED = ("refine", "refiner", IMAGE, MASK, *REFINED, "bright.mrk.json")
QUEUE = ("queue", "masks")
WEIGHED = (*QUEUE, "--weights", "weights.csv")
STATIC = ("review", "masks", "--static", "review.html")
CORRECTED = ("import-corrected", "masks", "corrected", "--user", "anna")
DELIVER = ("deliver", "masks", "out", "--user", "anna")
SPLITS = (*PLAN, "--splits", "splits.json")
JOIN = ("join", "raw", "other", "--output", "joined")
TWICE = ("join", "raw", "raw", "--output", "joined", "--called", "raw", "b", "--labels", "labels.csv")
JOINED = "source,label,joined\nraw,liver,liver\n"
SITES = "case,site\ncase_00,A\ncase_01,A\ncase_02,B\n"
THEIRS = "theirs/nnUNetTrainer__nnUNetPlans__3d_fullres"
CASES = (
    BadInput(IMAGE, "cut", _cut, CHECK),
    BadInput(IMAGE, "one bit flipped", _bit, PLAN),
    BadInput(IMAGE, "empty", _text(""), PLAN),
    BadInput(IMAGE, "a link to a file that is gone", _linked, PLAN),
    BadInput(IMAGE, "cut", _cut, PREDICT),
    BadInput(IMAGE, "a link to a file that is gone", _linked, PREDICT),
    BadInput(MASK, "cut", _cut, PLAN),
    BadInput(MASK, "one bit flipped", _bit, SCORE),
    BadInput(MASK, "cut", _cut, MEASURE),
    BadInput(IMAGE, "cut", _cut, MEASURE),
    BadInput("raw/labelsTr", "has no structure of a name", _nothing, (*MEASURE, "--only", "spleen")),
    BadInput("measures.csv", "a table of another program", _text("a,b\n1,2\n"), MEASURE),
    BadInput("radiomics.json", "settings of another modality", _radiomics("CT", bin_width=25.0), FEATURES),
    BadInput("radiomics.json", "bins of one width, of no CT", _radiomics("other", bin_width=25.0), FEATURES),
    BadInput("radiomics.json", "an unknown key", _radiomics("other", levels=32, bins=32), FEATURES),
    BadInput("raw/labelsTr", "fewer than 10 cases to compare", _nothing, (*MEASURE, "--radiomics", "--stability")),
    BadInput("raw/labelsTr", "a filter that is none", _nothing, (*MEASURE, "--radiomics", "--filters", "wavelet")),
    BadInput("features.csv", "a text among numbers", _cohort(features={3: "large"}), OUTCOME),
    BadInput("features.csv", "features of two settings", _cohort(settings={3: "ffff0000"}), OUTCOME),
    BadInput("patients.csv", "one outcome for all", _cohort(outcomes=dict.fromkeys(range(50), "1")), OUTCOME),
    BadInput("patients.csv", "outcomes that are no yes and no", _cohort(outcomes={0: "dead"}), OUTCOME),
    BadInput("patients.csv", "two outcomes of one patient", _cohort(again="case_00,0,60,F\n"), OUTCOME),
    BadInput("patients.csv", "fewer than 20 events", _cohort(outcomes=dict.fromkeys(range(5, 20), "0")), OUTCOME),
    BadInput("patients.csv", "lacks the column", _cohort(), (*OUTCOME, "--covariates", "weight")),
    BadInput("patients.csv", "texts in a covariate", _cohort(again="x,0,old,F\n"), (*OUTCOME, "--covariates", "age")),
    BadInput("patients.csv", "nobody who was measured", _strangers, OUTCOME),
    BadInput("outcome_model.json", "cut", _model_of_outcome, (*OUTCOME, "--model", "outcome_model.json")),
    BadInput(IMAGE, "cut", _cut, STRESS),
    BadInput("raw/labelsTs", "no masks of an expert", _nothing, (*STRESS, "--reference", "raw/labelsTs")),
    BadInput("out", "a file in the place of the folder", _text("x"), STRESS),
    BadInput("masks", "has no case of a name", _nothing, ("accept", "masks", "case_09")),
    BadInput("masks/review/log.jsonl", "a line was changed", _line_changed, ACCEPT),
    BadInput("masks/review/policy.json", "an unknown key", _policy, ACCEPT),
    BadInput("decisions.json", "no list", _text("{}"), ("accept", "masks", "--from", "decisions.json")),
    BadInput("masks/review/queue.json", "cut", _queue, STATIC),
    BadInput("masks", "tells nothing of how far it may be trusted", _nothing, QUEUE),
    BadInput("masks/uncertainty.csv", "no column of doubt", _text("case,dice\ncase_01,0.9\n"), QUEUE),
    BadInput("weights.csv", "a structure that is not there", _doubt(_text("structure,weight\nlung,2\n")), WEIGHED),
    BadInput("weights.csv", "a weight below 0", _doubt(_text("structure,weight\nliver,-1\n")), WEIGHED),
    BadInput("masks/review/audit.json", "cut", _doubt(_audited), QUEUE),
    BadInput("masks/review/plants/plants.json", "an unknown key", _doubt(_planted), QUEUE),
    BadInput("masks", "no audit was drawn", _doubt(_nothing), (*QUEUE, "--read-audit")),
    BadInput("masks", "more errors to plant than 5 of 100 items", _doubt(_nothing), (*QUEUE, "--plant", "3")),
    BadInput("masks", "no errors are planted", _doubt(_nothing), (*QUEUE, "--reveal")),
    BadInput("review.html", "no page", _text("notes"), STATIC),
    BadInput("corrected/case_01.nii.gz", "lies elsewhere", _corrected(2, 1), CORRECTED),
    BadInput("corrected/case_01.nii.gz", "a value that is no label", _corrected(0, 3), CORRECTED),
    BadInput("corrected/case_07.nii.gz", "is of no case", _corrected(0, 1), CORRECTED),
    BadInput("masks/case_01.nii.gz", "a draft that nobody signed", _nothing, DELIVER),
    BadInput("masks/case_01.nii.gz", "a draft that nobody signed", _nothing, (*DELIVER, "--cases", "case_01")),
    BadInput("masks/review/labels/case_01", "a voxel was changed after it was signed", _signed, DELIVER),
    BadInput("out/case_01.nii.gz", "cut, after it was delivered", _delivered, (*DELIVER, "--check")),
    BadInput("patients/p1/segments.dcm", "a DICOM SEG of a series that is not there", _segment_of(7), TREE),
    BadInput(RS, "an RTSTRUCT without a contour", _rewritten(1, {"Liver": []}), TREE),
    BadInput(RS, "an RTSTRUCT of open contours", _rewritten(1, {"Liver": OPEN}), TREE),
    BadInput(RS, "contours between two slices", _rewritten(1, {"Liver": BETWEEN}), TREE),
    BadInput(RS, "an RTSTRUCT of a series that is not there", _rewritten(7, {"Liver": contours_of(BOX)}), TREE),
    BadInput(RS, "cut", _cut, TREE),
    BadInput(RS, "the last slice that was drawn on is missing", _without_last_slice, TREE),
    BadInput("patients/structures.csv", "a name that has no line", _text("structure,label\nCord,cord\n"), TREE),
    BadInput("patients/structures.csv", "missing", _gone, TREE),
    BadInput(CT, "no PatientID", _nobody, (*TREE, "--pseudonyms", "names.csv")),
    BadInput("names.csv", "no column of names", _text("patient\nID1\n"), (*TREE, "--pseudonyms", "names.csv")),
    BadInput("raw/dataset.json", "not JSON", _text("{labels: 1}"), CHECK),
    BadInput("raw/dataset.json", "no object", _text("[]"), CHECK),
    BadInput("raw/dataset.json", "200 000 brackets", _text("[" * 200_000), CHECK),
    BadInput("raw/dataset.json", "labels that are a number", _field("labels", 3), CHECK),
    BadInput("raw/dataset.json", "no channels", _field("channel_names", {}), CHECK),
    BadInput("raw/dataset.json", "annotated: no such structure", _field("annotated", {"case_*": ["liver"]}), CHECK),
    BadInput("raw/dataset.json", "annotated: fits no case", _field("annotated", {"siteA_*": ["dark"]}), CHECK),
    BadInput("raw/dataset.json", "a value of what nobody drew", _field("annotated", {"case_01": ["bright"]}), PLAN),
    BadInput("raw/dataset.json", "annotated in no case", _field("annotated", {"case_*": ["bright"]}), CHECK),
    BadInput("other", "holds the images of the first data set", lambda folder: write_raw(folder, 3), JOIN),
    BadInput("labels.csv", "a label that is not there", _text(JOINED), TWICE),
    BadInput("raw/label_maps.json", "a list", _text("[1]"), CHECK),
    BadInput("raw/names.json", "a number for a name", _text('{"bright": 1}'), CHECK),
    BadInput("raw/names.json", "a label that is not there", _text('{"bright": ["亮"], "liver": ["肝"]}'), CHECK),
    BadInput("raw/codes.csv", "no column of codes", _text("name,side\nbright,left\n"), CHECK),
    BadInput("groups.csv", "no column of patients", _text("a;b\n1;2\n"), (*CHECK, "--groups", "groups.csv")),
    BadInput("sites.csv", "lacks the column", _text("case,age\n1,2\n"), (*PLAN, "--leave-out-by", "sites.csv:site")),
    BadInput(
        "sites.csv", "lacks a case", _text(SITES.replace("case_02", "x")), (*PLAN, "--leave-out-by", "sites.csv:site")
    ),
    BadInput(
        "sites.csv", "a patient in two groups", _text(SITES), (*SCORE, "--by", "sites.csv:site", "--groups", "(case)")
    ),
    BadInput("splits.json", "a case that is not there", _text('[{"train": ["x"], "val": ["y"]}]'), SPLITS),
    BadInput("model/plan.json", "cut", _cut, PREDICT),
    BadInput("model/plan.json", "a field of a later version", _field("later", 1), PREDICT),
    BadInput(f"model/{WEIGHTS}", "cut", _cut, PREDICT),
    BadInput(f"model/{WEIGHTS}", "one bit flipped", _bit, PREDICT),
    BadInput("model/selection.json", "not JSON", _text("{"), PREDICT),
    BadInput("model/selection.json", "a temperature of 0", _decoding("bright", 0), PREDICT),
    BadInput("model/selection.json", "decodes what the model has not", _decoding("liver", 1.5), PREDICT),
    BadInput("model/quality.json", "not there", _nothing, (*PREDICT, "--plausible")),
    BadInput("model/quality.json", "cut", _text('{"format": "segfw qual'), (*PREDICT, "--plausible")),
    BadInput("model", "a model without its data", _nothing, ("retrain", "model", "out", "--labels", "masks")),
    BadInput("more", "holds what fold 0 validates on", _unlabelled(seen=True), PRETRAIN),
    BadInput("more", "images of two channels", _unlabelled(channels=2), PRETRAIN),
    BadInput("start.pth", "of another architecture", _unlabelled(), BEGIN),
    BadInput("clicks.json", "a click outside the image", _click("bright", ras_mm=[500.0, 0.0, 0.0]), CLICKED),
    BadInput("clicks.json", "a label that is not there", _click("liver"), CLICKED),
    BadInput("clicks.json", "a click inside another label", _click("bright", inside_of=7), CLICKED),
    BadInput("clicks.json", "a place of two numbers", _click("bright", ras_mm=[1.0, 2.0]), CLICKED),
    BadInput("clicks.json", "no list", _text("{}"), CLICKED),
    BadInput("clicks.json", "an empty list", _text("[]"), CLICKED),
    BadInput("bright.mrk.json", "no point list", _text("{}"), POINTED),
    BadInput("bright.mrk.json", "a system of axes that is none", _text(json.dumps(SCANNER_POINTS)), POINTED),
    BadInput("points.csv", "no columns of axes", _text("x,y\n1,2\n"), (*CLICKED[:-1], "points.csv")),
    BadInput("model", "a model without a refiner", _nothing, ("refine", "model", *CLICKED[2:])),
    BadInput("two_channels", "a refiner of two channels", _nothing, ("refine", "two_channels", *CLICKED[2:])),
    BadInput(f"{THEIRS}/plans.json", "no object", _text("[]"), IMPORT),
    BadInput(THEIRS, "asked for axes that there are not", _nothing, (*IMPORT, "--trained-on", "LAX")),
    BadInput(f"{THEIRS}/dataset.json", "cut", _cut, IMPORT),
    BadInput(f"{THEIRS}/fold_0/checkpoint_final.pth", "one bit flipped", _bit, IMPORT),
)


def _said(case: BadInput) -> tuple[str, int]:
    """What the command prints of the case, in a folder of its own, and its exit code."""
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        root = Path(place)
        write_raw(root / "raw", 3)
        _tree(root)
        small_model(root / "model")
        trained_folder(root / "theirs")
        masks_folder(root, ("case_01", "case_02"))
        _refiner(root / "refiner")
        _refiner(root / "two_channels", channels=2)
        case.spoil(root / case.file)
        shown = io.StringIO()
        errors = io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(errors):
            code = main([*case.command])
    lines = [line.strip() for line in (errors.getvalue() + shown.getvalue()).replace(f"{place}/", "").splitlines()]
    name = Path(case.file).name.partition(".")[0]
    named = [line for line in lines if name in line or name.removesuffix("_0000") in line] or lines
    return named[0].removeprefix("segfw: "), code


def page() -> str:
    rows = []
    for case in CASES:
        sentence, code = _said(case)
        sentence = re.sub(r"([|<>*_\[\]\\`])", r"\\\1", sentence)
        rows.append(f"| `{case.file}` | {case.wrong} | `segfw {' '.join(case.command)}` | {sentence} | {code} |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
