"""Points of a plug-in: the structure after all of them comes back, by a planted refiner that answers with balls."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from builders.data import blocks_case, write_nifti
from builders.label_client import LabelClient, label_server
from builders.models import small_model
from builders.planted_refiner import BallRefiner, ball
from builders.refiner import TUMOUR, Planted, bright, refiner
from builders.training import LABELS
from builders.under_review import ADA, write_drafts
from segfw.base.errors import UserError
from segfw.images.formats import read_mask
from segfw.monailabel.label_desk import LabelDesk
from segfw.monailabel.refiner_on_demand import RefinerOnDemand
from segfw.reviewing.review_store import ReviewStore

for package in ("starlette", "uvicorn", "python_multipart"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'segfw[review]'")

PROGRAM = ("builders.planted_labels",)
MODEL = "my_model_refiner"
BRIGHT = 3
DARK = 7


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(client, store) of a server whose cases tests only ask."""
    root = tmp_path_factory.mktemp("points")
    images = {}
    values = {}
    for number, case in enumerate(("case_1", "case_2")):
        image, mask = blocks_case(number)
        write_nifti(root / "scans" / f"{case}.nii.gz", image)
        images[case] = root / "scans" / f"{case}.nii.gz"
        values[case] = mask.transpose(2, 1, 0).copy()
    store = write_drafts(root / "masks", images, values, LABELS)
    small_model(root / "my model")
    with label_server(store.folder, "--refiner", str(root / "my model"), program=PROGRAM) as port:
        yield LabelClient(port), store


def empty_places(store: ReviewStore, case: str) -> list[list[int]]:
    """Indexes (x, y, z) of voxels of the background, whose balls stay inside of it."""
    mask = store.read(case)
    found = []
    for z, y, x in np.argwhere(mask.array[0] == 0):
        at = mask.geometry.matrix @ (z, y, x, 1.0)
        if (mask.array[0][ball(mask.geometry, at[:3])] == 0).all():
            found.append([int(x), int(y), int(z)])
    assert len(found) > 20  # else the tests prove nothing
    return found


def ball_at(store: ReviewStore, case: str, index_xyz: list[int]) -> np.ndarray:
    geometry = store.read(case).geometry
    return ball(geometry, (geometry.matrix @ (*index_xyz[::-1], 1.0))[:3])


def ask(client, case, **params):
    return client.infer(MODEL, case, params)


def mask_of(reply, tmp_path: Path) -> np.ndarray:
    """The label map of an answer, in the order of its file."""
    assert reply.status == 200, reply.body
    name, content = reply.parts["image"]
    assert name == f"{MODEL}.nii.gz"
    (tmp_path / name).write_bytes(content)
    return read_mask(tmp_path / name).array[0]


def test_info_lists_it_as_the_plug_ins_list_models_for_points(served):
    client, _ = served
    about = client.get("/info/").json["models"][MODEL]
    assert (about["type"], about["dimension"], about["labels"]) == ("deepgrow", 3, [])
    assert about["config"] == {"may_overwrite": False}


