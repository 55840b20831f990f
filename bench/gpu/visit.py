"""What all sections of a visit share: the device, the sizes, the clock, and the record that is written after each."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import torch

from bench.gpu.report import markdown
from bench.published_plan import published_plan
from segfw.base.device import device_name
from segfw.base.files import write_text
from segfw.images.geometry import Shape
from segfw.networks.spec import NetworkSpec

T = TypeVar("T")
MARGIN_S = 30.0  # of a visit's time that no section gets: for what ends late, and to write
FROM_RECORD = ("device", "torch", "versions")  # what figures of one record have in common
RESULT = "result.json"
SMALL_NETWORK = NetworkSpec(
    architecture="plain-unet",
    in_channels=1,
    classes=5,
    features=(16, 32, 64),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    kernels=((3, 3, 3), (3, 3, 3), (3, 3, 3)),
    encoder_blocks=(2, 2, 2),
    decoder_convs=(2, 2),
)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What a training step is measured on: a network, its patch (z, y, x) and patches in a batch."""

    network: NetworkSpec
    patch_size: Shape
    batch_size: int


@dataclass(kw_only=True)
class Visit:
    """One stay on a machine of ``whole_s`` seconds. ``record`` is what result.json holds, in ``order``."""

    folder: Path
    device: torch.device
    whole_s: float
    nnunet_folder: Path
    data_folder: Path
    cine_folder: Path
    began_s: float
    now_s: Callable[[], float] = time.monotonic
    order: tuple[str, ...] = ()
    record: dict = field(default_factory=dict)
    compilers: dict[str, subprocess.Popen] = field(default_factory=dict)  # processes that fill the compiler's cache

    @classmethod
    def start(
        cls,
        *,
        folder: Path,
        whole_s: float,
        on_cpu: bool,
        nnunet_folder: Path,
        data_folder: Path,
        cine_folder: Path,
    ) -> Visit:
        """The clock starts here. What an earlier visit measured with the same card and versions stays in the record."""
        device = torch.device("cpu") if on_cpu else torch.device("cuda", 0)
        record = {
            "arguments": sys.argv[1:],
            "device": "CPU, in miniature" if on_cpu else device_name(device),
            "torch": torch.__version__,
            "versions": versions(device),
            "sections": {},
        }
        earlier = folder / RESULT
        if earlier.is_file():
            record["sections"] = sections_of_earlier(earlier, json.loads(json.dumps(record, default=str)))
        return cls(
            folder=folder,
            device=device,
            whole_s=whole_s,
            nnunet_folder=nnunet_folder,
            data_folder=data_folder,
            cine_folder=cine_folder,
            began_s=time.monotonic(),
            record=record,
        )

    @property
    def on_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def has_nnunet(self) -> bool:
        return (self.nnunet_folder / "nnunetv2").is_dir()

    def seconds_gone(self) -> float:
        return self.now_s() - self.began_s

    def seconds_left(self) -> float:
        """For sections: without the margin."""
        return self.whole_s - MARGIN_S - self.seconds_gone()

    def has(self, section: str) -> bool:
        """True if a section was measured, here or in an earlier visit, to its end and without an error."""
        found = self.record["sections"].get(section)
        return found is not None and not {"skipped", "unfinished", "error"} & set(found)

    def note(self, section: str, found: dict) -> None:
        """Puts what is ``found`` in a section into the record, which is written."""
        sections = self.record["sections"] | {section: found}
        self.record["sections"] = dict(sorted(sections.items(), key=lambda item: self._place(item[0])))
        self.save()

    def _place(self, section: str) -> int:
        return self.order.index(section) if section in self.order else len(self.order)

    def pick(self, on_cuda: T, in_miniature: T) -> T:
        """The first on a CUDA device, the second on the CPU."""
        return on_cuda if self.on_cuda else in_miniature

    def problem(self, preset: str = "plain") -> Problem:
        """The published plan of a preset for a body of 300^3 voxels of 1 mm; a small one on the CPU."""
        if not self.on_cuda:
            return Problem(network=SMALL_NETWORK, patch_size=(32, 32, 32), batch_size=2)
        choice = published_plan(preset)
        return Problem(network=choice.network, patch_size=choice.patch_size, batch_size=choice.batch_size)

    def save(self) -> None:
        """Writes result.json and result.md."""
        self.record["seconds"] = round(self.seconds_gone(), 1)
        write_text(self.folder / RESULT, json.dumps(self.record, indent=1, default=str) + "\n")
        write_text(self.folder / "result.md", markdown(self.record))


def sections_of_earlier(path: Path, record: dict) -> dict:
    """Sections of the result.json of an earlier visit, which must be of the card and the versions of ``record``."""
    earlier = json.loads(path.read_text(encoding="utf-8"))
    for name in FROM_RECORD:
        if earlier[name] != record[name]:
            sys.exit(
                f"{path}: was measured with {name} {earlier[name]}, here it is {record[name]}; give another --output"
            )
    return dict(earlier["sections"])


def versions(device: torch.device) -> dict[str, object]:
    """What a figure depends on besides the card's name: memory, CUDA, cuDNN, Triton, ...; None of what is absent."""
    is_cuda = device.type == "cuda"
    found: dict[str, object] = {"python": sys.version.split()[0], "cuda": torch.version.cuda}
    found["cudnn"] = torch.backends.cudnn.version() if is_cuda else None
    found["capability"] = list(torch.cuda.get_device_capability(device)) if is_cuda else None
    found["memory_gib"] = round(torch.cuda.mem_get_info(device)[1] / 2**30, 1) if is_cuda else None
    for package in ("segfw", "triton", "nnunetv2", "numpy", "monai"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def attempt(found: dict, name: str, measure: Callable[[], object]) -> None:
    """Puts what ``measure`` returns under ``name``; of an exception its text, so that the next figure is taken too."""
    try:
        found[name] = measure()
    except Exception as error:
        found[name] = described(error)


def described(error: Exception) -> dict[str, str]:
    """An exception as it is kept in the record."""
    trace = "".join(traceback.format_exception(error)[-5:])
    return {"error": f"{type(error).__name__}: {str(error)[:600]}", "trace": trace[-1800:]}
