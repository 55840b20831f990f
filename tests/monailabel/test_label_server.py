"""What MONAI Label's plug-ins ask of a folder under review, and what pages in a browser may not."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote_plus

import nibabel
import numpy as np
import pytest

from builders.data import blocks_case, write_nifti
from builders.label_client import ADDRESS, LabelClient, Reply, label_server
from builders.models import small_model
from builders.series import write_series
from builders.started_server import started_server
from builders.training import LABELS
from builders.under_review import ADA, sign, write_drafts
from builders.waiting import run_together
from segfw.dataset.finished_mask import FinishedMask, MaskMaker
from segfw.dataset.labels import LabelSet
from segfw.images.formats import read_mask, write_labels
from segfw.inference.predictor import Predictor
from segfw.interop.write_seg_nrrd import write_seg_nrrd
from segfw.model.load import load_model
from segfw.reviewing.people import Person
from segfw.reviewing.review_store import ReviewStore

for package in ("starlette", "uvicorn", "python_multipart"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'segfw[review]'")

CASES = ("case 1", "case_2", "case_3")


def make_folder(tmp_path: Path) -> ReviewStore:
    """Drafts of three cases that hold bright (3) and dark (7); the second has no dark."""
    images = {}
    values = {}
    for number, case in enumerate(CASES):
        image, mask = blocks_case(number)
        write_nifti(tmp_path / "scans" / f"{case}.nii.gz", image)
        images[case] = tmp_path / "scans" / f"{case}.nii.gz"
        values[case] = mask.transpose(2, 1, 0).copy()
    values["case_2"][values["case_2"] == 7] = 0
    return write_drafts(tmp_path / "masks", images, values, LABELS)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(port, folder, model) of a server that tests only ask."""
    tmp_path = tmp_path_factory.mktemp("served")
    store = make_folder(tmp_path)
    model = small_model(tmp_path / "my model")
    with label_server(
        store.folder, "--model", str(model), "--device", "cpu", "--allow-origin", "http://ohif:3000"
    ) as port:
        yield port, store.folder, model


@pytest.fixture
def own(tmp_path):
    """(client, store) of a server that a test may change."""
    store = make_folder(tmp_path)
    with label_server(store.folder) as port:
        yield LabelClient(port), store


def edited(store: ReviewStore, case: str) -> np.ndarray:
    """The newest mask with one voxel of each label more."""
    values = store.read(case).array[0].astype(np.int32).copy()
    values[0, 0, 0] = 3
    values[0, 0, 1] = 7
    return values


def as_slicer_writes(values: np.ndarray, order: tuple[int, ...], store: ReviewStore, case: str, path: Path) -> Path:
    """The label map with 1, 2, ... for the values in ``order``, with x and y turned round as 3D Slicer may store it."""
    numbers = np.zeros(values.shape, np.uint8)
    for number, value in enumerate(order, start=1):
        numbers[values == value] = number
    affine = store.read(case, 0).geometry.matrix[:, [2, 1, 0, 3]]
    image = nibabel.Nifti1Image(numbers.transpose(2, 1, 0), affine)
    turned = image.as_reoriented([[0, -1], [1, -1], [2, 1]])
    nibabel.save(turned, path)
    return path


DARK_FIRST = {"label_info": [{"name": "dark", "idx": 1}, {"name": "bright", "idx": 2}]}


def test_info_says_names_model_and_how_far_it_is(served):
    port, folder, model = served
    info = LabelClient(port).get("/info/").json
    assert info["labels"] == ["bright", "dark"]
    assert info["models"]["my_model"]["labels"] == {"bright": 3, "dark": 7}
    assert (info["models"]["my_model"]["type"], info["models"]["my_model"]["dimension"]) == ("segmentation", 3)
    assert set(info["strategies"]) == {"segfw-queue", "first", "random"}
    assert info["datastore"]["total"] == 3
    assert (info["trainers"], info["train_stats"]) == ({}, {})


def test_status_of_training_auth_and_sessions(served):
    port, *_ = served
    client = LabelClient(port)
    assert client.get("/train/?check_if_running=true").status == 404
    assert client.get("/train/").json["status"] == "NOT RUNNING"
    assert client.ask("POST", "/train/my_model", b"{}", {"content-type": "application/json"}).status == 405
    assert client.get("/auth/").json["enabled"] is False
    assert client.get("/session/nothing").status == 404


