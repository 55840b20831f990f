"""Which part of segfw may import which: read from the source, so that no cycle and no shortcut creeps in."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import segfw

ROOT = Path(segfw.__file__).parent


# Rooms of the house, floor by floor: a room imports only what lies on a floor below its own.
FLOORS = (
    {"base"},
    {"images", "kernels"},
    {"networks"},
    {"dataset"},
    {"grid"},
    {"planning", "evaluation", "perturbations", "clicks"},
    {"model"},
    {"training", "inference", "checkup", "nnunet", "onnx", "measurements", "interop"},
    {"quality", "robustness", "radiomics", "joining", "interaction", "pretraining"},
    {"reviewing", "outcomes"},
    {"retraining", "worklist", "delivery"},
    {"standing"},
    {"review_page"},
    {"monailabel"},
    {"verbs"},
)
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}
# Room -> the rooms that it imports: exactly those in use. Whoever adds one says here that it is meant.
EDGES = {
    "base": set(),
    "images": {"base"},
    "kernels": {"base"},
    "networks": {"base", "kernels"},
    "dataset": {"base", "images"},
    "grid": {"base", "images", "dataset"},
    "planning": {"base", "images", "networks", "dataset", "grid"},
    "evaluation": {"base", "images", "dataset"},
    "model": {"base", "images", "networks", "dataset", "grid", "planning"},
    "training": {"base", "images", "kernels", "networks", "grid", "planning", "model", "clicks"},
    "inference": {"base", "images", "kernels", "networks", "dataset", "grid", "planning", "evaluation", "model"},
    "checkup": {"base", "images", "dataset", "grid", "planning"},
    "joining": {"base", "images", "dataset", "planning", "checkup"},
    "nnunet": {"base", "images", "networks", "dataset", "grid", "planning", "model"},
    "onnx": {"base", "networks", "dataset", "grid", "planning", "model"},
    "measurements": {"base", "images", "dataset", "evaluation"},
    "perturbations": {"base", "images", "grid"},
    "pretraining": {
        *("base", "images", "networks", "dataset", "grid", "planning", "evaluation", "model", "training", "inference"),
        *("checkup", "nnunet"),
    },
    "clicks": {"base", "images", "dataset", "grid"},
    "interop": {"base", "images", "dataset"},
    "interaction": {
        *("base", "images", "networks", "dataset", "grid", "evaluation", "model", "inference", "clicks", "interop"),
    },
    "quality": {
        *("base", "images", "dataset", "grid", "planning", "evaluation", "perturbations", "model", "inference"),
        "measurements",
    },
    "robustness": {
        *("base", "images", "dataset", "grid", "planning", "evaluation", "perturbations", "model", "inference"),
    },
    "radiomics": {"base", "images", "dataset", "evaluation", "measurements"},
    "outcomes": {"base", "dataset"},
    "reviewing": {"base", "images", "dataset", "evaluation", "inference", "measurements"},
    "retraining": {
        *("base", "images", "networks", "dataset", "grid", "planning", "evaluation", "model", "training", "inference"),
        *("quality", "reviewing"),
    },
    "standing": {
        *("base", "images", "dataset", "evaluation", "model", "training", "inference", "measurements", "robustness"),
        *("retraining", "reviewing", "worklist", "delivery", "pretraining", "outcomes"),
    },
    "worklist": {"base", "images", "dataset", "evaluation", "quality", "reviewing"},
    "delivery": {"base", "images", "dataset", "inference", "interop", "reviewing"},
    "review_page": {
        *("base", "images", "dataset", "grid", "evaluation", "clicks", "interop", "quality", "reviewing", "worklist"),
        "delivery",
    },
    "monailabel": {
        *("base", "images", "dataset", "evaluation", "model", "inference", "clicks", "interaction", "reviewing"),
        *("worklist", "review_page"),
    },
    "verbs": set(FLOOR_OF) - {"verbs", "kernels", "perturbations"},
}
TOP = {"segfw", "segfw.__main__", "segfw.cli"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """Modules of segfw that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole name"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name in MODULES}


SOURCES = {module_name(path): path for path in ROOT.rglob("*.py")}
MODULES = set(SOURCES)
IMPORTS = {name: imported(path) - {"segfw", name} for name, path in SOURCES.items()}


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_module_lies_in_a_room():
    outside = {module for module in MODULES - TOP if module.count(".") < 1 or room(module) not in FLOOR_OF}
    assert not outside


def test_rooms_import_what_is_written_here_and_nothing_else():
    used = {name: set() for name in FLOOR_OF}
    for module in MODULES - TOP:
        used[room(module)] |= {room(other) for other in IMPORTS[module]} - {room(module)}
    assert used == EDGES


def test_a_room_imports_only_what_lies_on_floors_below():
    wrong = {(name, other) for name in EDGES for other in EDGES[name] if FLOOR_OF[other] >= FLOOR_OF[name]}
    assert not wrong


def test_no_file_is_called_like_another_or_like_a_room():
    files = [module.rsplit(".", 1)[1] for module in MODULES - TOP if module.count(".") == 2]
    assert len(files) > 100  # else this proves nothing
    assert sorted(set(files)) == sorted(files)
    assert not set(files) & set(FLOOR_OF)


def test_every_room_says_what_it_is_for():
    for name in FLOOR_OF:
        assert ast.get_docstring(ast.parse((ROOT / name / "__init__.py").read_text(encoding="utf-8"))), name


def test_the_page_on_the_architecture_names_files_that_are_there():
    text = (ROOT.parent / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[a-z_]+/)+[A-Za-z_]+\.[a-z.]+)`", text))
    assert len(named) > 80  # else this proves nothing
    lacking = {path for path in named if not any((folder / path).is_file() for folder in (ROOT, ROOT.parent))}
    assert not lacking


def test_there_are_no_cycles_not_even_through_imports_inside_functions():
    # A package's __init__ is run by importing any of its modules, but does not count as using them.
    try:
        tuple(TopologicalSorter(IMPORTS).static_order())
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that are loaded in a fresh interpreter after ``statement``."""
    code = f"{statement}; import sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    return set(result.stdout.split())


@pytest.mark.parametrize("statement", ["import segfw", "import segfw.cli", "import segfw.cli as c; c.build_parser()"])
def test_help_does_not_wait_for_heavy_libraries(statement):
    assert not loaded_by(statement) & {"torch", "numpy", "scipy", "nibabel", "SimpleITK", "matplotlib", "monai"}


def test_training_needs_no_reader_of_images_and_no_plots():
    loaded = loaded_by("import segfw.training.loop")
    assert "torch" in loaded  # otherwise this proves nothing
    assert not loaded & {"SimpleITK", "nibabel", "matplotlib", "jinja2", "monai", "batchgenerators", "pandas"}


def test_the_public_names_exist():
    for name in segfw.__all__:
        assert getattr(segfw, name) is not None
    with pytest.raises(AttributeError, match="module 'segfw' has no attribute 'nonsense'"):
        _ = segfw.nonsense
