"""Tensors on disk: safetensors files, of a model's weights and of checkpoints, in a folder or inside a model file."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from segfw.base.errors import UserError, unreadable
from segfw.base.files import whole_file
from segfw.base.words import first_line
from segfw.images.geometry import Shape, as_shape
from segfw.model.source import ModelSource, split_model_path

LONGEST_NUMBER = 9  # digits of an epoch
MOST_HEADER_BYTES = 1 << 24  # a network of a thousand layers has a header of 100 kB
IS_PATCH = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", re.ASCII)
LONGEST_REASON = 200  # characters of the library's words
# The checksum stands twice in a file's text, so that no single damage makes one that has it look like one that has not.
CHECKSUMS = ("crc32", "crc32_again")


# The variance of what a layer with a larger weight gives is beyond float32. No training comes near.
LARGEST_WEIGHT = 1e18


def save_weights(
    path: Path,
    weights: Mapping[str, Tensor],
    *,
    epoch: int,
    mirror_axes: Sequence[int],
    patch_size: Shape | None = None,
) -> None:
    """Writes a fold's weights as ``load_model`` reads them.

    ``patch_size`` (z, y, x) is what they were trained on in the end, where that may be less than planned.
    """
    text = {"epoch": str(epoch), "mirror_axes": ",".join(str(axis) for axis in mirror_axes)}
    if patch_size is not None:
        text["patch_size"] = "x".join(str(edge) for edge in patch_size)
    save_tensors(path, weights, text)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes tensors and text to one safetensors file, atomically."""
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole_file(path) as partial:
        save_file(plain, str(partial), metadata={**metadata, **dict.fromkeys(CHECKSUMS, checksum(plain, metadata))})
        _sort_metadata(partial)


def _sort_metadata(path: Path) -> None:
    """Gives the same bytes for the same content: the library writes the text in an order that changes every time."""
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        content = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(content) <= length:
            file.seek(8)
            file.write(content.ljust(length))


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names and values of a network's weights, in the order of the names."""
    digest = hashlib.sha256()
    add_tensors(digest, tensors)
    return digest.hexdigest()


def add_tensors(digest: hashlib._Hash, tensors: Mapping[str, Tensor]) -> None:
    """Adds the names and values of a network's weights to a digest of several."""
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """CRC-32 of all that a safetensors file holds: names, types, shapes and values of its tensors, and its text."""
    text = {name: value for name, value in metadata.items() if name not in CHECKSUMS}
    result = zlib.crc32(json.dumps(text, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        result = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), result)
        values = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        result = zlib.crc32(values.numpy().data, result)
    return f"{result:08x}"


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and text of a safetensors file, also of one inside a model file; UserError if it is damaged.

    Weights that a model file keeps as float16 come as float32.
    """
    inside = split_model_path(path)
    if inside is None:
        return _load_file(Path(path))
    model, name = inside
    with ModelSource.open(model) as source:
        return read_tensors(source, name)


def read_tensors(source: ModelSource, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and text of one safetensors file of an opened model, as ``load_tensors`` gives them."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = source.path / name
    if source.card is None:
        return _load_file(path)
    content = source.read(name)
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise _damaged(path, error) from None
    whole = {key: tensor.float() if tensor.dtype == torch.float16 else tensor for key, tensor in tensors.items()}
    return whole, _checked(safetensors_header(content).get("__metadata__", {}), path)


def require_usable(tensors: Mapping[str, Tensor], path: Path) -> None:
    """UserError that names file and tensor if weights are no numbers, too large to compute with, or all 0."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        low, high = (float(value) for value in tensor.aminmax())  # NaN if any value is
        if not (low >= -LARGEST_WEIGHT and high <= LARGEST_WEIGHT):
            example = high if abs(high) > LARGEST_WEIGHT or high != high else low
            raise UserError(
                f"{path}: the weights {name} hold {example:.3g}, with which nothing can be computed; restore the file, "
                "or train again"
            )
    weights = [tensor for tensor in tensors.values() if tensor.is_floating_point()]
    if weights and not any(bool(each.any()) for each in weights):
        raise UserError(f"{path}: all weights are 0, which finds the same everywhere; restore the file, or train again")


def _load_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with open(path, "rb") as file:  # the library says of a file that may not be read that it is not there
            header_bytes = int.from_bytes(file.read(8), "little")
        if header_bytes > MOST_HEADER_BYTES:  # which the library would read, and quote in its error
            raise _damaged(path, f"its header would have {header_bytes:,} bytes")
        with safe_open(str(path), framework="pt") as opened:
            # Copies: a tensor of the file keeps it mapped, and Windows then lets nobody put a new file in its place.
            tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
            metadata = dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None
    stated = {metadata.pop(name, None) for name in CHECKSUMS}
    if stated not in ({None}, {checksum(tensors, metadata)}):  # those of older versions, and of others, state none
        raise _damaged(path, "its checksum does not fit")
    return tensors, _checked(metadata, path)


def _damaged(path: Path, error: Exception | str) -> UserError:
    """UserError of a file that cannot be read: damaged, unless the error says that this user may not."""
    reason = error if isinstance(error, str) else first_line(error, LONGEST_REASON)
    damaged = f"{path}: is not a whole safetensors file ({reason}); train again or restore it"
    return UserError(damaged) if isinstance(error, str) else unreadable(path, error, damaged)


def safetensors_header(content: bytes) -> dict:
    """What a safetensors file says before its tensors: 8 bytes of length, then JSON."""
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def shared_mirror_axes(metadata: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
    """Axes along which all folds, whose weights' ``metadata`` are given, saw mirrored images."""
    axes_of_folds = [{int(axis) for axis in fold.get("mirror_axes", "").split(",") if axis} for fold in metadata]
    return tuple(sorted(set.intersection(*axes_of_folds)))


def shared_patch_size(metadata: Sequence[Mapping[str, str]], planned: Shape) -> Shape:
    """The patch that all folds know: the smallest of those that they were trained on, the planned one where none says.

    Folds of one time budget differ in it only where they were trained on different machines.
    """
    texts = [fold["patch_size"] for fold in metadata if "patch_size" in fold]
    return min((as_shape(map(int, text.split("x"))) for text in texts), key=prod, default=planned)


def _checked(metadata: Mapping[str, str], path: Path) -> dict[str, str]:
    """The text of a file of weights, once it says of mirroring and epoch what it can; UserError naming ``path``."""
    axes = metadata.get("mirror_axes", "")
    if not {axis for axis in axes.split(",") if axis} <= {"0", "1", "2"}:
        raise UserError(f"{path}: field 'mirror_axes' is {axes[:80]!r}; it must be some of 0,1,2: restore the file")
    epoch = metadata.get("epoch", "0")
    if not (epoch.isascii() and epoch.isdecimal()) or len(epoch) > LONGEST_NUMBER:
        raise UserError(f"{path}: field 'epoch' is {epoch[:80]!r}; it must be a number: restore the file")
    patch = metadata.get("patch_size", "1x1x1")
    if not IS_PATCH.fullmatch(patch):
        raise UserError(
            f"{path}: field 'patch_size' is {patch[:80]!r}; it must be voxels such as 40x56x40: restore the file"
        )
    return dict(metadata)