def test_the_next_sample_is_a_file_and_two_clients_get_two(served):
    port, folder, _ = served
    first = LabelClient(port, "user-a").next_sample("first").json
    assert first["id"] == "case 1"
    assert Path(first["path"]).is_file()
    assert first["checksum"].startswith("SHA256:")
    assert LabelClient(port, "user-a").next_sample("first").json["id"] == "case 1"
    assert LabelClient(port, "user-b").next_sample("first").json["id"] == "case_2"
    # The plug-in names segments by their order among those that are there
    objects = LabelClient(port).get("/datastore/?output=all").json["objects"]
    assert objects["case 1"]["labels"]["original"]["info"]["params"]["label_names"] == {"bright": 3, "dark": 7}
    assert objects["case_2"]["labels"]["original"]["info"]["params"]["label_names"] == {"bright": 3}
    assert "final" not in objects["case 1"]["labels"]
    assert LabelClient(port).next_sample("nothing such").status == 404


def test_files_are_sent_as_they_are(served):
    port, folder, _ = served
    client = LabelClient(port)
    image = client.get(f"/datastore/image?image={quote_plus('case 1')}")
    assert image.body == (folder.parent / "scans" / "case 1.nii.gz").read_bytes()
    assert "case" in image.headers["content-disposition"]
    assert client.ask("HEAD", f"/datastore/image?image={quote_plus('case 1')}").status == 200
    label = client.get(f"/datastore/label?label={quote_plus('case 1')}&tag=original")
    assert label.body == (folder / "case 1.nii.gz").read_bytes()
    for path in ("/datastore/image?image=nobody", "/datastore/image?image=../masks/case_2", "/datastore/image"):
        assert client.get(path).status in (404, 422)
    assert client.get("/datastore/label?label=case_2&tag=final").status == 404


def test_a_model_predicts_a_case_and_an_image_that_is_sent(served, tmp_path):
    port, folder, model = served
    client = LabelClient(port)
    scan = folder.parent / "scans" / "case 1.nii.gz"
    expected = Predictor.of(load_model(model), device="cpu")(str(scan)).array[0]
    present = sorted(set(np.unique(expected).tolist()) - {0})
    by_case = client.infer("my_model", "case 1", {})
    by_file = client.infer("my_model", "", {}, file=scan)
    for reply in (by_case, by_file):
        assert reply.status == 200, reply.body[:500]
        name, content = reply.parts["image"]
        (tmp_path / name.replace("/", "_")).write_bytes(content)
        read = read_mask(tmp_path / name.replace("/", "_"))
        np.testing.assert_array_equal(read.array[0], expected)
        said = json.loads(reply.parts["params"][1])
        assert said["label_names"] == {{3: "bright", 7: "dark"}[value]: value for value in present}

    # As OHIF asks: plain NRRD alone
    params = {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False}
    reply = client.infer("my_model", "case 1", params, "&output=image")
    assert b"encoding: raw" in reply.body[:2000]
    (tmp_path / "mask.nrrd").write_bytes(reply.body)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.nrrd").array[0], expected)
    assert client.infer("another", "case 1", {}).status == 404
    assert client.infer("my_model", "nobody", {}).status == 404

    # A session
    opened = client.multipart("PUT", "/session/", {}, {"files": scan}).json
    reply = client.infer("my_model", "", {}, f"&session_id={opened['session_id']}")
    assert reply.parts["image"][1] == by_file.parts["image"][1]
    assert client.ask("DELETE", f"/session/{opened['session_id']}").status == 200
    assert client.infer("my_model", "", {}, f"&session_id={opened['session_id']}").status == 404


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
def test_images_that_were_sent_go_with_a_server_that_is_ended_as_services_are(tmp_path, monkeypatch):
    store = make_folder(tmp_path)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    words = ("segfw", "serve-monailabel", str(store.folder), "--port", "0", "--user", "ada")
    with started_server(words, ADDRESS) as (process, said):
        client = LabelClient(int(said[1]))
        sent = client.multipart("PUT", "/session/", {}, {"files": tmp_path / "scans" / "case_2.nii.gz"})
        assert sent.status == 200
        assert [path.name for path in temporary.rglob("*.nii.gz")] != []
        process.terminate()
        assert process.wait(30) == 0
    assert list(temporary.iterdir()) == []


