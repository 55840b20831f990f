"""``segfw refine``: files of clicks in, a corrected mask in the mask's own format out, and a log of what was done."""

import json

import nibabel
import numpy as np
import pytest

from builders.data import write_raw
from builders.models import make_model
from builders.refiner import ORGANS, TUMOUR, Planted, bright, canonical_grid, ras_of, refiner_folder, untrained_refiner
from builders.series import write_series
from segfw.base.records import UserError
from segfw.cli import main
from segfw.dataset.finished_mask import FinishedMask, MaskMaker
from segfw.grid.normalize import IntensityStats, Normalization
from segfw.images.formats import read_mask, read_volume, structures_in, write_labels
from segfw.interaction.edits_log import read_edits
from segfw.interop.write_dicom_seg import written_segmentation
from segfw.interop.write_rtstruct import write_rtstruct
from segfw.verbs.refine import refine

SHAPE = (12, 40, 44)
GRID = canonical_grid(SHAPE)
HERE = (5, 12, 13)


def two_blobs():
    image = np.full(SHAPE, 0.1, np.float32)
    image[3:8, 9:16, 10:18] = 1
    image[3:8, 26:33, 28:36] = 1
    return image


def plain_mask():
    mask = np.zeros(SHAPE, np.int16)
    mask[9, 2:5, 2:5] = 7
    return mask


def corrected(value=2):
    mask = plain_mask()
    mask[3:8, 9:16, 10:18] = value
    return mask


