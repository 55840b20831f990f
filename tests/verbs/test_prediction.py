"""The predict verb's options: what is made besides masks, where it lies, and what counts as done."""

import json
import shutil

import numpy as np
import pytest

from builders.data import masks, same
from segfw.base.records import UserError
from segfw.images.formats import read_volume
from segfw.images.nifti import PLACING
from segfw.inference.averaging import merged
from segfw.inference.output_folder import OutputFolder
from segfw.inference.probabilities import read_probabilities
from segfw.planning.plan import PLAN_FILE, Plan
from segfw.verbs.predict import predict


def test_a_mask_without_all_that_is_asked_for_is_made_again(model, images, tmp_path, capsys):
    predict(model, images, tmp_path, device="cpu")
    first = masks(tmp_path)
    predict(model, images, tmp_path, device="cpu", save_probabilities=16, uncertainty=True)
    assert "2 cases predicted, 0 were there" in capsys.readouterr().out
    assert same(masks(tmp_path), first)
    for case in "ab":
        opened = read_probabilities(tmp_path / "probabilities" / f"{case}.b2nd")
        assert (opened.info.encoding, opened.info.folds) == ("float16", ("0",))
        found = opened.info.labels.to_values(merged([opened]))
        assert (found == first[f"{case}.nii.gz"][0]).mean() > 0.99  # but for ties, as the mask was made
        entropy = read_volume(tmp_path / "uncertainty" / f"{case}_entropy.nii.gz").array
        assert 0 < entropy.mean() <= 1
    assert len((tmp_path / "uncertainty.csv").read_text().splitlines()) == 3
    (tmp_path / "uncertainty" / "b.json").unlink()
    predict(model, images, tmp_path, device="cpu", save_probabilities=16, uncertainty=True)
    assert "1 case predicted, 1 were there" in capsys.readouterr().out
    assert (tmp_path / "uncertainty" / "b.json").is_file()


def test_bits_of_probabilities_are_16_or_8(model, images, tmp_path):
    with pytest.raises(UserError, match="^save_probabilities is 4; give 16 or 8 bits"):
        predict(model, images, tmp_path / "masks", device="cpu", save_probabilities=4)
    predict(model, images, tmp_path, device="cpu", save_probabilities=8)
    assert read_probabilities(tmp_path / "probabilities" / "a.b2nd").info.encoding == "uint8"


def test_other_bits_or_another_precision_need_another_folder(model, images, tmp_path, capsys):
    predict(model, images, tmp_path, device="cpu", save_probabilities=8)
    with pytest.raises(UserError, match=r"masks of another model or other options \(probability bits\); use another"):
        predict(model, images, tmp_path, device="cpu", save_probabilities=16)
    with pytest.raises(UserError, match=r"other options \(precision\)"):
        predict(model, images, tmp_path, device="cpu", precision="bf16")
    predict(model, images, tmp_path, device="cpu")  # what is there may be more than what is asked for
    assert "0 cases predicted, 2 were there" in capsys.readouterr().out
    with pytest.raises(UserError, match="probability bits"):  # and is not forgotten by that
        predict(model, images, tmp_path, device="cpu", save_probabilities=16)
    predict(model, images, tmp_path, device="cpu", save_probabilities=16, overwrite=True)
    assert read_probabilities(tmp_path / "probabilities" / "a.b2nd").info.encoding == "float16"


def test_a_case_that_bids_would_call_like_one_that_is_there_is_refused(model, images, tmp_path, capsys):
    """It would pass for predicted, with the mask of the other."""
    masks = tmp_path / "masks"
    predict(model, images, masks, device="cpu", formats=("bids",))
    later = tmp_path / "later"
    later.mkdir()
    shutil.copy(next(images.glob("a*")), later / "a-.nii.gz")
    with pytest.raises(UserError, match=r"^a and a- would both be bids/sub-a/anat/.*masks holds that of a already"):
        predict(model, later, masks, device="cpu", formats=("bids",))
    predict(model, images, masks, device="cpu", formats=("bids",))
    assert "0 cases predicted, 2 were there" in capsys.readouterr().out


def test_the_same_weights_by_another_plan_are_another_model(model, images, tmp_path, capsys):
    own = shutil.copytree(model, tmp_path / "model")
    plan = Plan.load(own / PLAN_FILE)
    masks = tmp_path / "masks"
    predict(own, images, masks, device="cpu")

    def planned(**changes) -> None:
        chosen = plan.configurations["3d_fullres"].model_copy(update=changes)
        plan.model_copy(update={"configurations": {"3d_fullres": chosen}}).save(own / PLAN_FILE)

    planned(batch_size=7, reasons=("told otherwise",))  # which no mask depends on
    predict(own, images, masks, device="cpu")
    assert "0 cases predicted, 2 were there" in capsys.readouterr().out
    how = plan.configurations["3d_fullres"].preprocessing
    for change in ({"preprocessing": how.model_copy(update={"voxel_size": "stated"})}, {"patch_size": (8, 8, 8)}):
        planned(**change)
        with pytest.raises(UserError, match=r"another model or other options \(plan digest\)"):
            predict(own, images, masks, device="cpu")


def test_a_folder_from_before_the_plan_was_kept_counts_as_of_another(model, images, tmp_path):
    predict(model, images, tmp_path, device="cpu")
    kept = json.loads((tmp_path / "prediction.json").read_text())
    del kept["plan_digest"]
    (tmp_path / "prediction.json").write_text(json.dumps(kept))
    with pytest.raises(UserError, match=r"\(plan digest\); use another folder or overwrite=True"):
        predict(model, images, tmp_path, device="cpu")