def test_points_of_both_kinds_change_one_structure_and_come_back_as_that_alone(served, tmp_path):
    client, store = served
    draft = store.read("case_1").array[0]
    near, far = empty_places(store, "case_1")[0], empty_places(store, "case_1")[-1]
    wanted = draft == BRIGHT
    wanted |= ball_at(store, "case_1", near)
    reply = ask(client, "case_1", label="bright", foreground=[near], background=[])
    np.testing.assert_array_equal(mask_of(reply, tmp_path), np.where(wanted, BRIGHT, 0))
    assert json.loads(reply.parts["params"][1]) == {"label_names": {"bright": BRIGHT}, "model": MODEL}

    # As the plug-in does: all points of the structure every time
    wanted |= ball_at(store, "case_1", far)
    reply = ask(client, "case_1", label="bright", foreground=[near, far], background=[])
    np.testing.assert_array_equal(mask_of(reply, tmp_path), np.where(wanted, BRIGHT, 0))
    reply = ask(client, "case_1", label="bright", foreground=[near, far], background=[near])
    wanted &= ~ball_at(store, "case_1", near)
    np.testing.assert_array_equal(mask_of(reply, tmp_path), np.where(wanted, BRIGHT, 0))

    # The other structure is not changed by these, and keeps them off
    place = empty_places(store, "case_1")[len(empty_places(store, "case_1")) // 2]
    reply = ask(client, "case_1", label="dark", foreground=[place], background=[])
    dark = (draft == DARK) | (ball_at(store, "case_1", place) & ~wanted)
    np.testing.assert_array_equal(mask_of(reply, tmp_path), np.where(dark, DARK, 0))

    # A point that was removed: begun anew, and those of the other structure stay
    reply = ask(client, "case_1", label="bright", foreground=[far], background=[])
    wanted = (draft == BRIGHT) | (ball_at(store, "case_1", far) & ~dark)
    np.testing.assert_array_equal(mask_of(reply, tmp_path), np.where(wanted, BRIGHT, 0))
    assert not store.is_begun  # points store nothing


def test_two_people_do_not_see_each_others_points(served, tmp_path):
    client, store = served
    draft = store.read("case_2").array[0]
    first, second = empty_places(store, "case_2")[0], empty_places(store, "case_2")[-1]
    other = LabelClient(client.port, "user-b")
    ask(client, "case_2", label="bright", foreground=[first], background=[])
    reply = ask(other, "case_2", label="bright", foreground=[second], background=[])
    wanted = (draft == BRIGHT) | ball_at(store, "case_2", second)
    np.testing.assert_array_equal(mask_of(reply, tmp_path), np.where(wanted, BRIGHT, 0))


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"label": "bright", "foreground": [], "background": []}, "no point on bright was sent"),
        ({"foreground": [[1, 1, 1]]}, "no label says which structure the points are on; send one of bright or dark"),
        ({"label": "unicorn", "foreground": [[1, 1, 1]]}, "'unicorn' is no label here"),
        ({"label": "bright", "foreground": [[1, 1]]}, "foreground is no list of points"),
        ({"label": "bright", "foreground": "1,1,1"}, "foreground is no list of points"),
        ({"label": "bright", "background": [[1.5, 1, 1]]}, "background is no list of points"),
        ({"label": "bright", "background": [[float("nan"), 1, 1]]}, "background is no list of points"),
        ({"label": "bright", "background": [[float("inf"), 1, 1]]}, "background is no list of points"),
        ({"label": "bright", "background": [[True, 1, 1]]}, "background is no list of points"),
        ({"label": "bright", "background": [[10**400, 1, 1]]}, "background is no list of points"),
        ({"label": "bright", "foreground": [[1, 1, 99]]}, "(1, 1, 99) lies outside of the image"),
        ({"label": "bright", "foreground": [[-1, 1, 1]]}, "(-1, 1, 1) lies outside of the image"),
        ({"label": "bright", "foreground": [[1, 1, 1]] * 501}, "501 points on bright were sent"),
        ({"label": "bright", "foreground": [[1, 1, 1]], "result_extension": ".exe"}, "result_extension is '.exe'"),
    ],
)
def test_what_is_no_point_is_refused_in_words(params, said, served):
    client, _ = served
    reply = ask(client, "case_2", **params)
    assert reply.status == 422
    assert said in reply.json["detail"]


def test_another_structure_is_protected_until_the_option_says_so(served, tmp_path):
    client, store = served
    draft = store.read("case_1").array[0]
    z, y, x = np.argwhere(draft == DARK)[0].tolist()
    reply = ask(client, "case_1", label="bright", foreground=[[x, y, z]], background=[])
    assert reply.status == 422
    assert "lies in dark, which is protected" in reply.json["detail"]
    reply = ask(client, "case_1", label="bright", foreground=[[x, y, z]], background=[], may_overwrite=True)
    assert mask_of(reply, tmp_path)[z, y, x] == BRIGHT


def test_cases_alone_and_known_models_alone(served, tmp_path):
    client, store = served
    params = {"label": "bright", "foreground": [[1, 1, 1]]}
    assert ask(client, "nobody", **params).status == 404
    assert client.infer("another", "case_1", params).status == 404
    scan = store.image_files("case_1")[0]
    opened = client.multipart("PUT", "/session/", {}, {"files": scan}).json
    reply = client.infer(MODEL, "", params, f"&session_id={opened['session_id']}")
    assert reply.status == 422
    assert "of this folder" in reply.json["detail"]