def save_nifti(path, array_zyx, tilt_degrees=20.0):
    """Oblique, with a qform that says the same and units of its own."""
    cosine = np.cos(np.deg2rad(tilt_degrees))
    sine = np.sin(np.deg2rad(tilt_degrees))
    turn = np.array([[cosine, -sine, 0, 0], [sine, cosine, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    affine = turn @ GRID.matrix[:, [2, 1, 0, 3]]
    image = nibabel.Nifti1Image(array_zyx.transpose(2, 1, 0), affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=2)
    nibabel.save(image, path)
    return path


def write_points(path, places, label="left kidney", inside=True):
    said = [{"label": label, "ras_mm": list(place), "inside": inside} for place in places]
    path.write_text(json.dumps(said), encoding="utf-8")
    return path


@pytest.fixture
def asked(tmp_path):
    """A model, an image, its mask and a click on the first blob; ``build`` makes the planted network."""
    model = refiner_folder(tmp_path / "work", Planted(bright))
    image = save_nifti(tmp_path / "scan.nii.gz", two_blobs())
    mask = save_nifti(tmp_path / "mask.nii.gz", plain_mask())
    clicks = write_points(tmp_path / "clicks.json", [ras_of(read_volume(image).geometry, HERE)])
    return {"model": model, "image": image, "mask": mask, "clicks": clicks, "output": tmp_path / "new.nii.gz"}


def done(asked, **changed):
    how = asked | {"device": "cpu", "build": lambda _: Planted(bright)} | changed
    return refine(how.pop("model"), how.pop("image"), how.pop("mask"), how.pop("clicks"), how.pop("output"), **how)


def test_the_mask_is_written_with_its_own_type_and_header(asked):
    before = asked["mask"].read_bytes()
    answer = done(asked)
    assert asked["mask"].read_bytes() == before
    old = nibabel.load(asked["mask"])
    new = nibabel.load(asked["output"])
    np.testing.assert_array_equal(np.asarray(new.dataobj).transpose(2, 1, 0), corrected())
    assert new.header.get_data_dtype() == np.int16
    np.testing.assert_array_equal(new.affine, old.affine)
    for field in ("sform_code", "qform_code", "quatern_b", "qoffset_x", "pixdim", "xyzt_units"):
        np.testing.assert_array_equal(new.header[field], old.header[field])
    assert b"Corrected by clicks, not reviewed" in bytes(new.header["descrip"])
    assert answer.clicks[0].gained == {"left kidney": 280}
    assert answer.labels_from is None
    text = str(answer)
    assert "left kidney, inside, at (" in text
    assert "left kidney +280" in text


def test_every_click_is_a_line_of_the_log(asked, tmp_path):
    places = [ras_of(read_volume(asked["image"]).geometry, voxel) for voxel in (HERE, (5, 29, 30))]
    write_points(asked["clicks"], places)
    answer = done(asked)
    edits = read_edits(tmp_path / "edits.jsonl")
    assert [edit.number for edit in edits] == [1, 2]
    assert [edit.click.ras_mm for edit in edits] == [tuple(place) for place in places]
    assert {(edit.mask, edit.made_from, edit.model) for edit in edits} == {("new.nii.gz", "mask.nii.gz", answer.model)}
    assert [edit.gained for edit in edits] == [{"left kidney": 280}] * 2
    assert all(edit.seconds > 0 for edit in edits)
    assert len(answer.model) == 64
    done(asked, output=tmp_path / "other.nii.gz")
    assert [edit.mask for edit in read_edits(tmp_path / "edits.jsonl")] == ["new.nii.gz"] * 2 + ["other.nii.gz"] * 2
    done(asked, overwrite=True)
    assert [edit.mask for edit in read_edits(tmp_path / "edits.jsonl")] == ["other.nii.gz"] * 2 + ["new.nii.gz"] * 2
    assert not (tmp_path / ".segfw").exists()


def test_in_place_of_the_mask_earlier_clicks_stay_in_the_log(asked, tmp_path):
    asked = asked | {"output": asked["mask"], "overwrite": True}
    done(asked)
    second = write_points(tmp_path / "second.json", [ras_of(read_volume(asked["image"]).geometry, (5, 29, 30))])
    done(asked, clicks=second)
    assert len(read_edits(tmp_path / "edits.jsonl")) == 2
    assert (read_mask(asked["mask"]).array == 2).sum() == 2 * 280


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha", ".mhd", ".seg.nrrd"])
def test_masks_of_other_formats_stay_what_they_are(asked, tmp_path, ending):
    SimpleITK = pytest.importorskip("SimpleITK")
    mask = tmp_path / f"drawn{ending}"
    geometry = read_volume(asked["image"]).geometry
    if ending == ".seg.nrrd":
        done(asked, output=mask)
        output = tmp_path / f"again{ending}"
        second = write_points(tmp_path / "second.json", [ras_of(geometry, (5, 29, 30))], "right kidney")
        done(asked, mask=mask, output=output, clicks=second)
        wanted = corrected()
        wanted[3:8, 26:33, 28:36] = 7
        np.testing.assert_array_equal(read_mask(output, read_volume(asked["image"])).array[0], wanted)
        assert SimpleITK.ReadImage(str(output)).GetMetaData("Segment1_Name") == "left kidney"
        return
    write_labels(mask, plain_mask(), geometry)
    image = SimpleITK.ReadImage(str(mask))
    stored = SimpleITK.Cast(image, SimpleITK.sitkUInt16)
    SimpleITK.WriteImage(stored, str(mask))
    output = tmp_path / f"new{ending}"
    done(asked, mask=mask, output=output)
    new = SimpleITK.ReadImage(str(output))
    assert new.GetPixelID() == SimpleITK.sitkUInt16
    assert new.GetSpacing() == stored.GetSpacing()
    assert new.GetOrigin() == pytest.approx(stored.GetOrigin())
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(new), corrected())


def test_a_picture_stays_a_picture(tmp_path):
    SimpleITK = pytest.importorskip("SimpleITK")
    model = refiner_folder(tmp_path / "work", Planted(bright), spacing_mm=(1.0, 1.0, 1.0), patch_size=(1, 24, 24))
    image = np.zeros((30, 36), np.uint8)
    image[5:12, 7:20] = 200
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(image), str(tmp_path / "photo.png"))
    mask = np.zeros((30, 36), np.uint8)
    mask[20:, 20:] = 1
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(mask), str(tmp_path / "drawn.png"))
    (tmp_path / "left kidney.csv").write_text("index,axis-0,axis-1\n0,8,12\n")
    refine(
        model,
        tmp_path / "photo.png",
        tmp_path / "drawn.png",
        [tmp_path / "left kidney.csv"],
        tmp_path / "new.png",
        device="cpu",
        build=lambda _: Planted(bright),
    )
    wanted = mask.copy()
    wanted[5:12, 7:20] = 2
    found = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "new.png")))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("kind", ["rtstruct", "seg"])
