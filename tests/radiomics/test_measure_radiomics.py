"""``segfw measure --radiomics`` on folders: settings, tables, stability, what is kept, and what is refused."""

import json
import shlex
from itertools import permutations, product

import nibabel
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import segfw
from builders.masks import geometry, rows_of
from segfw.base.parallel import CasesFailed
from segfw.base.records import UserError
from segfw.cli import main
from segfw.dataset.labels import LABELS_FILE, LabelSet
from segfw.images.formats import write_labels
from segfw.images.geometry import Geometry
from segfw.images.itk import write_itk
from segfw.measurements.masks_to_measure import MaskCase
from segfw.measurements.measure_case import MeasuringJob
from segfw.measurements.measures_folder import MeasuresFolder
from segfw.radiomics.all_features import feature_names
from segfw.radiomics.features_folder import FeaturesFolder
from segfw.radiomics.radiomics_case import RadiomicsJob
from segfw.radiomics.radiomics_settings import ChannelProcessing, RadiomicsSettings, decided, read_filters
from segfw.standing.recognise import standing_of

SHAPE = (9, 16, 18)
SPACING_MM = (2.0, 1.0, 1.0)
LABELS = LabelSet(names=("background", "liver", "cyst"), values=(0, 1, 2))


def drawn(seed, *, lowest=0.0, shape=SHAPE):
    """A smooth image with noise, and a mask with a large structure and one of 18 voxels."""
    rng = np.random.default_rng(seed)
    image = gaussian_filter(rng.normal(size=shape), (0.5, 1 + seed / 10, 1)) * 200 + rng.normal(size=shape)
    image += lowest - image.min()
    mask = np.zeros(shape, np.uint8)
    mask[2:6, 2 : 8 + seed % 4, 3:12] = 1
    mask[6:8, 12:15, 13:16] = 2
    return np.rint(image), mask


def write_cases(folder, number, *, lowest=0.0, channel="T1", spacing_mm=SPACING_MM):
    """A cohort, masks with their names."""
    (folder / "masks").mkdir(parents=True)
    (folder / "images").mkdir()
    for index in range(number):
        image, mask = drawn(index, lowest=lowest)
        grid = geometry(SHAPE, spacing_mm, (0.5, -3.0, 2.0))
        write_labels(folder / "masks" / f"case{index}.nii.gz", mask, grid)
        x_first = np.diag([*spacing_mm[::-1], 1.0])
        x_first[:3, 3] = (2.0, -3.0, 0.5)
        file = nibabel.Nifti1Image(image.T.astype(np.float32), x_first)
        nibabel.save(file, folder / "images" / f"case{index}.nii.gz")
    LABELS.save(folder / "masks" / LABELS_FILE)
    if channel:
        text = json.dumps({"channel_names": {"0": channel}, "labels": {"background": 0, "liver": 1, "cyst": 2}})
        (folder / "dataset.json").write_text(text)
    return folder


@pytest.fixture
def cohort(tmp_path):
    return write_cases(tmp_path / "first", 3)


def measure(cohort, *more, name="m"):
    """Exit code of the command."""
    output = cohort / "out" / f"{name}.csv"
    arguments = ["measure", str(cohort / "masks"), "--output", str(output), "--images", str(cohort / "images")]
    return main([*arguments, "--radiomics", *map(str, more)])


def test_a_row_for_every_structure_with_a_reason_for_what_is_lacking(cohort, capsys):
    assert measure(cohort, "--filters", "log:1.5") == 0
    settings = RadiomicsSettings.load(cohort / "out" / "m_radiomics.json")
    assert (settings.voxel_mm, settings.texture, settings.cases, settings.log_mm) == (1.0, "3d", 3, (1.5,))
    assert settings.channels == {"T1": ChannelProcessing(modality="other", levels=32)}
    rows = rows_of(cohort / "out" / "m_radiomics.csv")
    assert [(row["case"], row["structure"]) for row in rows[:3]] == [
        ("case0", "liver"),
        ("case0", "cyst"),
        ("case1", "liver"),
    ]
    liver, cyst = rows[:2]
    assert list(liver)[5:] == list(feature_names(settings))
    assert liver["reason"] == ""
    assert all(liver[name] for name in feature_names(settings))
    # 4 x 6 x 9 voxels of 2 mm3; twice as many of 1 mm3
    assert float(liver["morphology_approximate_volume"]) == 432
    assert float(liver["T1_histogram_maximum_fbn32"]) == 32
    # 2 x 3 x 3 voxels of 2 mm3 are 36 of 1 mm3
    assert cyst["reason"] == (
        "T1 has 36 voxels of 1 mm, fewer than 64, too few for texture; "
        "T1_log1.5mm has 36 voxels of 1 mm, fewer than 64, too few for texture"
    )
    assert cyst["T1_intensity_mean"] != ""
    assert cyst["T1_glcm_contrast_3d_merged_fbn32"] == ""
    assert len({row["settings"] for row in rows}) == 1
    said = capsys.readouterr().out
    assert "decided on 3 cases" in said
    assert "m_radiomics.csv" in said


