"""``import-nnunet --trained-on``: it no longer matters in which order of axes a file is stored."""

import json
from itertools import permutations, product

import numpy as np
import pytest
from nibabel.orientations import aff2axcodes, apply_orientation, inv_ornt_aff

from builders.nnunet import plans, trained_folder
from segfw.base.records import UserError
from segfw.cli import main
from segfw.images.formats import read_volume
from segfw.images.geometry import Geometry
from segfw.images.volume import Volume, from_orientation, is_axis_order, to_orientation
from segfw.inference.predictor import Predictor
from segfw.model.load import load_model
from segfw.planning.plan import Plan
from segfw.verbs.export import export_model
from segfw.verbs.export_nnunet import export_nnunet
from segfw.verbs.import_nnunet import import_nnunet

TURNS = [
    np.array(list(zip(order, flips)), float) for order in permutations(range(3)) for flips in product((1, -1), repeat=3)
]


def image():
    """Two channels whose axes x, y, z point to L, P and S, a little oblique and of three spacings."""
    rng = np.random.default_rng(4)
    affine = np.array([[0, 0.1, -1.1, 30], [0, -0.9, 0, 20], [3.1, 0, 0.1, -8], [0, 0, 0, 1]])
    return Volume(array=rng.normal(size=(2, 7, 18, 14)).astype(np.float32), geometry=Geometry.of((7, 18, 14), affine))


def stored_otherwise(volume, turn):
    """The same voxels, in the same places of the body, along other axes of the array."""
    array = np.stack([apply_orientation(channel, turn) for channel in volume.array])
    affine = volume.geometry.matrix @ inv_ornt_aff(turn, volume.geometry.shape)
    return Volume(array=array, geometry=Geometry.of(array.shape[1:], affine))


def codes(geometry):
    return "".join(aff2axcodes(geometry.matrix[:, [2, 1, 0, 3]]))


def predictor_of(folder, out, **options):
    import_nnunet(folder, out, **options)
    return Predictor.of(load_model(out), device="cpu", precision="fp32", mirroring=False)


def test_an_order_of_axes_has_a_letter_of_each_pair():
    orders = ["".join(letters) for ends in product("LR", "PA", "IS") for letters in permutations(ends)]
    assert len(set(orders)) == 48
    assert all(map(is_axis_order, orders))
    assert not any(map(is_axis_order, ["", "LP", "LPSS", "LLS", "lps", "LRS", "canonical", "as stored"]))


@pytest.mark.parametrize("order", ["LPS", "RAS", "PIL", "SAR"])
def test_images_are_turned_to_any_order_and_masks_back(order):
    volume = image()
    for turn in TURNS:
        stored = stored_otherwise(volume, turn)
        turned = to_orientation(stored, order)
        assert codes(turned.geometry) == order
        np.testing.assert_array_equal(from_orientation(turned.array[0], stored.geometry, order), stored.array[0])


def test_one_mask_whatever_of_48_orders_a_file_has_and_the_mask_that_training_would_give(tmp_path):
    theirs = trained_folder(tmp_path / "theirs")
    as_stored = predictor_of(theirs, tmp_path / "as_stored")
    turning = predictor_of(theirs, tmp_path / "turning", trained_on="lps")
    assert turning.plan.orientation == "LPS"
    volume = image()
    assert codes(volume.geometry) == "LPS"
    wanted = as_stored(volume).array
    assert len(np.unique(wanted)) > 1
    changed = 0
    for turn in TURNS:
        stored = stored_otherwise(volume, turn)
        back = stored_otherwise(Volume(array=wanted, geometry=volume.geometry), turn).array
        np.testing.assert_array_equal(turning(stored).array, back)
        changed += bool((as_stored(stored).array != back).any())
    assert changed == 47  # all but the order of training: what the option is for