def test_dicom_masks_stay_dicom(tmp_path, kind):
    if kind == "seg":
        pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'segfw[dicom]'")
    scan = np.full((6, 20, 18), 100, np.int16)
    scan[1:4, 4:10, 5:12] = 1000
    image = write_series(tmp_path / "scan", scan, spacing_mm=(3.0, 1.0, 1.5), number=1)
    grid = read_volume(image).geometry
    drawn = np.zeros(grid.shape, np.uint8)
    drawn[2:5, 13:18, 3:9] = 1
    # A first mask of the format, by a refiner that is given a plain one
    model = refiner_folder(tmp_path / "work", Planted(lambda seen: bright(seen / 500)), spacing_mm=(3.0, 1.0, 1.5))
    write_labels(tmp_path / "plain.nii.gz", drawn, grid)
    first = FinishedMask(case_id="a", values_zyx=drawn, geometry=grid, labels=ORGANS, maker=MaskMaker(), image=image)
    mask = tmp_path / "drawn" / "mask.dcm"
    mask.parent.mkdir()
    if kind == "rtstruct":
        write_rtstruct(mask, first)
    else:
        with written_segmentation(mask, first, is_labelmap=False):
            pass
    clicks = write_points(tmp_path / "clicks.json", [ras_of(grid, np.argwhere(read_volume(image).array[0] > 500)[60])])
    refine(
        model,
        image,
        mask,
        clicks,
        tmp_path / "new.dcm",
        device="cpu",
        build=lambda _: Planted(lambda seen: bright(seen / 500)),
    )
    found = read_mask(tmp_path / "new.dcm", read_volume(image))
    names = {structure.name: structure.number for structure in structures_in(tmp_path / "new.dcm")}
    wanted = np.where(read_volume(image).array[0] > 500, names["left kidney"], 0)
    wanted[drawn == 1] = names["liver"]
    np.testing.assert_array_equal(found.array[0], wanted)


def test_channels_lie_beside_one_another_or_in_a_folder(tmp_path):
    channels = ("T1", "T2")
    seen = lambda image: bright(image, 1)  # noqa: E731
    model = refiner_folder(tmp_path / "work", Planted(seen), channels=channels)
    (tmp_path / "images").mkdir()
    first = save_nifti(tmp_path / "images" / "a_0000.nii.gz", np.full(SHAPE, 0.3, np.float32))
    save_nifti(tmp_path / "images" / "a_0001.nii.gz", two_blobs())
    mask = save_nifti(tmp_path / "mask.nii.gz", plain_mask())
    clicks = write_points(tmp_path / "clicks.json", [ras_of(read_volume(first).geometry, HERE)])
    for number, image in enumerate((first, tmp_path / "images")):
        output = tmp_path / f"new{number}.nii.gz"
        refine(model, image, mask, clicks, output, device="cpu", build=lambda _: Planted(seen))
        np.testing.assert_array_equal(read_mask(output).array[0], corrected())


@pytest.mark.parametrize("place", ["dataset.json", "labels.json", "--label-names", "none"])
def test_what_names_the_labels(asked, tmp_path, place):
    said = {
        "labels": {"background": 0, "aorta": 2, "vena cava": 7},
        "channel_names": {"0": "MR"},
        "file_ending": ".nii.gz",
    }
    more = {}
    if place == "dataset.json":
        (tmp_path / place).write_text(json.dumps(said))
    elif place == "labels.json":
        ORGANS.model_copy(update={"names": ("background", "spleen", "aorta", "vena cava")}).save(tmp_path / place)
    elif place == "--label-names":
        (tmp_path / "names.csv").write_text("value,name\n2,aorta\n7,vena cava\n")
        more = {"label_names": tmp_path / "names.csv"}
    write_points(asked["clicks"], [ras_of(read_volume(asked["image"]).geometry, HERE)], "\u4e3b\u52a8\u8109")
    if place == "none":
        with pytest.raises(UserError, match="which has no label here"):
            done(asked)
        return
    answer = done(asked, **more)
    assert answer.clicks[0].gained == {"aorta": 280}
    assert answer.labels_from == tmp_path / ("names.csv" if place == "--label-names" else place)
    np.testing.assert_array_equal(read_mask(asked["output"]).array[0], corrected())


def test_a_mask_whose_values_mean_others_is_refused(asked, tmp_path):
    folder = tmp_path / "labelsTr"
    folder.mkdir()
    mask = save_nifti(folder / "scan.nii.gz", plain_mask())
    said = {"labels": {"background": 0, "aorta": 2, "vena cava": 7}, "channel_names": {"0": "MR"}}
    (tmp_path / "dataset.json").write_text(json.dumps(said | {"file_ending": ".nii.gz"}))
    (tmp_path / "label_maps.json").write_text(json.dumps({"scan": {"7": 2, "2": 7}}))
    with pytest.raises(UserError, match="scan.nii.gz: its values are colours, or mean other labels by the label maps"):
        done(asked, mask=mask)