def test_after_a_save_points_begin_with_what_was_saved(tmp_path):
    image, mask = blocks_case(0)
    write_nifti(tmp_path / "scans" / "case_1.nii.gz", image)
    values = {"case_1": mask.transpose(2, 1, 0).copy()}
    store = write_drafts(tmp_path / "masks", {"case_1": tmp_path / "scans" / "case_1.nii.gz"}, values, LABELS)
    far = empty_places(store, "case_1")[-1]
    is_ball = ball_at(store, "case_1", far)
    small_model(tmp_path / "model")
    with label_server(store.folder, "--refiner", str(tmp_path / "model"), program=PROGRAM) as port:
        client = LabelClient(port)
        params = {"label": "bright", "foreground": [far], "background": []}
        assert client.infer("model_refiner", "case_1", params).status == 200
        store.open_case("case_1", ADA)
        empty = np.zeros_like(values["case_1"])
        store.save("case_1", ADA, empty, base=0, origin="edited", tool="test")
        reply = client.infer("model_refiner", "case_1", params)
    (tmp_path / "mask.nii.gz").write_bytes(reply.parts["image"][1])
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii.gz").array[0], np.where(is_ball, BRIGHT, 0))


def test_a_path_without_a_model_is_told_before_it_serves(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        RefinerOnDemand(tmp_path / "nothing", "cpu")


def test_labels_of_a_model_of_regions_are_clicked_on_one_by_one(tmp_path):
    image = np.zeros((20, 18, 10), np.float32) + np.float32(0.1)  # x, y, z
    image[4:9, 5:11, 3:6] = 1
    (tmp_path / "scans").mkdir()
    write_nifti(tmp_path / "scans" / "case_1.nii.gz", image)
    mask = np.zeros((10, 18, 20), np.uint8)
    mask[8, 1:4, 1:4] = 3
    store = write_drafts(tmp_path / "masks", {"case_1": tmp_path / "scans" / "case_1.nii.gz"}, {"case_1": mask}, TUMOUR)
    small_model(tmp_path / "model")
    points = RefinerOnDemand(tmp_path / "model", "cpu")
    points._refiner = refiner(Planted(bright), labels=TUMOUR)
    (tmp_path / "made").mkdir()
    params = {"label": "oedema", "foreground": [[6, 7, 4]], "background": []}
    found = points.refine(LabelDesk(store, ADA), "case_1", params, tmp_path / "made")
    corrected = read_mask(found.file.path).array[0]
    assert (corrected[3:6, 6:10, 5:8] == 1).all()  # without the border, which is resampled
    corrected[3:6, 5:11, 4:9] = 0
    assert not corrected.any()
    assert found.label_names == {"oedema": 1}


def test_a_point_that_may_overwrite_still_may_when_points_of_another_structure_begin_anew(tmp_path):
    image, mask = blocks_case(0)
    write_nifti(tmp_path / "scans" / "case_1.nii.gz", image)
    values = {"case_1": mask.transpose(2, 1, 0).copy()}
    store = write_drafts(tmp_path / "masks", {"case_1": tmp_path / "scans" / "case_1.nii.gz"}, values, LABELS)
    small_model(tmp_path / "model")
    points = RefinerOnDemand(tmp_path / "model", "cpu")
    points._refiner = BallRefiner(LABELS)
    desk = LabelDesk(store, ADA)
    z, y, x = np.argwhere(values["case_1"] == DARK)[0].tolist()
    near, far = empty_places(store, "case_1")[0], empty_places(store, "case_1")[-1]

    def ask_for(label, places, **options):
        params = {"label": label, "foreground": places, "background": []} | options
        return read_mask(points.refine(desk, "case_1", params, tmp_path).file.path).array[0]

    ask_for("bright", [[x, y, z]], may_overwrite=True)
    ask_for("dark", [near, far])
    dark = ask_for("dark", [far])
    taken = ball_at(store, "case_1", [x, y, z])
    wanted = ((values["case_1"] == DARK) & ~taken) | (ball_at(store, "case_1", far) & ~taken)
    np.testing.assert_array_equal(dark, np.where(wanted, DARK, 0))