def test_of_what_nobody_drew_no_feature_is_told(cohort):
    """Also not of a region of which somebody drew a part."""
    (cohort / "masks" / LABELS_FILE).unlink()
    description = {
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, "whole": [1, 2], "cyst": 2},
        "regions_class_order": [1, 2],
        "annotated": {"case0": ["cyst"]},
    }
    (cohort / "dataset.json").write_text(json.dumps(description))
    assert measure(cohort) == 0
    rows = {(row["case"], row["structure"]): row for row in rows_of(cohort / "out" / "m_radiomics.csv")}
    volume = "morphology_approximate_volume"
    assert rows["case0", "whole"]["status"] == "not annotated"
    assert rows["case0", "whole"]["reason"] == "by dataset.json nobody drew it in this case"
    assert rows["case0", "whole"][volume] == ""
    assert float(rows["case0", "cyst"][volume]) > 0
    assert float(rows["case1", "whole"][volume]) > float(rows["case1", "cyst"][volume])


def test_a_second_cohort_is_told_with_the_settings_of_the_first(cohort, tmp_path):
    assert measure(cohort) == 0
    other = write_cases(tmp_path / "second", 2, spacing_mm=(3.0, 1.6, 1.6))
    given = cohort / "out" / "m_radiomics.json"
    assert measure(other, "--settings", given) == 0
    assert RadiomicsSettings.load(other / "out" / "m_radiomics.json") == RadiomicsSettings.load(given)
    first, second = (rows_of(each / "out" / "m_radiomics.csv") for each in (cohort, other))
    assert first[0].keys() == second[0].keys()
    assert first[0]["settings"] == second[0]["settings"]
    # Alone it would have been told on larger voxels
    assert measure(other, name="alone") == 0
    alone = rows_of(other / "out" / "alone_radiomics.csv")
    assert alone[0]["settings"] != second[0]["settings"]


def test_features_do_not_depend_on_the_other_cases_of_a_cohort(cohort):
    assert measure(cohort) == 0
    (cohort / "masks" / "case0.nii.gz").unlink()
    assert measure(cohort, "--settings", cohort / "out" / "m_radiomics.json", name="fewer") == 0
    of_all = rows_of(cohort / "out" / "m_radiomics.csv")[2:]
    assert rows_of(cohort / "out" / "fewer_radiomics.csv") == of_all


def test_what_is_told_is_kept_and_parts_make_the_whole(cohort, capsys):
    assert measure(cohort, "--part", "1/2") == 0
    assert {row["case"] for row in rows_of(cohort / "out" / "m_radiomics.csv")} == {"case0", "case2"}
    assert measure(cohort, "--part", "2/2") == 0
    parts = rows_of(cohort / "out" / "m_radiomics.csv")
    assert len(parts) == 6
    capsys.readouterr()
    assert measure(cohort) == 0
    assert "features of 0 cases told, 3 were there" in capsys.readouterr().out
    assert measure(cohort, name="whole") == 0
    assert rows_of(cohort / "out" / "whole_radiomics.csv") == parts
    # A mask that changed is told again, and no other
    image, mask = drawn(1)
    mask[2, 2, 3] = 0
    write_labels(cohort / "masks" / "case1.nii.gz", mask, geometry(SHAPE, SPACING_MM, (0.5, -3.0, 2.0)))
    assert measure(cohort) == 0
    assert "features of 1 case told, 2 were there" in capsys.readouterr().out


def test_other_filters_are_not_mixed_in(cohort, capsys):
    assert measure(cohort) == 0
    assert measure(cohort, "--filters", "log:2") == 2
    assert "m_radiomics.json: has other filters (log: none) than --filters" in capsys.readouterr().err
    assert measure(cohort, "--filters", "log:2", "--overwrite") == 0
    assert "T1_log2mm_intensity_mean" in rows_of(cohort / "out" / "m_radiomics.csv")[0]


