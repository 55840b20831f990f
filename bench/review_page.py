"""Seconds and memory of ``segfw review`` with a folder of many cases and structures, and with one large volume.

    python -m bench review-page [--cases 2000] [--structures 100] [--size 300 512 512] [--work review_page_check]

Masks, images and what is told of their quality are made up. The server is a process of its own; it is asked as the page
asks. Memory is the largest resident size of that process; seconds are those that it kept a core busy, and in brackets
those that passed, which other work on the machine makes longer.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nibabel
import numpy as np
import psutil

from bench.evaluation import organ_masks
from bench.measuring import AIR, SPACING_MM, require_new
from bench.runs import SEGFW
from segfw.dataset.labels import LABELS_FILE, LabelSet
from segfw.evaluation.mask_facts import FACTS_FILE, MaskFacts
from segfw.inference.prediction_settings import PredictionSettings

ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)/\?t=(\S+)")
LARGE = "large_volume"
MEGABYTE = 1024**2


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench review-page", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--structures", type=int, default=100)
    parser.add_argument("--size", type=int, nargs=3, default=(300, 512, 512), help="voxels of one case, along z, y, x")
    parser.add_argument("--work", type=Path, default=Path("review_page_check"), help="is made and removed")
    args = parser.parse_args(arguments)
    require_new(args.work)
    size_z, size_y, size_x = args.size
    folder = write_folder(args.work, args.cases, args.structures, (size_z, size_y, size_x))
    try:
        measure_server(folder, "without a queue")
        subprocess.run([str(SEGFW), "queue", str(folder)], check=True, stdout=subprocess.DEVNULL)
        measure_server(folder, "with the queue of segfw queue")
    finally:
        shutil.rmtree(args.work)


# ---- the folder ----


def write_folder(work: Path, cases: int, structures: int, size: tuple[int, int, int]) -> Path:
    """Drafts, images and what is told of them, as ``predict`` leaves them; all but one are links to one small mask."""
    folder = work / "masks"
    (folder / "quality").mkdir(parents=True)
    (work / "images").mkdir()
    names = tuple(f"structure_{number:03d}" for number in range(1, structures + 1))
    LabelSet(names=("background", *names), values=tuple(range(structures + 1))).save(folder / LABELS_FILE)
    settings = PredictionSettings(configuration="3d", folds=("0",), weights_digest="0" * 64, step=0.5, mirroring=True)
    settings.save(folder / "prediction.json")
    MaskFacts(images="../images").save(folder / FACTS_FILE)
    small, _ = organ_masks((16, 32, 32), structures + 1, 0)
    large = np.zeros(size, np.uint8)
    middle = tuple(slice(length // 4, 3 * length // 4) for length in size)  # organs of the belly, say
    large[middle], _ = organ_masks(large[middle].shape, structures + 1, 1, largest=0.1)
    _write(work / "small.nii.gz", small)
    _write(folder / f"{LARGE}.nii.gz", large)
    rng = np.random.default_rng(0)
    image = rng.normal(0, 20, size).astype(np.int16) + np.where(large > 0, 60, AIR).astype(np.int16)
    _write(work / "images" / f"{LARGE}_0000.nii.gz", image)
    rows = ["case,structure,verdict,predicted_dice,lower_bound,p_fail,ranking,volume_ml,reasons"]
    for case in (LARGE, *(f"case_{number:04d}" for number in range(1, cases))):
        if case != LARGE:
            os.link(work / "small.nii.gz", folder / f"{case}.nii.gz")
        rows += _write_quality(folder, case, names, rng)
    (folder / "quality.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def _write(path: Path, array_zyx: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(array_zyx.transpose(2, 1, 0), np.diag([*SPACING_MM[::-1], 1.0])), path)


def _write_quality(folder: Path, case: str, names: Sequence[str], rng: np.random.Generator) -> list[str]:
    """quality/CASE.json; gives the rows of the table."""
    structures = []
    rows = []
    for number, (name, dice) in enumerate(zip(names, rng.uniform(0.3, 0.98, len(names)).round(3).tolist()), start=1):
        lower = round(dice - 0.15, 3)
        reason = f"the folds agree on only {dice:.2f} of it"
        structures.append(
            {
                "label": name,
                "value": number,
                "predicted_dice": dice,
                "lower_bound": lower,
                "alpha": 0.1,
                "p_fail": 0.1,
                "verdict": "look",
                "ranking": dice,
                "features": {"roundness": 0.5},
                "reasons": [reason],
                "volume_ml": 12.0,
            }
        )
        rows.append(f"{case},{name},look,{dice},{lower},0.1,{dice},12,{reason}")
    gate = {"score": 0.5, "percentile": 50.0, "verdict": "usual", "reasons": []}
    told = {"case": case, "model_digest": "0" * 64, "gate": gate, "structures": structures, "guarantee": "exchangeable"}
    (folder / "quality" / f"{case}.json").write_text(json.dumps(told), encoding="utf-8")
    return rows


# ---- the server ----


class Asker:
    """Asks a server as its page does, and notes the largest memory that it has had."""

    def __init__(self, process: subprocess.Popen[str], port: int, token: str) -> None:
        self.port = port
        self.process = psutil.Process(process.pid)
        self.peak_bytes = 0
        self.cookie = ""
        self.started_cpu_s = sum(self.process.cpu_times()[:2])
        _, headers, _ = self.ask("GET", f"/?t={token}")
        self.cookie = headers["set-cookie"].partition(";")[0]

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[str, dict[str, str], bytes]:
        """What an answer took, its headers and its body; RuntimeError where it is an error."""
        headers = {"Cookie": self.cookie, "Origin": f"http://127.0.0.1:{self.port}", "X-Segfw": "1"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        start_s = time.perf_counter()
        start_cpu_s = sum(self.process.cpu_times()[:2])
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        parts = []
        while part := answer.read(MEGABYTE):
            parts.append(part)
            self.peak_bytes = max(self.peak_bytes, self.process.memory_info().rss)
        took = f"{sum(self.process.cpu_times()[:2]) - start_cpu_s:.2f} s ({time.perf_counter() - start_s:.2f})"
        self.peak_bytes = max(self.peak_bytes, self.process.memory_info().rss)
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {b''.join(parts)[:300]!r}")
        return took, {name.lower(): value for name, value in answer.getheaders()}, b"".join(parts)


@contextmanager
def running(folder: Path) -> Iterator[tuple[float, Asker]]:
    """A server, and the seconds until it said its address."""
    start_s = time.perf_counter()
    command = [str(SEGFW), "review", str(folder), "--user", "bench", "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = None
        for line in process.stdout:
            found = ADDRESS.search(line)
            if found:
                break
        if found is None:
            raise RuntimeError("segfw review did not start")
        yield time.perf_counter() - start_s, Asker(process, int(found[1]), found[2])
    finally:
        process.kill()
        process.wait()


def measure_server(folder: Path, called: str) -> None:
    """Prints what opening the page and one large case takes."""
    with running(folder) as (started_s, asker):
        session, _, _ = asker.ask("GET", "/api/session")
        first, _, queue = asker.ask("GET", "/api/queue")
        again, _, _ = asker.ask("GET", "/api/queue?offset=100000")
        total = json.loads(queue)["total"]
        print(f"{called}: {total:,} items")
        print(f"  address said after {asker.started_cpu_s:.2f} s ({started_s:.2f}), session {session},")
        print(f"  queue {first}, {len(queue) / 1024:.0f} kB, another part of it {again}; {_mb(asker.peak_bytes)}")
        _large_case(asker)
        print(f"  memory of the server at most {_mb(asker.peak_bytes)}")


def _mb(size: int) -> str:
    return f"{size / MEGABYTE:.1f} MB"


def _large_case(asker: Asker) -> None:
    case = f"/api/case/{LARGE}"
    about, _, told = asker.ask("GET", case)
    facts = json.loads(told)
    version = facts["version"]
    box = ",".join(map(str, (*facts["box"]["start_xyz"], *facts["box"]["stop_xyz"])))
    shown, _, image = asker.ask("GET", f"{case}/image.nii.gz")
    drawn, _, label = asker.ask("GET", f"{case}/label/{version}.nii.gz")
    whole, _, content = asker.ask("GET", f"{case}/image.nii.gz?whole=1")
    size = " x ".join(map(str, facts["full_shape_xyz"]))
    served = " x ".join(map(str, facts["shape_xyz"]))
    print(f"  {size} voxels, of which {served} are served: what is told of it {about}")
    print(
        f"  image {shown}, {_mb(len(image))}; mask {drawn}, {_mb(len(label))}; whole image {whole}, {_mb(len(content))}"
    )
    asker.ask("POST", "/api/open", json.dumps({"case": LARGE}).encode())
    bitmap = np.asarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(label)).dataobj).copy(order="F")
    bitmap[:5, :5, :5] = version + 1
    packed = gzip.compress(bitmap.tobytes(order="F"), 1)
    saved, _, _ = asker.ask("POST", f"/api/save?case={LARGE}&base={version}&box={box}", packed)
    print(f"  save {saved}")