def test_regions_of_a_model_are_clicked_by_name(asked, tmp_path):
    model = refiner_folder(tmp_path / "regions", Planted(bright), labels=TUMOUR)
    mask = plain_mask()
    mask[mask == 7] = 1
    save_nifti(asked["mask"], mask)
    write_points(asked["clicks"], [ras_of(read_volume(asked["image"]).geometry, HERE)], "inner")
    answer = done(asked, model=model)
    assert answer.clicks[0].gained == {"inner": 280, "whole": 280}
    assert (read_mask(asked["output"]).array == 2).sum() == 280


def test_clicks_of_slicer_and_napari_together(asked, tmp_path):
    grid = read_volume(asked["image"]).geometry
    x, y, z = ras_of(grid, HERE)
    points = {
        "type": "Fiducial",
        "name": "liver",
        "coordinateSystem": "LPS",
        "controlPoints": [{"position": [-x, -y, z]}],
    }
    (tmp_path / "points.mrk.json").write_text(json.dumps({"markups": [points]}))
    (tmp_path / "left kidney.csv").write_text("index,axis-0,axis-1,axis-2\n0,5,29,30\n")
    done(asked, clicks=[tmp_path / "points.mrk.json", tmp_path / "left kidney.csv"])
    wanted = corrected(1)
    wanted[3:8, 26:33, 28:36] = 2
    np.testing.assert_array_equal(read_mask(asked["output"]).array[0], wanted)


def refusal(asked, **changed):
    with pytest.raises(UserError) as caught:
        done(asked, **changed)
    folder = asked["output"].parent
    assert not asked["output"].exists() or changed.get("output") is not None
    assert not (folder / "edits.jsonl").exists()
    return str(caught.value)


def test_a_click_in_another_label_asks_and_nothing_is_written(asked):
    write_points(asked["clicks"], [ras_of(read_volume(asked["image"]).geometry, (9, 3, 3))])
    said = refusal(asked)
    assert said.startswith(f"{asked['clicks']}: the click at (")
    assert " mm lies in right kidney, which left kidney would take the voxel from; give may_overwrite=True" in said
    done(asked, may_overwrite=True)
    assert read_mask(asked["output"]).array[0][9, 3, 3] == 2


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("outside", "lies outside the image (voxel 5, 12, 44 of 12 x 40 x 44, z first)"),
        ("no click", "holds no click; set at least one point"),
        ("unknown", "'spleen' is spleen (\u813e), which has no label here; did you mean"),
        ("there", "is there already; give another name, or overwrite=True"),
        ("itself", "is the mask itself, which is not changed; give another name, or overwrite=True"),
        ("image", "is the image; give a name of its own for the mask"),
        ("folder", "new.nii.gz: is a folder; give the name of a file"),
        ("ending", "new.txt: has no ending of a mask; write .nii.gz"),
        ("dicom", "is DICOM, and "),
        ("grid", "lies on another grid than the image (shape"),
        ("channels", "scan.nii.gz: has 1 channel, but the refiner was trained on 2 (T1, T2)"),
        ("no mask", "mask.nii.gz: no such file"),
        ("several", "holds 2 images, such as a and b; give the one that the mask is of"),
    ],
)
def test_bad_input_gets_one_sentence(asked, tmp_path, what, said):
    grid = read_volume(asked["image"]).geometry
    changed = {}
    if what == "outside":
        write_points(asked["clicks"], [ras_of(grid, (5, 12, 44))])
    elif what == "no click":
        asked["clicks"].write_text("[]")
    elif what == "unknown":
        write_points(asked["clicks"], [ras_of(grid, HERE)], "spleen")
    elif what == "there":
        changed["output"] = tmp_path / "there.nii.gz"
        changed["output"].write_bytes(b"something")
    elif what == "itself":
        changed["output"] = asked["mask"]
    elif what == "image":
        changed = {"output": asked["image"], "overwrite": True}
    elif what == "folder":
        changed = {"output": tmp_path / "new.nii.gz", "overwrite": True}
        changed["output"].mkdir()
    elif what == "ending":
        changed["output"] = tmp_path / "new.txt"
    elif what == "dicom":
        changed["output"] = tmp_path / "new.dcm"
    elif what == "grid":
        save_nifti(asked["mask"], plain_mask()[:, 1:])
    elif what == "channels":
        changed["model"] = refiner_folder(tmp_path / "two", Planted(bright), channels=("T1", "T2"))
    elif what == "no mask":
        asked["mask"].unlink()
    elif what == "several":
        (tmp_path / "images").mkdir()
        for name in ("a", "b"):
            save_nifti(tmp_path / "images" / f"{name}.nii.gz", two_blobs())
        changed["image"] = tmp_path / "images"
    found = refusal(asked, **changed)
    assert said in found
    assert "\n" not in found