def test_what_is_submitted_becomes_a_reviewed_version_by_the_names_of_segments(own, tmp_path):
    client, store = own
    values = edited(store, "case 1")
    sent = as_slicer_writes(values, (7, 3), store, "case 1", tmp_path / "label.nii.gz")
    reply = client.save_label("case 1", sent, DARK_FIRST)
    assert reply.status == 200, reply.body
    assert (reply.json["image"], reply.json["segfw"]["state"]) == ("case 1", "REVIEWED")
    standing = store.standing("case 1")
    assert (standing.state, standing.version, standing.reviewed_by) == ("REVIEWED", 1, "ada")
    np.testing.assert_array_equal(store.read("case 1", 1).array[0], values)
    (version,) = store.versions("case 1")
    assert version.origin == "imported"
    assert version.editor_tool == "MONAI Label user-xyz"
    assert standing.decisions == {"bright": "edit", "dark": "edit"}
    assert client.get("/info/").json["datastore"]["completed"] == 1
    objects = client.get("/datastore/?output=all").json["objects"]
    assert objects["case 1"]["labels"]["final"]["info"]["segfw"]["state"] == "REVIEWED"
    final = client.get(f"/datastore/label?label={quote_plus('case 1')}&tag=final")
    (tmp_path / "final.nii.gz").write_bytes(final.body)
    np.testing.assert_array_equal(read_mask(tmp_path / "final.nii.gz").array[0], values)
    assert client.next_sample("first").json["id"] == "case_2"

    # Nothing that a plug-in says signs anything
    note = {"segmentationMeta": {"status": "approved", "approvedBy": "Eve", "level": "easy"}}
    for path, part in (("label/info", "info"), ("updatelabelinfo", "params")):
        address = f"/datastore/{path}?label={quote_plus('case 1')}&tag=final"
        noted = client.multipart("PUT", address, {part: json.dumps(note)}, {})
        assert noted.json["segmentationMeta"]["status"] == "approved"
    assert store.standing("case 1").state == "REVIEWED"
    assert [event.event for event in store.log.events()].count("reviewer-note") == 2
    assert store.log.verify().ok


def test_what_is_saved_unfinished_is_a_version_of_a_draft(own, tmp_path):
    client, store = own
    values = edited(store, "case_2")
    sent = as_slicer_writes(values, (7, 3), store, "case_2", tmp_path / "label.nii.gz")
    assert client.save_label("case_2", sent, DARK_FIRST, tag="version_1").status == 200
    standing = store.standing("case_2")
    assert (standing.state, standing.version) == ("DRAFT", 1)


@pytest.mark.parametrize(
    ("label_info", "said"),
    [
        (
            [{"name": "dark", "idx": 1}, {"name": "unicorn", "idx": 2}],
            "holds 'unicorn', which is no label here",
        ),
        ([{"name": "dark", "idx": 1}], "the label map holds 2, which label_info does not name"),
        ([{"name": "dark", "idx": 1}, {"name": "dark", "idx": 2}], "names a segment or a number twice"),
        ([{"name": "dark"}], "label_info holds {'name': 'dark'}; send"),
        ("dark", "label_info is no list"),
        (
            [{"name": "a", "idx": 1}, {"name": "dark", "idx": 2}, {"name": "b", "idx": 3}],
            "holds 'a', which is no label",
        ),
        # Counted with a background that was left out, or without: 2 is dark or bright
        ([{"name": "bright", "idx": 2}, {"name": "dark", "idx": 3}, {"name": "c", "idx": 1}], "may be counted with or"),
    ],
)
def test_names_that_are_not_known_or_not_clear_are_refused(label_info, said, own, tmp_path):
    client, store = own
    sent = as_slicer_writes(edited(store, "case 1"), (7, 3), store, "case 1", tmp_path / "label.nii.gz")
    reply = client.save_label("case 1", sent, {"label_info": label_info})
    assert reply.status == 422
    assert said in reply.json["detail"]
    assert store.standing("case 1").version == 0
    assert store.standing("case 1").state == "DRAFT"


def test_numbers_that_skip_a_background_are_those_of_the_order(own, tmp_path):
    client, store = own
    values = edited(store, "case 1")
    sent = as_slicer_writes(values, (7, 3), store, "case 1", tmp_path / "label.nii.gz")
    with_background = {"label_info": [{"name": "dark", "idx": 2}, {"name": "bright", "idx": 3}]}
    assert client.save_label("case 1", sent, with_background).status == 200
    np.testing.assert_array_equal(store.read("case 1", 1).array[0], values)


def test_bytes_of_ohif_are_in_the_order_of_the_file(own, tmp_path):
    client, store = own
    values = edited(store, "case_2")
    (tmp_path / "label.bin").write_bytes(values.astype(np.uint8).tobytes())
    assert client.save_label("case_2", tmp_path / "label.bin", {}).status == 200
    np.testing.assert_array_equal(store.read("case_2", 1).array[0], values)
    (tmp_path / "label.bin").write_bytes(b"123")
    reply = client.save_label("case_3", tmp_path / "label.bin", {})
    assert reply.status == 422
    assert "has 3 bytes, and the image" in reply.json["detail"]