def test_tables_that_are_not_asked_for_do_not_stay(cohort):
    assert measure(cohort) == 0
    words = shlex.split(standing_of(cohort / "out" / "m.json").next)
    assert main(words[1:]) == 0  # which asks for them
    assert (cohort / "out" / "m_radiomics.csv").is_file()
    output = cohort / "out" / "m.csv"
    assert main(["measure", str(cohort / "masks"), "--output", str(output)]) == 2  # other options: images
    arguments = ["measure", str(cohort / "masks"), "--output", str(output), "--images", str(cohort / "images")]
    assert main(arguments) == 0
    assert not (cohort / "out" / "m_radiomics.csv").exists()
    assert (cohort / "out" / "m_radiomics.json").exists()


def test_stability_of_ten_cases_and_the_page(tmp_path, capsys):
    cohort = write_cases(tmp_path / "ten", 10)
    assert measure(cohort, "--stability", 3, "--report", cohort / "out" / "m.html", "--workers", 1) == 0
    rows = {(row["structure"], row["feature"]): row for row in rows_of(cohort / "out" / "m_stability.csv")}
    volume = rows["liver", "morphology_volume"]
    assert volume["n"] == "10"
    assert float(volume["icc_image_low"]) < float(volume["icc_image"]) < 1
    assert volume["verdict"] in ("stable", "moderate", "unstable")
    assert volume["follows_volume"] == "1"
    assert rows["cyst", "T1_glcm_contrast_3d_merged_fbn32"]["icc_image"] == ""
    page = (cohort / "out" / "m.html").read_text(encoding="utf-8")
    assert "T1_glszm_zone_percentage_3d_fbn32" in page
    assert "ICC(1,1)" in page
    said = capsys.readouterr().out
    assert "liver: " in said
    assert " stable" in said
    # Without stability the features are there already, and its table does not stay
    assert measure(cohort) == 0
    assert not (cohort / "out" / "m_stability.csv").exists()


def test_patients_are_told_by_names_or_by_a_table_and_one_scan_of_each_is_compared(tmp_path, capsys):
    cohort = write_cases(tmp_path / "twelve", 12)
    table = cohort / "who.csv"
    table.write_text("case,patient\n" + "".join(f"case{n},p{min(n, 10)}\n" for n in range(12)))
    assert measure(cohort, "--stability", 2, "--by-patient", table, "--workers", 1) == 0
    assert "one scan of each of 11 patients is compared" in capsys.readouterr().out
    rows = {row["feature"]: row for row in rows_of(cohort / "out" / "m_stability.csv") if row["structure"] == "liver"}
    assert rows["morphology_volume"]["n"] == "11"
    table.write_text("case,patient\n" + "".join(f"case{n},p{n // 2}\n" for n in range(12)))
    assert measure(cohort, "--stability", 2, "--by-patient", table, name="few") == 2
    assert "at least 10, here are 6 in 12 cases" in capsys.readouterr().err


def test_the_masks_of_the_folds_are_compared_where_they_lie_beside(tmp_path):
    cohort = write_cases(tmp_path / "folds", 10)
    (cohort / "masks" / "plausible").mkdir()
    for index in range(10):
        for fold in range(3):
            _, mask = drawn(index)
            if fold and index != 4:
                mask[2:6, 2, 3 : 3 + 3 * fold] = 0
            if fold == 2 and index == 5:
                mask[mask == 1] = 0  # the fold missed it
            path = cohort / "masks" / "plausible" / f"case{index}_fold_{fold}.nii.gz"
            write_labels(path, mask, geometry(SHAPE, SPACING_MM, (0.5, -3.0, 2.0)))
    assert measure(cohort, "--stability", 2) == 0
    rows = {(row["structure"], row["feature"]): row for row in rows_of(cohort / "out" / "m_stability.csv")}
    volume = rows["liver", "morphology_volume"]
    assert (volume["n"], volume["n_folds"], volume["icc_folds"]) == ("10", "9", "")  # of nine cases nothing is told
    # The cyst is the same in all masks
    assert rows["cyst", "morphology_elongation"]["n_folds"] == "10"


