"""Compiles every kernel for NVIDIA's cards, for which none is needed: Triton brings the assembler.

    python tests/kernels/compile_for_cards.py 80 90    # compute capabilities; one line of JSON for each kernel

In a process of its own, because Triton either compiles or interprets. Of arguments that Triton bakes into a kernel
where they are 1, both kinds are compiled.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from segfw.kernels import norm_activation, sigmoid_dice, softmax_dice, warping

# By the name of an argument; others are pointers to float32
POINTERS = {"classes": "*i64", "images": "*fp16", "masks": "*i16", "mask_result": "*i16", "places": "*i32"}
POINTERS |= {"hidden": "*u8", "table": "*u8"}
IN_16_BIT = ("x", "y", "by_y", "by_x", "by_shortcut", "shortcut", "logits", "by_logits")
FLOATS = ("eps", "slope")
WHOLE_NUMBERS = (
    *("voxels", "channels", "slab_voxels", "slabs", "outputs", "of_sample", "of_output", "of_voxel", "ignore"),
    *("rows", "table_of_sample"),
    *("kinds", "values", "size_z", "size_y", "size_x"),
)
TILES = ({"BLOCK_V": 64, "BLOCK_C": 32}, {"BLOCK_V": 2048, "BLOCK_C": 1})
LOGITS = ({"BLOCK_V": 128, "BLOCK_K": 16}, {"BLOCK_V": 16, "BLOCK_K": 128}, {"BLOCK_V": 2, "BLOCK_K": 1024})

# Of regions, by the outputs of a tile of labels: half of its voxels, and of the largest half of its outputs.
HALVED = {16: {"BLOCK_V": 64, "BLOCK_K": 16}, 128: {"BLOCK_V": 8, "BLOCK_K": 128}, 1024: {"BLOCK_V": 2, "BLOCK_K": 512}}


def variants() -> list[tuple[object, dict[str, object]]]:
    """Each kernel with what is fixed when it is compiled."""
    found: list[tuple[object, dict[str, object]]] = []
    for tile in TILES:
        own = {"channels": 1} if tile["BLOCK_C"] == 1 else {}
        found.append((norm_activation._moments_of_slabs, tile | own))
        joined = {"BLOCK_S": tile["BLOCK_V"], "BLOCK_C": tile["BLOCK_C"]}
        found.append((norm_activation._joined_moments, joined | own))
        found.append((norm_activation._joined_moments, joined | own | {"slabs": 1}))
        for has in (False, True):
            found.append((norm_activation._normalise, tile | own | {"HAS_SHORTCUT": has}))
            found.append((norm_activation._gradient_sums_of_slabs, tile | own | {"HAS_SHORTCUT": has}))
            found.append((norm_activation._gradient_of_image, tile | own | {"IS_BEFORE_ACTIVATION": has}))
    for tile in LOGITS:
        # All voxels or the hardest, of samples that are annotated in part; what is left of both has less to hold.
        for layout, is_simple in (({"of_output": 1}, True), ({"of_output": 1}, False), ({"of_voxel": 1}, True)):
            of_labels = tile | layout | {"IS_PARTIAL": not is_simple, "BY_VOXEL": not is_simple}
            found.append((softmax_dice._sums_of_slabs, of_labels))
            found.append((softmax_dice._gradient, of_labels))
            of_regions = HALVED[tile["BLOCK_K"]] | layout | {"BY_VOXEL": not is_simple}
            found.append((sigmoid_dice._region_sums_of_slabs, of_regions))
            found.append((sigmoid_dice._region_gradient, of_regions))
    for has_moves in (False, True):
        fixed = {"HAS_MOVES": has_moves, "BLOCK": warping.BLOCK}
        found.append((warping._warp, fixed | {"IS_FLAT": False, "channels": 1, "kinds": 1}))
        found.append((warping._warp, fixed | {"IS_FLAT": True, "size_z": 1}))
    return found


def signature(kernel: object, fixed: dict[str, object], kind: str) -> dict[str, str]:
    found = {}
    for name in kernel.arg_names:
        if name in fixed:
            found[name] = "constexpr"
        elif name in WHOLE_NUMBERS:
            found[name] = "i32"
        elif name in FLOATS:
            found[name] = "fp32"
        else:
            found[name] = f"*{kind}" if name in IN_16_BIT else POINTERS.get(name, "*fp32")
    return found


def spilled_bytes(cubin: bytes) -> int:
    """What a thread keeps in memory because registers do not suffice, by NVIDIA's own tool, which Triton brings."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        text = subprocess.run(
            [tool, "--dump-resource-usage", path], capture_output=True, text=True, check=True, timeout=300
        ).stdout
    return int(text.partition("STACK:")[2].split()[0])


def main() -> None:
    for capability in map(int, sys.argv[1:]):
        kind = "bf16" if capability >= 80 else "fp16"
        for kernel, fixed in variants():
            constants = {(kernel.arg_names.index(name),): value for name, value in fixed.items()}
            source = ASTSource(kernel, signature(kernel, fixed, kind), constexprs=constants)
            found = {"kernel": kernel.__name__, "fixed": fixed, "capability": capability}
            try:
                compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
                found |= {"bytes": len(compiled.asm["cubin"]), "shared_bytes": compiled.metadata.shared}
                found["spilled_bytes"] = spilled_bytes(compiled.asm["cubin"])
            except Exception as error:
                found["error"] = f"{type(error).__name__}: {error}"[:600]
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