def test_masks_and_maps_have_the_place_of_their_image(model, tmp_path):
    """Of an image whose sform, qform and pixdim contradict each other by less than is refused, and one of a plane."""
    import nibabel

    for name, shape in (("volume", (20, 18, 10)), ("plane", (20, 18))):
        array = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        image = nibabel.Nifti1Image(array, np.diag([1, 1.5, 4, 1]))
        image.set_qform(np.diag([1, 1.5, 4, 1]) + 0.2 * np.eye(4, k=3), code=1)
        image.set_sform(np.diag([1, 1.5, 4, 1]), code=4)
        image.header["pixdim"][1] = 1.01
        (tmp_path / "images").mkdir(exist_ok=True)
        nibabel.save(image, tmp_path / "images" / f"{name}.nii.gz")
    predict(model, tmp_path / "images", tmp_path / "masks", device="cpu", uncertainty=True)
    for name in ("volume", "plane"):
        wanted = nibabel.load(tmp_path / "images" / f"{name}.nii.gz")
        for made in (f"{name}.nii.gz", f"uncertainty/{name}_entropy.nii.gz"):
            found = nibabel.load(tmp_path / "masks" / made)
            assert found.shape == wanted.shape
            for field in PLACING:
                np.testing.assert_array_equal(found.header[field], wanted.header[field], err_msg=field)
        assert found.get_data_dtype() == np.uint8
        assert 0 < found.get_fdata().max() < 1.001


def test_probabilities_tell_options_apart(model, images, tmp_path):
    digests = []
    for number, options in enumerate(({}, {"step": 1.0}, {"mirroring": False}, {"precision": "fp32"})):
        predict(model, images, tmp_path / str(number), device="cpu", part="1/2", save_probabilities=8, **options)
        digests.append(read_probabilities(tmp_path / str(number) / "probabilities" / "a.b2nd").info.model)
    assert len(set(digests)) == 4


def test_overwriting_forgets_all_that_was_made_beside_a_mask(model, images, tmp_path):
    predict(model, images, tmp_path, device="cpu", save_probabilities=8, uncertainty=True)
    predict(model, images, tmp_path, device="cpu", overwrite=True, part="1/2")  # only case a, and only its mask
    left = [path.name for folder in ("probabilities", "uncertainty") for path in (tmp_path / folder).iterdir()]
    assert sorted(left) == ["b.b2nd", "b.json", "b_entropy.nii.gz"]
    assert not (tmp_path / "uncertainty.csv").exists()


def test_overwriting_by_other_options_forgets_the_masks_of_images_that_are_not_given_too(model, images, tmp_path):
    both = tmp_path / "masks"
    one = tmp_path / "one"
    predict(model, images, both, device="cpu")
    one.mkdir()
    shutil.copyfile(images / "a.nii.gz", one / "a.nii.gz")
    predict(model, one, both, device="cpu", step=1.0, overwrite=True)
    assert list(masks(both)) == ["a.nii.gz"]  # b would pass for one of this step


def test_settings_that_cannot_be_read_can_be_overwritten(model, images, tmp_path):
    predict(model, images, tmp_path, device="cpu")
    (tmp_path / "prediction.json").write_text("{}")
    with pytest.raises(UserError, match="prediction.json"):
        predict(model, images, tmp_path, device="cpu")
    predict(model, images, tmp_path, device="cpu", overwrite=True)
    assert len(masks(tmp_path)) == 2


def test_forgetting_a_case_leaves_one_whose_name_begins_alike(tmp_path):
    own, other = (
        [tmp_path / f"{case}.nii.gz", tmp_path / "probabilities" / f"{case}.b2nd"]
        + [tmp_path / "uncertainty" / f"{case}{ending}" for ending in (".json", "_entropy.nii.gz")]
        + [tmp_path / "uncertainty" / f"{case}_disagreement.nii.gz"]
        for case in ("a", "a_b")
    )
    for path in (*own, *other):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    OutputFolder(path=tmp_path).forget("a")
    assert not any(path.exists() for path in own)
    assert all(path.exists() for path in other)


def test_the_table_of_doubt_is_written_though_all_cases_were_there(model, images, tmp_path):
    predict(model, images, tmp_path, device="cpu", uncertainty=True)
    table = tmp_path / "uncertainty.csv"
    before = table.read_text()
    table.unlink()  # as by one killed after the last case
    predict(model, images, tmp_path, device="cpu", uncertainty=True)
    assert table.read_text() == before


def test_timings_have_all_parts(model, images, tmp_path):
    predict(model, images, tmp_path, device="cpu")
    timings = json.loads((tmp_path / "timings.json").read_text())
    parts = {"read_s", "preprocess_s", "network_s", "restore_s", "write_s"}
    assert set(timings["cases"]) == {"a", "b"}
    for times in timings["cases"].values():
        assert times.keys() == parts | {"device"}
        assert times["device"] == "cpu"
        assert times["network_s"] > 0
    network_s = sum(times["network_s"] for times in timings["cases"].values())
    assert timings["total"]["network_s"] == pytest.approx(network_s, abs=1e-3)
    table = (tmp_path / "timings.csv").read_text().splitlines()
    assert table[0] == "case,read_s,preprocess_s,network_s,restore_s,write_s,device"
    assert [row.split(",")[0] for row in table[1:]] == ["a", "b"]


def test_several_devices_are_not_for_a_cluster(model, images, tmp_path):
    with pytest.raises(UserError, match="^device with cluster: each worker takes its own device"):
        predict(model, images, tmp_path / "masks", device=("cpu", "cpu"), cluster="localhost:8786")