def test_settings_that_do_not_belong_to_the_images_are_refused(cohort, tmp_path, capsys):
    ct = write_cases(tmp_path / "ct", 2, lowest=-1000.0, channel="")
    assert measure(ct) == 0
    settings = ct / "out" / "m_radiomics.json"
    assert RadiomicsSettings.load(settings).channels["image"].discretisation == "fbs25"
    mr = write_cases(tmp_path / "mr", 2, channel="")
    capsys.readouterr()
    assert measure(mr, "--settings", settings) == 2
    error = capsys.readouterr().err
    assert f"{settings}: channel 'image' was decided on CT, and the images here are no CT" in error
    assert measure(cohort, "--settings", settings) == 2
    assert "is for images with the channels image, and these have T1" in capsys.readouterr().err
    text = json.loads((ct / "out" / "m_radiomics.json").read_text())
    text["channels"]["image"] |= {"modality": "other"}
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(text))
    assert measure(mr, "--settings", broken) == 2
    assert "bin_width is for CT alone: values of other images are not calibrated" in capsys.readouterr().err
    assert not (mr / "out").exists() or not list((mr / "out").glob("*.csv"))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"log_mm": [2.0, 2.0]}, "channel 'T1' behind the filter of 2.0 mm would have the same columns, T1_log2mm_..."),
        ({"log_mm": [2.0, 2.0000001]}, "behind the filter of 2.0000001 mm would have the same columns"),
        ({"voxel_mm": 0.001}, "voxels of 0.001 mm; correct voxel_mm and log_mm"),
        ({"log_mm": [400.0]}, "voxels of 1 mm; correct voxel_mm and log_mm"),
    ],
)
def test_settings_that_somebody_spoilt_are_one_sentence(cohort, changed, sentence, capsys):
    assert measure(cohort) == 0
    spoilt = cohort / "spoilt.json"
    spoilt.write_text(json.dumps(json.loads((cohort / "out" / "m_radiomics.json").read_text()) | changed))
    assert measure(cohort, "--settings", spoilt, name="again") in (1, 2)
    error = capsys.readouterr().err
    assert sentence in error
    assert "memory" not in error


def test_channels_that_columns_would_call_alike_are_refused(tmp_path, capsys):
    cohort = write_cases(tmp_path / "first", 1)
    for name, number in (("case0.nii.gz", 0), ("case0.nii.gz", 1)):
        (cohort / "images" / f"case0_{number:04}.nii.gz").write_bytes((cohort / "images" / name).read_bytes())
    (cohort / "images" / "case0.nii.gz").unlink()
    text = json.loads((cohort / "dataset.json").read_text()) | {"channel_names": {"0": "T1 w", "1": "T1_w"}}
    (cohort / "dataset.json").write_text(json.dumps(text))
    assert measure(cohort) == 2
    assert "channel 'T1 w' and channel 'T1_w' would have the same columns, T1_w_..." in capsys.readouterr().err