def test_seg_nrrd_keeps_its_names(own, tmp_path):
    client, store = own
    values = edited(store, "case 1")
    geometry = store.read("case 1").geometry
    mask = FinishedMask(
        case_id="case 1", values_zyx=values, geometry=geometry, labels=LABELS, maker=MaskMaker(name="3D Slicer")
    )
    write_seg_nrrd(tmp_path / "label.seg.nrrd", mask)
    assert client.save_label("case 1", tmp_path / "label.seg.nrrd", {"label_info": "whatever"}).status == 200
    np.testing.assert_array_equal(store.read("case 1", 1).array[0], values)
    other = LabelSet(names=("background", "unicorn", "dark"), values=(0, 3, 7))
    write_seg_nrrd(tmp_path / "other.seg.nrrd", replace(mask, labels=other))
    reply = client.save_label("case_2", tmp_path / "other.seg.nrrd", {})
    assert reply.status == 422
    assert "holds unicorn, which is none of the structures here" in reply.json["detail"]


def test_another_grid_no_mask_and_no_case_are_refused(own, tmp_path):
    client, store = own
    moved = store.read("case 1").geometry.matrix.copy()
    moved[0, 3] += 5
    image = nibabel.Nifti1Image(np.ones((20, 18, 10), np.uint8), moved[:, [2, 1, 0, 3]])
    nibabel.save(image, tmp_path / "moved.nii.gz")
    names = {"label_info": [{"name": "dark", "idx": 1}]}
    assert client.save_label("case 1", tmp_path / "moved.nii.gz", names).status == 422
    (tmp_path / "text.nii.gz").write_bytes(b"no mask at all")
    assert client.save_label("case 1", tmp_path / "text.nii.gz", names).status == 422
    assert client.save_label("../case 1", tmp_path / "moved.nii.gz", names).status == 404
    assert client.multipart("PUT", "/datastore/label?image=case_2", {"params": "no json"}, {}).status == 422
    assert not (store.folder / "review").exists() or store.standing("case 1").version == 0


def test_a_signed_case_is_not_changed(own, tmp_path):
    client, store = own
    sha256 = sign(store, "case 1")
    sent = as_slicer_writes(edited(store, "case 1"), (7, 3), store, "case 1", tmp_path / "label.nii.gz")
    reply = client.save_label("case 1", sent, DARK_FIRST)
    assert reply.status == 409
    assert "the signer amends it first" in reply.json["detail"]
    standing = store.standing("case 1")
    assert (standing.state, standing.sha256) == ("SIGNED", sha256)
    assert store.changed("case 1") == ()


def test_a_case_that_another_person_has_open_is_not_taken(own, tmp_path):
    client, store = own
    store.open_case("case_2", Person(user="ben"))
    sent = as_slicer_writes(edited(store, "case_2"), (7, 3), store, "case_2", tmp_path / "label.nii.gz")
    reply = client.save_label("case_2", sent, DARK_FIRST)
    assert reply.status == 409
    assert "ben" in reply.json["detail"]
    assert store.standing("case_2").version == 0


def test_saves_at_the_same_time_are_versions_of_their_own(own, tmp_path):
    client, store = own
    replies: dict[int, Reply] = {}
    wanted = {}
    for number in range(8):
        values = edited(store, "case_3")
        values[1, 1, number] = 7
        wanted[number] = values
        as_slicer_writes(values, (7, 3), store, "case_3", tmp_path / f"label{number}.nii.gz")

    def save(number: int) -> None:
        sender = LabelClient(client.port, f"user-{number}")
        replies[number] = sender.save_label("case_3", tmp_path / f"label{number}.nii.gz", DARK_FIRST)

    threads = [threading.Thread(target=save, args=(number,)) for number in range(8)]
    run_together(threads)
    assert {reply.status for reply in replies.values()} == {200}, [reply.body for reply in replies.values()]
    versions = store.versions("case_3")
    assert [version.number for version in versions] == list(range(1, 9))
    tools = {version.editor_tool: version.number for version in versions}
    for number, values in wanted.items():
        saved = store.read("case_3", tools[f"MONAI Label user-{number}"]).array[0]
        np.testing.assert_array_equal(saved, values)
    assert store.log.verify().ok
    assert store.standing("case_3").state == "REVIEWED"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "evil.example:80"}, 403),
        ({"Host": "127.0.0.1:1"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://ohif:3000"}, 200),
        ({"Origin": "http://ohif:3001"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 200),
    ],
)
@pytest.mark.parametrize("path", ["/info/", "/datastore/image?image=case_2"])
def test_pages_that_are_not_allowed_are_refused(headers, status, path, served):
    port, *_ = served
    reply = LabelClient(port).ask("GET", path, headers=headers)
    assert reply.status == status
    is_ohif = headers.get("Origin") == "http://ohif:3000"
    assert reply.headers.get("access-control-allow-origin") == ("http://ohif:3000" if is_ohif else None)


def test_a_form_of_a_foreign_page_writes_nothing(own, tmp_path):
    client, store = own
    body = b'--x\r\nContent-Disposition: form-data; name="info"\r\n\r\n{"a": 1}\r\n--x--\r\n'
    headers = {"content-type": "multipart/form-data; boundary=x", "Origin": "http://evil.example"}
    for method in ("PUT", "POST"):
        reply = client.ask(method, "/datastore/label/info?label=case_2&tag=final", body, headers)
        assert reply.status == 403
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "PUT"}
    assert client.ask("OPTIONS", "/datastore/label", headers=asked).status == 403
    assert not store.is_begun