def test_a_log_that_cannot_be_read_is_told_before_a_mask_is_written(asked, tmp_path):
    (tmp_path / "edits.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"edits.jsonl: line 1"):
        done(asked)
    assert not asked["output"].exists()


def test_a_work_folder_without_a_refiner_says_how_to_train_one(asked, tmp_path):
    assert "3d_refine" in refusal(asked, model=make_model(tmp_path / "other"))


def test_an_untrained_refiner_on_the_command_line(tmp_path, capsys):
    raw = write_raw(tmp_path / "raw", cases=1)
    model = untrained_refiner(tmp_path / "work")
    mask = raw / "labelsTr" / "case_00.nii.gz"
    old = read_mask(mask)
    free = tuple(int(index) for index in np.argwhere(old.array[0] == 0)[50])
    write_points(tmp_path / "clicks.json", [ras_of(old.geometry, free)], "bright")
    image = raw / "imagesTr" / "case_00_0000.nii.gz"
    typed = ["refine", model, image, mask, "--clicks", tmp_path / "clicks.json", "--output", tmp_path / "new.nii.gz"]
    assert main([*map(str, typed), "--device", "cpu", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["kind"] == "refined"
    assert answer["labels_from"] is not None
    new = read_mask(tmp_path / "new.nii.gz").array[0]
    assert new[free] == 3
    assert answer["clicks"][0]["gained"]["bright"] == np.count_nonzero((new == 3) & (old.array[0] != 3))
    assert ((old.array[0] == 7) <= (new == 7)).all()  # protected


@pytest.mark.parametrize(
    ("rule", "channel", "values", "said"),
    [
        ("ct", "CT", (0, 300), "has no value below 0, but the refiner was trained on CT in Hounsfield units"),
        ("zscore", "MR", (-1024, 900), "has values down to -1024, as CT has, but the refiner was trained on MR"),
        ("ct", "CT", (-1024, 900), ""),
        ("zscore", "MR", (0, 900), ""),
        ("zscore", "phase", (-4096, 4095), ""),  # its training images had negative values, too
        ("none", "noNorm", (-1024, 900), ""),
        ("zscore", "CTA", (-1024, 900), ""),  # of vessels, which have no negative values
    ],
)
def test_a_refiner_of_another_modality(tmp_path, rule, channel, values, said):
    lowest = 5 if channel in ("MR", "CTA") else -300
    stats = IntensityStats(
        mean=40, std=60, minimum=lowest, maximum=900, median=40, percentile_00_5=-120, percentile_99_5=250
    )
    how = Normalization(kind=rule, stats=stats)
    model = untrained_refiner(tmp_path / "work", (channel,), ORGANS, how)
    image = np.random.default_rng(0).integers(*values, SHAPE).astype(np.int16)
    image[0, 0, 0] = values[0]
    scan = save_nifti(tmp_path / "scan.nii.gz", image)
    mask = save_nifti(tmp_path / "mask.nii.gz", plain_mask())
    clicks = write_points(tmp_path / "clicks.json", [ras_of(read_volume(scan).geometry, HERE)])
    if not said:
        refine(model, scan, mask, clicks, tmp_path / "new.nii.gz", device="cpu")
        assert read_mask(tmp_path / "new.nii.gz").array[0][HERE] == 2
        return
    with pytest.raises(UserError, match="scan.nii.gz: has") as caught:
        refine(model, scan, mask, clicks, tmp_path / "new.nii.gz", device="cpu")
    assert said in str(caught.value)


def test_the_command_line_takes_the_same(asked, capsys):
    typed = ["refine", str(asked["model"]), str(asked["image"]), str(asked["mask"])]
    typed += ["--clicks", str(asked["clicks"]), "--output", str(asked["output"]), "--device", "cpu"]
    assert main(typed) == 2  # the planted network is none that a plan can describe
    assert "do not fit the plan" in capsys.readouterr().err
    assert not asked["output"].exists()
