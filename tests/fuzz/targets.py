"""What is damaged: every kind of file that segfw reads, with the function that reads it.

A target's folder is made once. Of its ``file`` damaged copies are put in place, one at a time, and ``read`` is called,
which gives a value or raises.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np

from builders.calibrated import calibrated_model
from builders.data import write_raw, write_slices
from builders.dicom_masks import (
    Grid,
    contours_of,
    write_enhanced,
    write_seg_nrrd,
    write_segmentation,
    write_series,
    write_structures,
)
from builders.nnunet import plans, trained_folder
from builders.quality_files import region, structure, write_quality
from builders.review import AFFINE, ANNA, masks_folder
from builders.review import LABELS as REVIEWED
from builders.review import SHAPE as REVIEWED_SHAPE
from builders.written_before import WRITTEN
from fuzz import later_targets as later
from fuzz.mutations import BINARY, GZIP, JSON, TEXT, ZIP, Mutation
from segfw.base.errors import UserError
from segfw.base.file_names import REGIONS_ENDING
from segfw.base.records import Record
from segfw.base.settings_file import read_settings, settings_text
from segfw.base.written_by_people import read_json
from segfw.clicks.click_files import read_clicks
from segfw.dataset.case_values import TableColumn, values_of_cases, values_of_patients
from segfw.dataset.cases import Case, Channel, DatasetManifest
from segfw.dataset.dataset_json import with_label_maps
from segfw.dataset.label_names import read_label_table
from segfw.dataset.labels import LabelSet
from segfw.dataset.layouts import find_dataset
from segfw.dataset.patients import read_groups
from segfw.dataset.pseudonyms import pseudonyms_of
from segfw.dataset.structure_map import read_structure_map
from segfw.evaluation.mask_facts import MaskFacts, Training
from segfw.evaluation.metrics import Scores
from segfw.grid.store import open_case
from segfw.images.formats import read_mask, read_volume
from segfw.images.geometry import Geometry
from segfw.inference.averaged_folder import EnsembleSettings
from segfw.inference.first_stage import FirstStage, HandedOn
from segfw.inference.held_out_counts import CaseCounts
from segfw.inference.mask_settings import PredictionSettings
from segfw.inference.output_folder import PredictedCase
from segfw.inference.probabilities import read_probabilities
from segfw.inference.uncertainty import CaseDoubt
from segfw.measurements.first_order import first_order
from segfw.measurements.masks_to_measure import FoundMasks, MaskCase
from segfw.measurements.measures_folder import MeasuresFolder, MeasuringSettings
from segfw.measurements.structure_measures import CaseMeasures, StructureMeasures
from segfw.measurements.whole_cohort import gathered
from segfw.model.calibration_facts import CalibrationFacts
from segfw.model.card import fold_facts
from segfw.model.load import load_model
from segfw.model.postprocess import Postprocessing
from segfw.model.pretraining_record import PretrainingRecord
from segfw.model.selection import load_postprocessing, load_selection
from segfw.model.source import QUALITY_FILE
from segfw.model.training_record import RunRecord, read_curve
from segfw.nnunet.followed_plans import followed_plan
from segfw.nnunet.postprocessing_files import UnknownError, read_postprocessing
from segfw.onnx.pipeline import pipeline_of
from segfw.onnx.runner import read_pipeline
from segfw.outcomes.outcome_model import OutcomeModel
from segfw.perturbations.perturbation import Perturbation
from segfw.planning.fingerprint import Fingerprint
from segfw.planning.kept_scan import Scan
from segfw.planning.plan import Plan
from segfw.planning.splits import Splits, import_splits
from segfw.pretraining.start_results import StartsSummary
from segfw.quality.case_quality import CaseQuality
from segfw.quality.input_gate import GateVerdict
from segfw.quality.quality_model import QualityModel, StructureQuality
from segfw.radiomics.features_records import CaseFeatures, StructureFeatures
from segfw.radiomics.radiomics_settings import ChannelProcessing, RadiomicsSettings
from segfw.reviewing.leases import Lease
from segfw.reviewing.mask_version import MaskVersion
from segfw.reviewing.noted_decisions import read_decisions
from segfw.reviewing.review_log import LogReader, read_anchors
from segfw.reviewing.review_policy import ReviewPolicy
from segfw.reviewing.review_store import ReviewStore
from segfw.reviewing.scripted_steps import Signature, accept_case
from segfw.robustness.stress_folder import StressSettings
from segfw.robustness.stress_records import CaseStress, Effect, StructureEffect
from segfw.standing.of_measures import measures_standing
from segfw.standing.of_pretraining import PretrainingFacts
from segfw.training.settings import RunOptions, TrainSettings
from segfw.training.stop_file import StopFile
from segfw.verbs.check import check_dataset
from segfw.verbs.import_nnunet import import_nnunet
from segfw.verbs.queue import queue
from segfw.worklist.audit_sample import audit_file
from segfw.worklist.made_errors import KINDS
from segfw.worklist.planted_cases import Plant, PlantedCases, PlantFile
from segfw.worklist.queue_file import queue_file, read_queue
from segfw.worklist.queue_options import QueueOptions
from segfw.worklist.structure_weights import read_weights
from segfw.worklist.work_queue import found_items, made_queue

IDS = [f"case_{number:02}" for number in range(6)]
SHAPE = (6, 9, 7)
LABELS = (np.indices(SHAPE).sum(0) // 4 % 3).astype(np.uint8)
IMAGE = np.random.default_rng(5).normal(100, 30, SHAPE).astype(np.int16)


class Target(NamedTuple):
    """One kind of file: ``make`` fills a folder and gives the file in it that is to be damaged."""

    make: Callable[[Path], Path]
    read: Callable[[Path], object]
    mutations: Mapping[str, Mutation]
    holds_voxels: bool = False  # then no cut may change what is read
    has_checksum_from: Callable[[bytes], int] | None = None  # from this byte on no bit may change what is read


# ---- images ----


def _saved(name: str, array: np.ndarray, **options: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        if ".nii" in name or name.endswith(".hdr"):
            image = nibabel.Nifti1Pair if name.endswith(".hdr") else nibabel.Nifti1Image
            nibabel.save(image(array.T, np.diag([1.0, 1.5, 4.0, 1.0])), path)
        elif name.endswith((".tif", ".tiff")):
            from tifffile import imwrite

            imwrite(path, array, photometric="minisblack", **options)
        else:
            from PIL import Image

            Image.fromarray(array[0].astype(np.uint8)).save(path)
            (folder / f"{path.stem}.json").write_text('{"spacing": [1, 0.5, 0.5]}')
        return path

    return make


def _by_itk(name: str, array: np.ndarray, *, is_compressed: bool) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import SimpleITK

        image = SimpleITK.GetImageFromArray(array)
        image.SetSpacing((1.0, 1.5, 4.0))
        SimpleITK.WriteImage(image, folder / name, is_compressed)
        return folder / name

    return make


def _series(folder: Path) -> Path:
    places = np.array([[0.0, 0.0, 3.0 * number] for number in range(len(IMAGE))])
    series = write_slices(folder / "series", IMAGE, positions=places, axes=np.eye(3)[:2])
    return sorted(series.iterdir())[2]


GRID = Grid(shape=SHAPE)


def _structures(folder: Path) -> Path:
    write_series(folder / "ct", IMAGE, GRID)
    return write_structures(folder / "rs.dcm", {"a": contours_of(LABELS == 1, GRID), "b": []}, GRID)


def _segments(kind: str) -> Callable[[Path], Path]:
    masks = {"a": LABELS == 1, "b": LABELS == 2}
    return lambda folder: write_segmentation(folder / "seg.dcm", masks, GRID, kind=kind)


def _frames(folder: Path) -> Path:
    return write_enhanced(folder / "a.dcm", LABELS + 1, GRID)


def _slicer(folder: Path) -> Path:
    return write_seg_nrrd(folder / "a.seg.nrrd", LABELS[None], {"liver": (1, 0), "spleen": (2, 0)})


def _pseudonyms(folder: Path) -> Path:
    write_series(folder / "ct", IMAGE[:2], GRID)
    (folder / "names.csv").write_text("patient,name\nP-1,Berlin\nP-2,Oslo\n")
    return folder / "names.csv"


def _named_by(file: Path) -> object:
    return pseudonyms_of([Case(id="a", images=(file.parent / "ct",))], file, writes=False)


def _side_file(folder: Path) -> Path:
    return _saved("a.png", LABELS)(folder).with_suffix(".json")


def _beside(make: Callable[[Path], Path], pattern: str) -> Callable[[Path], Path]:
    """The file with the voxels, where the one that is read names it."""
    return lambda folder: (make(folder), next(folder.glob(pattern)))[1]


def _array_of(file: Path) -> object:
    volume = read_volume(file)
    return volume.array.shape, zlib.crc32(np.ascontiguousarray(volume.array).tobytes())


def _mask_of(file: Path) -> object:
    volume = read_mask(file)
    return volume.array.shape, zlib.crc32(np.ascontiguousarray(volume.array).tobytes())


def _first_byte(_: bytes) -> int:
    return 0


def _after(words: bytes) -> Callable[[bytes], int]:
    return lambda content: content.index(words) + len(words)


MHA = _by_itk("a.mha", IMAGE, is_compressed=True)
MHD = _by_itk("a.mhd", LABELS, is_compressed=True)
IMAGES = {
    ".nii": Target(_saved("a.nii", IMAGE), _array_of, BINARY, True),
    ".nii.gz": Target(_saved("a.nii.gz", IMAGE), _array_of, GZIP, True, _first_byte),
    ".nii.gz mask": Target(_saved("a.nii.gz", LABELS), _mask_of, GZIP, True, _first_byte),
    ".hdr and .img": Target(_saved("a.hdr", IMAGE), _array_of, BINARY, True),
    ".nrrd": Target(_by_itk("a.nrrd", IMAGE, is_compressed=False), _array_of, TEXT, True),
    ".nrrd compressed": Target(_by_itk("a.nrrd", IMAGE, is_compressed=True), _array_of, TEXT, True, _after(b"\n\n")),
    ".mha": Target(_by_itk("a.mha", IMAGE, is_compressed=False), _array_of, TEXT, True),
    ".mha compressed": Target(MHA, _array_of, TEXT, True, _after(b"LOCAL\n")),
    ".mhd": Target(MHD, _mask_of, TEXT, True),
    ".zraw of .mhd": Target(
        _beside(MHD, "*.zraw"), lambda file: _mask_of(file.with_suffix(".mhd")), BINARY, True, _first_byte
    ),
    ".raw of .mhd": Target(
        _beside(_by_itk("a.mhd", IMAGE, is_compressed=False), "*.raw"),
        lambda file: _array_of(file.with_suffix(".mhd")),
        BINARY,
        True,
    ),
    "DICOM": Target(_series, lambda file: _array_of(file.parent), BINARY, True),
    ".png": Target(_saved("a.png", LABELS), _array_of, BINARY, True, _first_byte),
    ".png mask": Target(_saved("a.png", LABELS), _mask_of, BINARY, True, _first_byte),
    ".bmp": Target(_saved("a.bmp", LABELS), _mask_of, BINARY, True),
    ".gif": Target(_saved("a.gif", LABELS), _mask_of, BINARY, True),
    ".jpg": Target(_saved("a.jpg", IMAGE), _array_of, BINARY),
    ".tif": Target(_saved("a.tif", IMAGE), _array_of, BINARY, True),
    ".tif compressed": Target(_saved("a.tif", LABELS, compression="zlib"), _mask_of, BINARY, True),
    "side file of a picture": Target(_side_file, lambda file: _array_of(file.with_suffix(".png")), JSON),
    "RTSTRUCT": Target(_structures, _mask_of, BINARY, True),
    "DICOM SEG": Target(_segments("BINARY"), _mask_of, BINARY, True),
    "DICOM SEG of labels": Target(_segments("LABELMAP"), _mask_of, BINARY, True),
    "enhanced DICOM": Target(_frames, _array_of, BINARY, True),
    ".seg.nrrd": Target(_slicer, _mask_of, TEXT, True, _after(b"\n\n")),
}


# ---- text ----


def _calibration(folder: Path) -> Path:
    """The quality.json of a model with drawn weights and made-up calibration items."""
    return calibrated_model(folder / "model") / QUALITY_FILE


def _judged(folder: Path) -> Path:
    """What is told of a case with one structure in doubt."""
    structure = StructureQuality(
        label="a",
        value=3,
        predicted_dice=0.71,
        lower_bound=0.5,
        alpha=0.1,
        p_fail=0.4,
        verdict="look",
        ranking=0.8,
        features={"pair": 0.8, "volume_z": None},
        reasons=("the folds agree on only 0.80 of it",),
        volume_ml=1.5,
        volume_interval_ml=(1.2, 1.9),
    )
    told = CaseQuality(
        case="a",
        model_digest="a digest",
        quality_digest="another",
        folds=("0", "1"),
        gate=GateVerdict(score=1.5, percentile=100.0, verdict="odd", reasons=("noisier than any training image",)),
        structures=(structure,),
        guarantee="withdrawn: the image is odd",
    )
    told.save(folder / "a.json")
    return folder / "a.json"


def _written(name: str) -> Callable[[Path], Path]:
    """A copy of a file that segfw wrote, in its own folders."""

    def make(folder: Path) -> Path:
        whole = WRITTEN / name.partition("/")[0]
        if whole.is_dir():
            shutil.copytree(whole, folder / whole.name)
        else:
            shutil.copy(whole, folder)
        return folder / name

    return make


def _text(name: str, content: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return folder / name

    return make


def _raw(name: str, content: object = None) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        raw = write_raw(folder / "raw", 3)
        if content is not None:
            (raw / name).write_text(json.dumps(content))
        return raw / name

    return make


def _described(file: Path) -> object:
    found = with_label_maps(find_dataset(file.parent))
    return [case.id for case in found.cases], found.labels, len(found.findings)


def _text_in_raw(name: str, content: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = write_raw(folder / "raw", 3) / name
        path.write_text(content, "utf-8")
        return path

    return make


def _repaired(file: Path) -> object:
    with tempfile.TemporaryDirectory() as out:
        return check_dataset(file.parent, fix=Path(out) / "fixed", workers=1)


def _asked_to_stop(file: Path) -> object:
    looks = StopFile(file.with_name("elsewhere"), now_s=lambda: 1e9, look_every_s=0)
    looks.path = file
    return looks.asked()


def _imported(file: Path) -> object:
    with tempfile.TemporaryDirectory() as out:
        return import_nnunet(next(parent for parent in file.parents if parent.name == "theirs"), Path(out) / "model")


def _facts(file: Path) -> object:
    fold = file.parent.parent if file.name == "scores.json" else file.parent
    return fold_facts(fold, "2d", "0", fold / "weights.safetensors")


def _theirs(name: str) -> Callable[[Path], Path]:
    return lambda folder: next(trained_folder(folder / "theirs").parent.rglob(name))


def _loaded(file: Path) -> object:
    model = next((parent for parent in file.parents if parent.name in ("work", "imported")), file)
    return sorted(load_model(model).weights)


def _pipeline(folder: Path) -> Path:
    """What an ONNX export says beside its networks."""
    model = load_model(WRITTEN / "imported")
    (folder / "pipeline.json").write_text(json.dumps(pipeline_of(model, ["network_fold_0.onnx"])))
    return folder / "pipeline.json"


def _read_pipeline(file: Path) -> object:
    try:
        return sorted(read_pipeline(file))
    except SystemExit as error:  # its runner knows no UserError
        raise UserError(str(error.code)) from None


def _reviewed(name: str) -> Callable[[Path], Path]:
    """A file of a review, in which case a is signed and somebody has b open."""

    def make(folder: Path) -> Path:
        review = ReviewStore.open(masks_folder(folder))
        accept_case(review, "a", ANNA, 3.5, Signature(name="Anna", meaning="review"))
        review.open_case("b", ANNA)
        return review.folder / "review" / name

    return make


def _queued(file_of: Callable[[Path], Path], *, has_quality: bool = True) -> Callable[[Path], Path]:
    """A file of a queue of 20 cases with an audit and a planted error, or of one that is ranked by doubt."""

    def make(folder: Path) -> Path:
        cases = tuple(f"case_{number:02}" for number in range(20))
        masks = masks_folder(folder, cases)
        if has_quality:
            for number, case in enumerate(cases):
                judged = [structure("liver", 0.9 - 0.02 * number), structure("spleen", 0.95, value=2)]
                write_quality(masks, case, judged, [region(1, "spleen", 150.0, slices=(3,))])
            plant = Plant(id="case_90", source="case_03", structure="liver", kind=KINDS[0])
            PlantFile(plants=(plant,)).save(PlantedCases(masks).file)
            queue(masks, audit=4)
        else:
            lines = [f"{case},0.{number:02}\n" for number, case in enumerate(cases)]
            (masks / "uncertainty.csv").write_text("case,entropy\n" + "".join(lines))
        return file_of(masks)

    return make


def _queue_read(file: Path) -> object:
    made = read_queue(file.parents[1])
    return None if made is None else [(item.case, item.structure, item.role) for item in made.items()]


def _queue_made(file: Path) -> object:
    """The queue of the folder of masks that a file lies in, which nothing is written of."""
    review = ReviewStore.open(next(parent for parent in file.parents if parent.name == "masks"))
    return len(made_queue(review, found_items(review, QueueOptions()), QueueOptions()))


def _clicks_of(file: Path) -> object:
    return read_clicks(file, REVIEWED, Geometry.of(REVIEWED_SHAPE, AFFINE))


def _events(file: Path) -> object:
    return [event["n"] for event in LogReader(file).more()]


def _of_record(record: Record) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        record.save(folder / "record.json")
        return folder / "record.json"

    return make


def _measures(folder: Path) -> Path:
    kept = MeasuresFolder(path=folder / "kept")
    kept.keep(MEASURED)
    case = MaskCase(id="a", mask=folder / "a.nii.gz")
    found = FoundMasks(cases=(case,), labels=MEASURING.labels, channels=("CT",))
    gathered(kept, found, MEASURING, Path("masks"), None, None).save(folder / "measures.json")
    return folder / "measures.json"


def _standing_of_measures(file: Path) -> object:
    found = measures_standing(file)
    if found is None:
        raise UserError(f"{file}: is no file of measures")
    return found


def _postprocessing_of_theirs(file: Path) -> object:
    try:
        return read_postprocessing(file, LabelSet(names=("background", "small", "large"), values=(0, 1, 2)))
    except UnknownError as error:
        raise UserError(f"{file}: {error}") from None


def _followed(file: Path) -> object:
    manifest = DatasetManifest.load(WRITTEN / "work" / "manifest.json")
    manifest = manifest.model_copy(update={"channels": (Channel(name="CT"), Channel(name="PET"))})
    return sorted(followed_plan(manifest, read_json(file), file).configurations)


KEEP_LARGEST = {
    "postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"],
    "postprocessing_kwargs": [{"labels_or_regions": [1, 2]}],
}
NOTED = [{"case": "a", "structure": "liver", "decision": "accept", "user": "Anna", "sha256": "0af3"}]
ANCHORS = '{"n":3,"sha256":"0af3","utc":"2026-03-01T08:00:00Z"}\n'
STRUCTURES = "structure,label,value\nSpinal Cord,cord,1\nliver,liver,2\nBODY,,\n*,,\n"
STAGE = FirstStage(configuration="3d_lowres", weights={"0": "a digest", "1": "another"})
AVERAGED = EnsembleSettings(models=("a", "b"), weights=(1.0, 0.5), postprocessing=Postprocessing())
FACTS = MaskFacts(images="../images", training=(Training(configuration="2d", fold="0", steps=3, seconds=1.5),))
MEASURING = MeasuringSettings(
    labels=LabelSet(names=("background", "liver"), values=(0, 1)),
    channels=("CT",),
    only=("liver",),
    per_component=False,
)
STRESSING = StressSettings(
    prediction=PredictionSettings(configuration="2d", folds=("0",), weights_digest="0af3", step=0.5, mirroring=True),
    has_reference=True,
)
STRESSED = CaseStress(
    id="a",
    sources=(("a_0000.nii.gz", 99, 18),),
    voxels=1000,
    tried="some",
    effects=(
        Effect(
            perturbation=Perturbation(name="noise", kind="degrades", level=0.3, unit="sd of the foreground"),
            changed_voxels=17,
            structures=(
                StructureEffect(
                    structure="liver",
                    voxels_before=90,
                    voxels_after=80,
                    agreement=0.9,
                    ceiling=None,
                    dice_before=0.8,
                    dice_after=0.75,
                    expected=True,
                    found_before=True,
                    found_after=True,
                ),
            ),
        ),
        Effect(perturbation=Perturbation(name="origin", kind="exact"), problem="too small"),
    ),
)
FEATURES = CaseFeatures(
    id="case",
    sources=(("case.nii.gz", 100, 200),),
    structures=(
        StructureFeatures(
            structure="liver", status="cut", reason="it is cut", values=(1.5, None), versions=((1.25, 2.0), (None, 2.5))
        ),
    ),
    versions=2,
)
OF_FEATURES = RadiomicsSettings(
    voxel_mm=1.5,
    texture="2.5d",
    channels={"CT": ChannelProcessing(modality="CT", bin_width=25.0, range=(-100.0, 400.0), whole_numbers=True)},
    log_mm=(2.0,),
    cases=12,
)
MEASURED = CaseMeasures(
    id="a",
    sources=(("a.nii.gz", 4096, 17), ("a_0000.nii.gz", 99, 18)),
    digests=("0af3", "b1"),
    unit="ml",
    structures=(
        StructureMeasures(
            case="a",
            structure="liver",
            value="1",
            status="cut",
            reason="it reaches the border of the image",
            voxels=90,
            volume_ml=1.25,
            cut_share=0.125,
            centroid_ras_mm=(1.0, -2.5, 30.0),
            channels={"CT": first_order(np.arange(9))},
        ),
    ),
)
RECORDS = (RunOptions,)
SETTINGS = settings_text([RunOptions()], "of a run")
COLOURS = "name,r,g,b\nliver,221,130,101\nspleen,157,108,162\n"
ITK_SNAP = '0 0 0 0 0 0 0 "Clear Label"\n1 255 0 0 1 1 1 "liver"\n2 0 255 0 1 1 1 "spleen"\n'
SLICER = "1 liver 221 130 101 255\n2 spleen 157 108 162 255\n"


def _values_by_site(file: Path) -> object:
    patient_of = dict.fromkeys(IDS, "one")
    asked = TableColumn(path=file, column="site")
    return values_of_patients(values_of_cases(asked, patient_of), patient_of, asked)


def _settings(file: Path) -> object:
    return sorted(read_settings(file, RECORDS))


FOLD = "work/runs/2d/fold_0"
LISTED = {
    "channel_names": {"0": "MR"},
    "labels": {"background": 0, "bright": 3, "dark": 7},
    "dataset": {
        f"c{number}": {
            "images": [f"imagesTr/case_0{number}_0000.nii.gz"],
            "label": f"labelsTr/case_0{number}.nii.gz",
        }
        for number in range(3)
    },
    "file_ending": ".nii.gz",
}
DECATHLON = {
    "modality": {"0": "MRI"},
    "labels": {"0": "background", "3": "bright", "7": "dark"},
    "training": [
        {"image": f"./imagesTr/case_0{number}_0000.nii.gz", "label": f"./labelsTr/case_0{number}.nii.gz"}
        for number in range(3)
    ],
}
GROUPS = "case;patient\n" + "".join(f"{case};p{number // 2}\n" for number, case in enumerate(IDS))
SITES = "case;age;site\n" + "".join(f"{case};6{number};north\n" for number, case in enumerate(IDS))
LABEL_NAMES = "value,name,r,g,b\n" + "".join(f"{number},part {number},{number},0,9\n" for number in range(1, 5))
FOLDS = [{"train": IDS[:4], "val": IDS[4:]}, {"train": IDS[2:], "val": IDS[:2]}]
CLICKED = [
    {"label": "liver", "ras_mm": [28.0, -18.2, 9.5], "inside": True},
    {"label": "spleen", "ras_mm": [28.4, -16.4, 12.0], "inside": False},
]
POINTED = {
    "markups": [
        {
            "type": "Fiducial",
            "name": "liver",
            "coordinateSystem": "LPS",
            "coordinateUnits": "mm",
            "controlPoints": [
                {"label": "1", "position": [-28.0, 18.2, 9.5], "positionStatus": "defined"},
                {"label": "-2", "position": [-28.4, 16.4, 12.0], "positionStatus": "defined"},
            ],
        }
    ]
}
NAPARI_POINTS = "index,axis-0,axis-1,axis-2,label,inside\n0,1,2,2,liver,true\n1,2.5,4,3,spleen,no\n"
WEIGHTS_OF_DICE = "structure,weight\nliver,2\nspleen,0.5\n"
OWN_CODES = "name,scheme,code,meaning,side\nbright,SCT,64033007,Kidney,left\ndark,99OWN,7,Dark,\n"
TEXTS = {
    "plan.json": Target(_written("work/plan.json"), Plan.load, JSON),
    "splits.json": Target(_written("work/splits.json"), Splits.load, JSON),
    "splits.json to import": Target(_written("work/splits.json"), lambda file: import_splits(file, IDS), JSON),
    "nnU-Net's splits": Target(_text("splits_final.json", FOLDS), lambda file: import_splits(file, IDS), JSON),
    "manifest.json": Target(_written("work/manifest.json"), DatasetManifest.load, JSON),
    "fingerprint.json": Target(_written("work/fingerprint.json"), Fingerprint.load, JSON),
    "scan.json": Target(_written("work/scan.json"), Scan.load, JSON),
    "selection.json": Target(_written("work/selection.json"), lambda file: load_selection(file.parent), JSON),
    "postprocessing.json": Target(
        _text("postprocessing.json", json.loads(Postprocessing().model_dump_json())), load_postprocessing, JSON
    ),
    "selection.json for its steps": Target(_written("work/selection.json"), load_postprocessing, JSON),
    "quality.json": Target(_calibration, QualityModel.load, JSON),
    "quality.json for who looks at a model": Target(_calibration, CalibrationFacts.load, JSON),
    "what is told of a case": Target(_judged, CaseQuality.load, JSON),
    "settings.json": Target(_written(f"{FOLD}/settings.json"), TrainSettings.load, JSON),
    "run.json": Target(_written(f"{FOLD}/run.json"), RunRecord.load, JSON),
    "run.json for a card": Target(_written(f"{FOLD}/run.json"), _facts, JSON),
    "metrics.jsonl": Target(_written(f"{FOLD}/metrics.jsonl"), lambda file: read_curve(file.parent), JSON),
    "metrics.jsonl for a card": Target(_written(f"{FOLD}/metrics.jsonl"), _facts, JSON),
    "scores.json": Target(_written(f"{FOLD}/validation/scores.json"), Scores.load, JSON),
    "scores.json for a card": Target(_written(f"{FOLD}/validation/scores.json"), _facts, JSON),
    "prediction.json": Target(_written("predicted/prediction.json"), PredictionSettings.load, JSON),
    "labels.json": Target(_written("predicted/labels.json"), LabelSet.load, JSON),
    "of a predicted case": Target(_written("predicted/.segfw/new_20.json"), PredictedCase.load, JSON),
    "of a case's doubt": Target(_written("predicted/uncertainty/new_20.json"), CaseDoubt.load, JSON),
    "counts of a held-out case": Target(_written("work/selection/scores/case_00.json"), CaseCounts.load, JSON),
    "first_stage.json": Target(_of_record(STAGE), FirstStage.load, JSON),
    "of handed-on labels": Target(_of_record(HandedOn(fold="0", made_from="a digest")), HandedOn.load, JSON),
    "ensemble.json": Target(_of_record(AVERAGED), EnsembleSettings.load, JSON),
    "facts of masks": Target(_of_record(FACTS), MaskFacts.load, JSON),
    "settings of measures": Target(_of_record(MEASURING), MeasuringSettings.load, JSON),
    "of a measured case": Target(_of_record(MEASURED), CaseMeasures.load, JSON),
    "of a case with features": Target(_of_record(FEATURES), CaseFeatures.load, JSON),
    "settings of features": Target(_of_record(OF_FEATURES), RadiomicsSettings.load, JSON),
    "measures.json": Target(_measures, _standing_of_measures, JSON),
    "of a case under changes": Target(_of_record(STRESSED), CaseStress.load, JSON),
    "settings of a robustness report": Target(_of_record(STRESSING), StressSettings.load, JSON),
    "log of a review": Target(_reviewed("log.jsonl"), _events, JSON),
    "of a version of a mask": Target(_reviewed("labels/a/v0001.json"), MaskVersion.load, JSON),
    "who has a case open": Target(_reviewed("locks/b.lease.json"), Lease.load, JSON),
    "policy of a review": Target(_of_record(ReviewPolicy(signers=("Ben",))), ReviewPolicy.load, JSON),
    "clicks.json": Target(_text("clicks.json", CLICKED), _clicks_of, JSON),
    "points of 3D Slicer": Target(_text("liver.mrk.json", POINTED), _clicks_of, JSON),
    "points of napari": Target(_text("points.csv", NAPARI_POINTS), _clicks_of, TEXT),
    "edits.jsonl": Target(later.edits, later.edits_of, JSON),
    "outcome_model.json": Target(_of_record(later.FROZEN), OutcomeModel.load, JSON),
    "outcome.json": Target(later.study, later.standing_of_study, JSON),
    "pretraining.json": Target(_of_record(later.PRETRAINED), PretrainingRecord.load, JSON),
    "pretraining.json for status": Target(_of_record(later.PRETRAINED), PretrainingFacts.load, JSON),
    "compare_starts.json": Target(_of_record(later.COMPARED), StartsSummary.load, JSON),
    "plan.json of a refiner": Target(later.refiner_plan, later.refiner_of, JSON),
    "queue.json": Target(_queued(queue_file), _queue_read, JSON),
    "audit.json of a queue": Target(_queued(audit_file), _queue_made, JSON),
    "planted errors of a queue": Target(_queued(lambda masks: PlantedCases(masks).file), _queue_made, JSON),
    "quality of a case in a queue": Target(
        _queued(lambda masks: masks / "quality" / "case_03.json"), _queue_made, JSON
    ),
    "regions of a case in a queue": Target(
        _queued(lambda masks: masks / "quality" / f"case_03{REGIONS_ENDING}"), _queue_made, JSON
    ),
    "doubt of cases in a queue": Target(
        _queued(lambda masks: masks / "uncertainty.csv", has_quality=False), _queue_made, TEXT
    ),
    "weights of structures": Target(
        _text("weights.csv", WEIGHTS_OF_DICE), lambda file: read_weights(file, REVIEWED.names[1:]), TEXT
    ),
    "anchor of a log": Target(_text("anchor.jsonl", ANCHORS), read_anchors, JSON),
    "decisions.json": Target(_text("decisions.json", NOTED), read_decisions, JSON),
    "nnU-Net's postprocessing.json": Target(
        _text("postprocessing.json", KEEP_LARGEST), _postprocessing_of_theirs, JSON
    ),
    "nnU-Net's plans.json to follow": Target(_text("plans.json", plans()), _followed, JSON),
    "pipeline.json of an ONNX export": Target(_pipeline, _read_pipeline, JSON),
    "file of settings": Target(_text("run.toml", SETTINGS), _settings, TEXT),
    "table of labels with colours": Target(_text("labels.csv", COLOURS), read_label_table, TEXT),
    "table of ITK-SNAP": Target(_text("labels.txt", ITK_SNAP), read_label_table, TEXT),
    "table of 3D Slicer": Target(_text("labels.ctbl", SLICER), read_label_table, TEXT),
    "dataset.json": Target(_raw("dataset.json"), _described, JSON),
    "dataset.json with a list": Target(_raw("dataset.json", LISTED), _described, JSON),
    "dataset.json of a Decathlon": Target(_raw("dataset.json", DECATHLON), _described, JSON),
    "dataset.json to repair": Target(_raw("dataset.json"), _repaired, JSON),
    "names.json": Target(_raw("names.json", {"bright": ["亮", "light"]}), _described, JSON),
    "codes.csv": Target(_text_in_raw("codes.csv", OWN_CODES), _described, TEXT),
    "label_maps.json": Target(_raw("label_maps.json", {"case_01": {"1": "bright", "2": 7}}), _described, JSON),
    "labels.csv": Target(_text("labels.csv", LABEL_NAMES), read_label_table, TEXT),
    "structures.csv": Target(_text("structures.csv", STRUCTURES), read_structure_map, TEXT),
    "table of pseudonyms": Target(_pseudonyms, _named_by, TEXT),
    "sites.csv": Target(_text("sites.csv", SITES), _values_by_site, TEXT),
    "groups.csv": Target(_text("groups.csv", GROUPS), lambda file: read_groups(file, IDS), TEXT),
    "STOP": Target(_text("STOP", "now\n"), _asked_to_stop, TEXT),
    "nnU-Net's plans.json": Target(_theirs("plans.json"), _imported, JSON),
    "nnU-Net's dataset.json": Target(_theirs("dataset.json"), _imported, JSON),
}

# ---- arrays and models ----


def _case_of(file: Path) -> object:
    case = open_case(file.parent, "case_01", in_memory=True)
    return np.asarray(case.image[:]).sum()


MODELS = {
    "nnU-Net's checkpoint": Target(_theirs("checkpoint_final.pth"), _imported, ZIP),
    "model file": Target(_written("model.zip"), _loaded, ZIP),
    "weights": Target(_written("imported/runs/3d_fullres/fold_0/weights.safetensors"), _loaded, TEXT),
    "model file of a refiner": Target(later.refiner_file, later.refiner_of, ZIP),
    "weights of a refiner": Target(later.refiner_weights, later.refiner_of, TEXT),
    "signatures of seen images": Target(later.signatures, later.signatures_of, TEXT),
    "preprocessed image": Target(_written("work/preprocessed/2d/case_01.image.b2nd"), _case_of, BINARY),
    "record of a preprocessed case": Target(_written("work/preprocessed/2d/case_01.json"), _case_of, JSON),
    "probabilities": Target(
        _written("predicted/probabilities/new_20.b2nd"), lambda file: read_probabilities(file).shape, BINARY
    ),
}
TARGETS = IMAGES | TEXTS | MODELS
