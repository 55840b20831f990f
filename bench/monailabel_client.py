"""MONAI Label's own client class, as its plug-ins for 3D Slicer use it, against ``segfw serve-monailabel``.

The class is no part of segfw and nothing of it is copied: it is taken from an installed ``monailabel``, or from its
file ``client.py``, which needs ``requests`` and a Python before 3.13.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np

from segfw.dataset.toy import make_toy_dataset
from segfw.images.formats import read_mask
from segfw.reviewing.review_store import ReviewStore
from segfw.verbs.plan_and_preprocess import plan_and_preprocess
from segfw.verbs.predict import predict
from segfw.verbs.train import train

ADDRESS = re.compile(r"served at (http://\S+);")
WRITERS = 6  # that save the same case at the same time
STEPS_S = 20.0  # of training: the masks need not be good


def main(arguments: Sequence[str] | None = None) -> None:
    """Calls all that the plug-in calls, and says what came of each."""
    parser = argparse.ArgumentParser(
        prog="python -m bench monailabel-client", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--client", type=Path, help="monailabel/client/client.py, where monailabel is not installed")
    parser.add_argument("--keep", type=Path, help="folder for data, model and masks (default: a temporary one)")
    asked = parser.parse_args(arguments)
    client = client_module(asked.client)
    if client is None:
        print("monailabel is not installed, so that nothing was tried: pip install monailabel, or give --client FILE")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.keep or Path(temporary)
        masks, model = made_folder(folder)
        with served(masks, model) as address:
            try_all(client, address, masks, model.name, Path(temporary))


def client_module(path: Path | None) -> ModuleType | None:
    """The module with the client class; None if there is none."""
    if path is None:
        found = importlib.util.find_spec("monailabel")
        if found is None or found.submodule_search_locations is None:
            return None
        path = Path(found.submodule_search_locations[0]) / "client" / "client.py"
    spec = importlib.util.spec_from_file_location("monailabel_client_class", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made_folder(folder: Path) -> tuple[Path, Path]:
    """(Masks, model): a model that was trained for a moment, and what it drew on three made-up images."""
    raw = folder / "raw"
    work = folder / "work"
    masks = folder / "masks"
    if not masks.is_dir():
        make_toy_dataset(raw, cases=4, test_cases=3)
        plan_and_preprocess(raw, work, configurations=("3d_fullres",), folds=("0",))
        train(work, "3d_fullres", "0", time_budget_s=STEPS_S)
        predict(work, raw / "imagesTs", masks)
    return masks, work


@contextmanager
def served(masks: Path, model: Path) -> Iterator[str]:
    """The address of a server in a process of its own."""
    command = [sys.executable, "-m", "segfw", "serve-monailabel", str(masks), "--model", str(model), "--port", "0"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            found = ADDRESS.search(line)
            if found:
                yield found[1]
                return
        raise RuntimeError("segfw serve-monailabel did not start")
    finally:
        process.kill()
        process.wait()


def try_all(client: ModuleType, address: str, masks: Path, model: str, folder: Path) -> None:
    """One line for each call; an error ends it."""
    asked = client.MONAILabelClient(address, tmpdir=str(folder), client_id="user-xyz")
    store = ReviewStore.open(masks)
    labels = dict(zip(store.labels.names[1:], store.labels.values[1:]))

    info = asked.info()
    require(info["models"][model]["labels"] == labels, "info: names and numbers of the model")
    require(asked.auth_enabled() is False, "auth: not asked for")
    sample = asked.next_sample("segfw-queue", {})
    case = sample["id"]
    require(Path(sample["path"]).is_file(), f"next sample: {case}, with its file")
    objects = asked.datastore()["objects"]
    require(sorted(objects) == list(store.case_ids), f"datastore: {len(objects)} cases")
    draft = read_mask(Path(asked.download_label(case, "original"))).array[0]
    require((draft == store.read(case, 0).array[0]).all(), "download of the draft: the same voxels")

    result, said = asked.infer(model, case, {})
    predicted = read_mask(Path(result)).array[0]
    require((predicted == draft).all(), "infer: the same voxels as segfw predict")
    present = sorted(set(np.unique(predicted).tolist()) - {0})
    require(list(said["label_names"].values()) == present, f"infer: names of what is there, {said['label_names']}")

    # Saved as 3D Slicer does: numbers in the order of segments, here from the last label to the first
    wanted = draft.copy()
    wanted[0, 0, 0] = store.labels.values[1]
    names = list(labels)[::-1]
    sent = as_segments(wanted, [labels[name] for name in names], store, case, folder / "label.nii.gz")
    label_info = [{"name": name, "idx": number} for number, name in enumerate(names, start=1)]
    asked.save_label(case, sent, params={"label_info": label_info})
    standing = store.standing(case)
    is_same = (store.read(case, standing.version).array[0] == wanted).all()
    require(standing.state == "REVIEWED" and is_same, "save: REVIEWED, never SIGNED, the same voxels by name")

    unknown = [{"name": "unicorn", "idx": number} for number in range(1, 2)] + label_info[1:]
    require(is_refused(client, asked, case, sent, unknown), "save with a name that is no label: refused")
    require(asked.train_status(check_if_running=True) is False, "status of training: not running")

    save_at_once(client, address, store, names, label_info, folder)
    require(store.log.verify().ok, "the log of the review is whole")


def save_at_once(
    client: ModuleType, address: str, store: ReviewStore, names: list[str], label_info: list[Any], folder: Path
) -> None:
    """Several clients save different masks of one case at the same time."""
    case = store.case_ids[-1]
    value_of = dict(zip(store.labels.names, store.labels.values))
    wanted = {}
    for number in range(WRITERS):
        values = store.read(case, 0).array[0].copy()
        values[0, 1, number] = store.labels.values[1]
        wanted[f"MONAI Label user-{number}"] = values
        as_segments(values, [value_of[name] for name in names], store, case, folder / f"label{number}.nii.gz")

    def save(number: int) -> None:
        one = client.MONAILabelClient(address, tmpdir=str(folder), client_id=f"user-{number}")
        one.save_label(case, str(folder / f"label{number}.nii.gz"), params={"label_info": label_info})

    threads = [threading.Thread(target=save, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    versions = {version.editor_tool: version.number for version in store.versions(case)}
    kept = [tool for tool, values in wanted.items() if (store.read(case, versions[tool]).array[0] == values).all()]
    require(len(kept) == WRITERS, f"{WRITERS} saves of one case at once: {len(kept)} versions, each as it was sent")


def as_segments(values: np.ndarray, order: Sequence[int], store: ReviewStore, case: str, path: Path) -> str:
    """The file that 3D Slicer would write: 1, 2, ... for the segments in their order."""
    numbers = np.zeros(values.shape, np.uint8)
    for number, value in enumerate(order, start=1):
        numbers[values == value] = number
    affine = store.read(case, 0).geometry.matrix[:, [2, 1, 0, 3]]
    nibabel.save(nibabel.Nifti1Image(numbers.transpose(2, 1, 0), affine), path)
    return str(path)


def is_refused(client: ModuleType, asked: Any, case: str, sent: str, label_info: list[Any]) -> bool:
    """Whether the server takes a label map with such names; the client raises where it does not."""
    try:
        asked.save_label(case, sent, params={"label_info": label_info})
    except client.MONAILabelClientException as error:
        return "unicorn" in error.msg
    return False


def require(is_so: bool, what: str) -> None:
    """Prints what was tried; SystemExit where it did not come out so."""
    print(f"{'as it must be' if is_so else 'WRONG':>13}: {what}", flush=True)
    if not is_so:
        raise SystemExit(1)