def test_air_without_a_number_is_no_sign_against_ct(tmp_path):
    cohort = write_cases(tmp_path / "ct", 2, lowest=-1000.0, channel="")
    for file in (cohort / "images").iterdir():
        image = nibabel.load(file)
        values = image.get_fdata(dtype=np.float32)
        values[-1] = np.nan  # as outside of a round field of view
        nibabel.save(nibabel.Nifti1Image(values, image.affine), file)
    assert measure(cohort) == 0
    assert RadiomicsSettings.load(cohort / "out" / "m_radiomics.json").channels["image"].modality == "CT"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--radiomics"], "--radiomics: tells the values of images; give their folder with --images"),
        (["--stability"], "--stability: is for features; give --radiomics with it"),
        (["--filters", "log:2"], "--filters: is for features; give --radiomics with it"),
        (["--radiomics", "--images", "I", "--filters", "wavelet:1"], "'wavelet:1' is no filter"),
        (["--radiomics", "--images", "I", "--filters", "log:2,-1"], "'-1' is no width in mm"),
        (["--radiomics", "--images", "I", "--settings", "none.json"], "none.json: no such file"),
        (["--radiomics", "--images", "I", "--stability"], "needs at least 10, here are 3"),
        (["--radiomics", "--images", "I", "--stability", "1"], "stability"),
    ],
)
def test_options_that_do_not_go_together_are_one_sentence(cohort, arguments, sentence, capsys):
    arguments = [str(cohort / "images") if each == "I" else each for each in arguments]
    assert main(["measure", str(cohort / "masks"), "--output", str(cohort / "m.csv"), *arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error


def test_somebody_elses_table_is_not_replaced(cohort, capsys):
    (cohort / "out").mkdir()
    (cohort / "out" / "m_radiomics.csv").write_text("patient,age\n1,70\n")
    assert measure(cohort) == 2
    assert "m_radiomics.csv: is there already and not written by this command" in capsys.readouterr().err


def test_a_case_that_fails_has_rows_that_say_so_and_the_others_are_told(cohort):
    image = nibabel.load(cohort / "images" / "case1.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.float32), image.affine), cohort / "images" / "case1.nii.gz")
    with pytest.raises(CasesFailed):
        segfw.measure(cohort / "masks", cohort / "m.csv", images=cohort / "images", radiomics=True)
    rows = rows_of(cohort / "m_radiomics.csv")
    assert [row["status"] for row in rows] == ["whole", "whole", "failed", "failed", "whole", "whole"]
    assert "4" in rows[2]["reason"]


def test_photographs_have_no_millimetres(tmp_path):
    from PIL import Image

    for name in ("masks", "images"):
        (tmp_path / name).mkdir()
    Image.fromarray(np.full((20, 20), 90, np.uint8)).save(tmp_path / "images" / "a.png")
    mask = np.zeros((20, 20), np.uint8)
    mask[3:15, 3:15] = 1
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    with pytest.raises(UserError, match="they have no millimetres"):
        segfw.measure(tmp_path / "masks", tmp_path / "m.csv", images=tmp_path / "images", radiomics=True)


def test_voxels_of_a_cohort_by_their_median_and_thick_slices_by_slice():
    kinds = {"T1": "other"}
    assert decided([(1.25, 0.8, 0.8)] * 3, False, kinds, ()).voxel_mm == 1.0
    assert decided([(1.25, 0.8, 0.8)] * 3, False, kinds, ()).texture == "3d"
    thick = decided([(10.0, 1.5, 1.5), (8.0, 1.4, 1.4), (10.0, 1.8, 1.8)], False, kinds, ())
    assert (thick.voxel_mm, thick.texture) == (1.5, "2.5d")
    assert decided([(0.05, 0.05, 0.06)], False, kinds, ()).voxel_mm == 0.05
    assert decided([(1.0, 0.7, 0.7)], True, kinds, ()).texture == "2.5d"


def test_filters_as_they_are_typed():
    assert read_filters(("log:2", "4")) == (2.0, 4.0)
    assert read_filters(("log:4", "log:2", "4")) == (2.0, 4.0)
    assert read_filters(()) == ()


def stored_in_other_orders(array_zyx, matrix):
    """The same voxels in all 48 orders and directions of their axes, each with its affine."""
    for order in permutations(range(3)):
        for flips in product((False, True), repeat=3):
            change = np.zeros((4, 4))
            change[3, 3] = 1
            for new, old in enumerate(order):
                change[old, new] = -1 if flips[new] else 1
                change[old, 3] += array_zyx.shape[old] - 1 if flips[new] else 0
            turned = np.flip(array_zyx.transpose(order), [axis for axis in range(3) if flips[axis]])
            yield np.ascontiguousarray(turned), matrix @ change


@pytest.mark.parametrize(
    ("texture", "spacing_mm", "angle"),
    [("3d", (2.5, 0.8, 1.0), 0.0), ("3d", (1.0, 1.0, 1.0), 0.3), ("2.5d", (5.0, 1.0, 1.0), 0.3)],
)
def test_all_48_orders_of_storage_give_the_same_features(tmp_path, texture, spacing_mm, angle):
    image, mask = drawn(2)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    matrix = geometry(SHAPE, spacing_mm, (7.0, -4.0, 3.0)).matrix
    matrix[:3, :3] = turn @ matrix[:3, :3]
    settings = RadiomicsSettings(
        voxel_mm=1.0,
        texture=texture,
        channels={"image": ChannelProcessing(modality="CT", bin_width=25.0, whole_numbers=True)},
        log_mm=(1.5,),
        cases=1,
    )
    measures = MeasuresFolder(path=tmp_path / "kept")
    measuring = MeasuringJob(folder=measures, labels=LABELS, channels=("image",), only=None, per_component=False)
    job = RadiomicsJob(
        folder=FeaturesFolder(path=tmp_path / "told", versions=1),
        measures=measures,
        labels=LABELS,
        channels=("image",),
        settings=settings,
    )
    found = []
    orders = zip(stored_in_other_orders(mask, matrix), stored_in_other_orders(image, matrix))
    for number, ((stored, affine), (picture, _)) in enumerate(orders):
        path = tmp_path / f"{number}.nrrd"
        write_labels(path, stored, Geometry.of(stored.shape, affine))
        write_itk(tmp_path / f"{number}_image.nrrd", picture.astype(np.float32), affine)
        case = MaskCase(id="case", mask=path, images=(tmp_path / f"{number}_image.nrrd",))
        assert measuring(case).state == "done"
        found.append(job.told(case).structures[0])
    first = np.array(found[0].values, float)
    assert np.isfinite(first).all()
    for each in found[1:]:
        assert np.array(each.values, float) == pytest.approx(first, rel=1e-9, abs=1e-9)
        assert np.array(each.versions[0], float) == pytest.approx(
            np.array(found[0].versions[0], float), rel=1e-9, abs=1e-9
        )