def test_what_has_no_place_is_taken_as_it_is(tmp_path):
    theirs = trained_folder(tmp_path / "theirs")
    nowhere = Volume(array=image().array, geometry=Geometry.of((7, 18, 14), np.eye(4)), is_placed=False)
    masks = [
        predictor_of(theirs, tmp_path / str(number), trained_on=order)(nowhere).array
        for number, order in enumerate((None, "LPS"))
    ]
    np.testing.assert_array_equal(*masks)


def test_the_order_is_kept_by_model_files_and_by_the_way_to_nnunet_and_back(tmp_path, capsys):
    model = tmp_path / "model"
    import_nnunet(trained_folder(tmp_path / "theirs"), model, trained_on="LPS")
    assert "images are turned to LPS" in capsys.readouterr().out
    assert json.loads((model / "plan.json").read_text())["orientation"] == "LPS"
    export_model(model, tmp_path / "model.zip")
    assert load_model(tmp_path / "model.zip").plan.orientation == "LPS"
    (folder,) = export_nnunet(model, tmp_path / "export")
    assert "store images for nnU-Net in LPS" in capsys.readouterr().out
    written = json.loads((folder / "plans.json").read_text())
    assert written["image_reader_writer"] == "SimpleITKIO"
    import_nnunet(folder, tmp_path / "again")
    again = Plan.load(tmp_path / "again" / "plan.json")
    assert again.configurations["3d_fullres"].preprocessing == load_model(model).configuration.preprocessing
    import_nnunet(folder, tmp_path / "other", trained_on="RAS")  # what is typed goes before what the file says
    assert Plan.load(tmp_path / "other" / "plan.json").orientation == "RAS"


@pytest.mark.parametrize("order", ["LAX", "LP", "LRS", "LPSI", ""])
def test_what_is_no_order_of_axes_is_refused(tmp_path, order, capsys):
    folder = trained_folder(tmp_path / "theirs")
    assert main(["import-nnunet", str(folder), str(tmp_path / "out"), "--trained-on", order]) == 2
    assert f"--trained-on is {order!r}; give where the axes x, y and z" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "reader, why",
    [("NibabelIOWithReorient", "turns images by itself"), ("NaturalImage2DIO", "reads pictures, which have no sides")],
)
def test_it_is_refused_where_axes_do_not_matter(tmp_path, reader, why):
    folder = trained_folder(tmp_path / "theirs", written=plans() | {"image_reader_writer": reader})
    with pytest.raises(UserError, match=f"trained.on says that axes point to LPS, but nnU-Net's {reader} {why}"):
        import_nnunet(folder, tmp_path / "out", trained_on="LPS")


def test_a_field_of_the_plans_that_is_no_order_is_named(tmp_path):
    folder = trained_folder(tmp_path / "theirs", written=plans() | {"segfw_trained_on": "sideways"})
    with pytest.raises(UserError, match=r"plans.json: segfw_trained_on is 'sideways'"):
        import_nnunet(folder, tmp_path / "out")


@pytest.mark.real_data
def test_a_real_model_gives_one_mask_for_one_image(real_data, tmp_path):
    """Of 8 other orders, each of the first axis' directions in some; taken as stored, the masks differ."""
    home = real_data / "nnunet_models" / "hippocampus_3d_fullres"
    (folder,) = (home / "model").iterdir()
    volume = read_volume(min((home / "images").glob("hippocampus_*.nii.gz")))
    assert codes(volume.geometry) == "RAS"
    as_stored = predictor_of(folder, tmp_path / "as_stored")
    turning = predictor_of(folder, tmp_path / "turning", trained_on="RAS")
    wanted = turning(volume).array
    np.testing.assert_array_equal(as_stored(volume).array, wanted)
    changed = 0
    for turn in TURNS[5::6]:
        stored = stored_otherwise(volume, turn)
        back = stored_otherwise(Volume(array=wanted, geometry=volume.geometry), turn).array
        np.testing.assert_array_equal(turning(stored).array, back)
        changed += bool((as_stored(stored).array != back).any())
    assert changed == 8