def test_an_allowed_page_is_told_what_it_may_do(served):
    port, *_ = served
    headers = {"Origin": "http://ohif:3000", "Access-Control-Request-Method": "PUT"}
    reply = LabelClient(port).ask("OPTIONS", "/datastore/label?image=case_2", headers=headers)
    assert reply.status == 204
    assert "PUT" in reply.headers["access-control-allow-methods"]


def test_more_than_may_be_sent_is_refused_before_it_is_read(served):
    port, *_ = served
    headers = {"content-type": "multipart/form-data; boundary=x", "content-length": str(1 << 40)}
    reply = LabelClient(port).ask("PUT", "/datastore/label?image=case_2", None, headers)
    assert reply.status == 413
    headers = {"content-type": "application/json", "content-length": str(2 << 20)}
    assert LabelClient(port).ask("POST", "/activelearning/first", None, headers).status == 413


@pytest.mark.parametrize("path", ["/datastore/", "/datastore/image?image=x", "/datastore/label?id=case_2"])
def test_nothing_is_removed_or_added(path, served):
    port, folder, _ = served
    assert LabelClient(port).ask("DELETE", path).status == 405
    assert (folder / "case_2.nii.gz").is_file()


def test_a_dicom_series_is_sent_as_one_file(tmp_path):
    content = np.arange(4 * 6 * 8).reshape(4, 6, 8)
    series = write_series(tmp_path / "scans" / "case_1", content)
    store = write_drafts(tmp_path / "masks", {"case_1": series}, {"case_1": np.ones((4, 6, 8), np.uint8) * 3}, LABELS)
    with label_server(store.folder) as port:
        sample = LabelClient(port).next_sample("first").json
        reply = LabelClient(port).get("/datastore/image?image=case_1")
    assert (sample["id"], sample["name"]) == ("case_1", "case_1.nii.gz")
    (tmp_path / "image.nii.gz").write_bytes(reply.body)
    np.testing.assert_array_equal(nibabel.load(tmp_path / "image.nii.gz").get_fdata(), content.transpose(2, 1, 0))


def test_without_a_model_nothing_needs_torch(tmp_path):
    store = make_folder(tmp_path)
    code = f"""
import sys
sys.modules["torch"] = None
from segfw.cli import main
import segfw.review_page.serve_review
import uvicorn
def run(self, sockets):
    import asyncio
    from starlette.requests import Request
    async def ask():
        sent = []
        async def send(message): sent.append(message)
        async def receive(): return {{"type": "http.request", "body": b""}}
        port = sockets[0].getsockname()[1]
        scope = {{"type": "http", "method": "GET", "path": "/info/", "raw_path": b"/info/", "query_string": b"",
                 "headers": [(b"host", b"127.0.0.1:%d" % port)], "http_version": "1.1", "scheme": "http"}}
        await self.config.app(scope, receive, send)
        print(sent[0]["status"])
        assert sent[0]["status"] == 200
    asyncio.run(ask())
uvicorn.Server.run = run
sys.exit(main(["serve-monailabel", {str(store.folder)!r}, "--port", "0"]))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


def test_sha_of_a_submitted_mask_is_that_of_its_voxels(own, tmp_path):
    client, store = own
    same = store.read("case_3").array[0]
    sent = tmp_path / "label.nii.gz"
    write_labels(sent, same, store.read("case_3").geometry)
    assert client.save_label("case_3", sent, {}).status == 200
    assert store.standing("case_3").decisions == {"bright": "accept", "dark": "accept"}
    sha256 = store.standing("case_3").sha256
    store.sign("case_3", ADA, name="Ada King", meaning="review", version_sha256=sha256)
    assert store.standing("case_3").state == "SIGNED"
