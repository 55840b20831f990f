"""Single bits flipped in every kind of image, and what is read then; the claims of ``lies``, and what they cost."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from random import Random

from builders.nnunet import trained_folder
from campaign.kills import Outcome
from campaign.lies import LIES
from fuzz.campaign import READ, REFUSED, in_worker
from fuzz.mutations import flipped
from fuzz.targets import IMAGES, Target
from segfw.verbs.import_nnunet import import_nnunet

BITS_OF_EACH = 17  # of 23 kinds of files: 391
MOST_MB = 300.0
MOST_CPU_S = 2.0


def bits(seed: int, of_each: int = BITS_OF_EACH) -> Iterator[Outcome]:
    """Flips single bits anywhere in files of every format, and compares the voxels that are read."""
    for name, target in IMAGES.items():
        if not target.holds_voxels:
            continue
        with tempfile.TemporaryDirectory() as place:
            yield from _bits_of(name, target, Path(place), Random(f"{seed} bits {name}"), of_each)


def _bits_of(name: str, target: Target, folder: Path, draw: Random, of_each: int) -> Iterator[Outcome]:
    made = in_worker(lambda: target.make(folder))
    path = Path(made.text.split("'")[1])
    whole = in_worker(lambda: target.read(path)).text
    content = path.read_bytes()
    first = len(content) if target.has_checksum_from is None else target.has_checksum_from(content)
    for number in range(of_each):
        damaged = flipped(content, draw)
        place = next(index for index, (old, new) in enumerate(zip(content, damaged)) if old != new)
        path.write_bytes(damaged)
        result = in_worker(lambda: target.read(path))
        how = f"bit {number}, at byte {place}"
        if result.outcome == REFUSED:
            yield Outcome("bits", name, how, "refused")
        elif result.outcome != READ:
            yield Outcome("bits", name, how, result.outcome, result.text[-1500:])
        elif result.text == whole:
            yield Outcome("bits", name, how, "the stored voxels are read")
        elif place < first:
            yield Outcome("bits", name, how, "other voxels are read, where the format has no checksum")
        else:
            yield Outcome("bits", name, how, "other voxels", f"{result.text} for {whole}")
    path.write_bytes(content)


def claims(names: tuple[str, ...] = tuple(LIES), most_cpu_s: float = MOST_CPU_S) -> Iterator[Outcome]:
    """Reads what claims more than it is: refused with little memory, and within ``most_cpu_s`` of a processor."""
    _load_readers(names)
    for name in names:
        lie = LIES[name]
        with tempfile.TemporaryDirectory() as place:
            made = in_worker(lambda lie=lie, place=place: str(lie.make(Path(place))))
            if made.outcome != READ:
                raise RuntimeError(f"{name}: cannot be made: {made.text}")
            path = Path(made.text.strip("'"))
            result = in_worker(lambda lie=lie, path=path: lie.read(path))
        cost = f"{result.memory_mb:.0f} MB, {result.cpu_s:.1f} s"
        fault = ""
        if result.outcome == READ and not lie.may_be_read:
            fault = f"is read: {result.text}"
        elif result.outcome not in (READ, REFUSED):
            fault = f"{result.outcome}: {result.text[-1500:]}"
        elif result.memory_mb > MOST_MB or result.cpu_s > most_cpu_s:
            fault = f"costs {cost}: {result.text[:300]}"
        words = "refused" if result.outcome == REFUSED else result.outcome
        yield Outcome("claims", name, cost, f"{words}: {result.text[:200]}", fault)


def _load_readers(names: tuple[str, ...]) -> None:
    """Loads what reading takes, which is not counted: the workers are forks of this process."""
    for name in ("nibabel", "SimpleITK", "tifffile", "PIL.Image", "blosc2", "safetensors.torch", "torch"):
        import_module(name)
    if any(name.startswith("nnU-Net") for name in names):  # torch loads hundreds of modules for the first of these
        with tempfile.TemporaryDirectory() as place:
            import_nnunet(trained_folder(Path(place) / "theirs"), Path(place) / "model")
