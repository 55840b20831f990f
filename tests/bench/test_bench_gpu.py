"""The measurement on a GPU, in miniature on the CPU: every section runs, and the record has its figures."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from bench import CLONE
from bench.__main__ import main
from bench.gpu.cine import seconds_and_steps
from bench.gpu.computed import CARDS
from bench.gpu.section_time import GRACE_S
from bench.gpu.sections import SECTIONS
from bench.gpu.suite import CUDA_TESTS, IN_MINIATURE, outcome
from bench.gpu.training import budget
from builders.data import write_raw

QUICK = [section.name for section in SECTIONS if section.name not in ("train", "cine")]  # which start processes


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("visit")
    torch.set_num_threads(1)  # several would wait for each other on a busy machine, longer than they compute
    assert main(["gpu", "--cpu", "--output", str(folder), "--limit", "10000", "--only", ",".join(QUICK)]) == 0
    return folder


@pytest.fixture(scope="module")
def sections(visit: Path) -> dict:
    return json.loads((visit / "result.json").read_text(encoding="utf-8"))["sections"]


def errors(value: object, place: str = "") -> Iterator[str]:
    """All errors that were noted anywhere in a record."""
    if isinstance(value, dict):
        if "error" in value:
            yield f"{place}: {value['error']} {value.get('trace')}"
        for name, part in value.items():
            yield from errors(part, f"{place}/{name}")


def test_every_section_runs_without_an_error(sections):
    assert list(sections) == QUICK
    assert list(errors(sections)) == []
    assert all(section["seconds"] >= 0 for section in sections.values())


def test_what_agrees_with_the_cpu_does_so_on_the_cpu(sections):
    right = sections["right"]
    assert right["network_fp32"] == {"logits": 0, "loss": 0, "gradients": 0, "ok": True}
    assert right["network_bf16"]["ok"]
    assert right["network_bf16"]["logits"] > 0
    for name in ("labels", "ignore", "topk", "regions"):
        assert right[f"loss_{name}"] == {"loss": 0, "gradient": 0}
    for place in ("host", "device"):
        assert right[f"batches_{place}"] == {"largest_difference": 0, "labels_agree": 1, "repeats_bit_for_bit": True}
    for classes in (5, 40):
        assert right[f"predict_{classes}"]["fp32"] == 1
        assert right[f"predict_{classes}"]["auto"] > 0.8
    assert right["resume_in_process"]["straight_on"] == right["resume_in_process"]["resumed"]


def test_every_figure_is_there(sections):
    assert sections["memory"]["plain 2 GB 2d"]["counted_gib"] > 0
    for name in ("segfw eager", "segfw eager contiguous", "small patches eager", "resenc-l eager"):
        assert sections["step"][name]["median_ms"] > 0
    assert sections["step"]["segfw eager"]["tflop_per_s"] > 0
    assert len(sections["norm"]) >= 5 + 1  # and the seconds; the kernel where Triton is
    assert sections["norm"]["batch norm by sample channels-last"]["both_ms"] > 0
    assert any("convolution" in name for _, _, name in sections["profile"]["kernels"])
    assert {name.split(",")[0] for name in sections["feed"]} == {"memory", "device", "disk", "seconds"}
    tile_runs = [row["tile_runs"] for name, row in sections["predict"].items() if name != "seconds"]
    # 40 x 36 x 36 voxels in patches of 32 are 2 x 2 x 2 tiles; 3 mirrored axes are 8 runs of each, 5 folds 5.
    assert tile_runs == [8, 8, 64, 8, 64, 40]


def test_card_and_versions_are_named(visit):
    record = json.loads((visit / "result.json").read_text(encoding="utf-8"))
    assert record["device"] == "CPU, in miniature"
    assert record["torch"] == torch.__version__
    assert record["versions"]["numpy"] == version("numpy")
    assert {"cuda", "cudnn", "capability", "memory_gib", "triton", "nnunetv2"} <= set(record["versions"])


def test_the_tests_of_the_suite_ran_in_a_process_of_their_own(sections):
    assert sections["tests"]["exit_status"] == 0
    assert sections["tests"]["tests"] > 5
    assert sections["tests"]["failures"] == sections["tests"]["errors"] == 0


def test_a_test_that_fails_is_told_by_its_name(tmp_path):
    report = tmp_path / "tests.xml"
    report.write_text(
        '<testsuites><testsuite tests="3" failures="1" errors="0" skipped="1">'
        '<testcase classname="tests.a" name="right"/>'
        '<testcase classname="tests.a" name="left out"><skipped/></testcase>'
        '<testcase classname="tests.a" name="wrong"><failure message="assert 1 == 2"/></testcase>'
        "</testsuite></testsuites>",
        encoding="utf-8",
    )
    wanted = {"tests": 3, "failures": 1, "errors": 0, "skipped": 1, "failed": {"tests.a::wrong": "assert 1 == 2"}}
    assert outcome(report) == wanted


def test_files_of_the_suite_that_the_visit_runs_are_there():
    assert all((CLONE / path).exists() for path in (*CUDA_TESTS, *IN_MINIATURE))


def test_what_only_a_card_can_tell_is_among_them():
    needing = {
        path.relative_to(CLONE).as_posix()
        for path in (CLONE / "tests").glob("*/test_*.py")
        if "pytestmark = NEEDS_A_CARD" in path.read_text(encoding="utf-8").splitlines()
    }
    assert "tests/training/test_steps_on_a_card.py" in needing
    assert all({file, file.rpartition("/")[0]} & set(CUDA_TESTS) for file in needing)


def test_a_minute_is_counted_from_the_first_step():
    """Ten seconds before it, then epochs of 20 and 40 s with 3 s of validation between."""
    epochs = [
        {"elapsed_s": 30.0, "epoch_s": 20.0, "steps": 100},
        {"elapsed_s": 73.0, "epoch_s": 40.0, "steps": 210},
    ]
    found = seconds_and_steps("\n".join(json.dumps(epoch) for epoch in epochs))
    assert found == {"before_first_step_s": 10.0, "of_steps_s": 63.0, "steps": 310}
    assert seconds_and_steps("") == {}


def test_four_minutes_are_trained_where_the_section_may_take_five():
    assert budget(310 - GRACE_S) == 240  # the most
    assert budget(1000) == 240
    assert budget(240 - GRACE_S) == 170  # without planning, starting twice, what is lost in between, validation


def test_trainings_are_killed_resumed_timed_and_scored(tmp_path):
    """The two sections that start trainings, on six small cases: a minute of a core, most of it starting processes."""
    raw = write_raw(tmp_path / "raw", 6, "MR")
    output = tmp_path / "visit"
    arguments = ["gpu", "--cpu", "--output", str(output), "--data", str(raw), "--cine", str(raw)]
    main([*arguments, "--limit", "10000", "--only", "train,cine"])
    sections = json.loads((output / "result.json").read_text(encoding="utf-8"))["sections"]
    assert list(errors(sections)) == []
    train = sections["train"]
    assert (train["plan_exit_status"], train["killed_exit_status"], train["resumed_exit_status"]) == (0, -9, 0)
    assert train["steps"] > 0
    assert 0 <= train["scores"]["foreground_mean"]["dice"] <= 1
    cine = sections["cine"]
    for way in ("grow", "constant"):
        assert cine[way]["exit_status"] == 0
        assert cine[way]["steps"] > 0
        assert 0 <= cine[way]["dice"] <= 1
    # The second run gets what came before the first step of the one before it.
    assert cine["constant"]["budget_s"] == pytest.approx(2 + cine["grow"]["before_first_step_s"], abs=0.11)


def test_the_computed_times_in_the_documentation_are_what_is_computed(capsys):
    main(["gpu", "--computed"])
    table = capsys.readouterr().out
    assert table in (CLONE / "docs" / "gpu.md").read_text(encoding="utf-8")
    rows = table.splitlines()[2:]
    assert len(rows) == len(CARDS)
    assert all("| computed |" in row for row in rows)


def test_a_visit_needs_a_folder_for_its_results(capsys):
    with pytest.raises(SystemExit):
        main(["gpu", "--cpu"])
    assert "--output is needed" in capsys.readouterr().err


def test_the_markdown_names_the_device_and_holds_every_section(visit):
    text = (visit / "result.md").read_text(encoding="utf-8")
    assert text.startswith("## CPU, in miniature, torch ")
    for name in QUICK:
        assert f"\n### {name}\n" in text
    assert "| segfw eager | median_ms " in text


def test_sections_without_time_are_skipped_and_say_so(tmp_path):
    main(["gpu", "--cpu", "--output", str(tmp_path), "--limit", "3", "--only", "norm,machine"])
    sections = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["sections"]
    assert list(sections) == ["machine", "norm"]
    assert sections["machine"]["skipped"] == "0 s are left for it, and it takes 5 s"


def test_an_error_in_a_section_is_noted_and_the_next_one_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.gpu.feeding.segfw_step", lambda *_, **__: 1 / 0)
    main(["gpu", "--cpu", "--output", str(tmp_path), "--limit", "10000", "--only", "feed,norm"])
    sections = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["sections"]
    assert sections["feed"]["error"] == "ZeroDivisionError: division by zero"
    assert sections["norm"]["stock contiguous"]["both_ms"] > 0


def test_an_unknown_section_and_an_unknown_verb_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit, match="--only speed: choose from machine,right,"):
        main(["gpu", "--cpu", "--output", str(tmp_path), "--only", "speed"])
    assert main(["gpus"]) == 2
    assert "unknown verb 'gpus'; choose from " in capsys.readouterr().err


HIDE = """
import sys
from importlib.abc import MetaPathFinder

class Hidden(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"SimpleITK", "batchgenerators", "cc3d", "distributed", "monai", "pydicom", "pytest"}:
            raise ModuleNotFoundError(f"{name} is hidden")

sys.meta_path.insert(0, Hidden())
import bench.gpu.command, bench.gpu.sections
"""


def test_it_needs_few_packages_beside_pytorch():
    """What a machine that is lent for minutes must be given beforehand is listed in docs/benchmarks.md."""
    subprocess.run([sys.executable, "-c", HIDE], cwd=CLONE, check=True, timeout=300)
