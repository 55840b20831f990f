"""How much of the machine a process may use, and which errors say that memory ran out."""

import errno
from pathlib import Path

import numpy as np
import pytest
import torch

from segfw.base.resources import cgroup_free_bytes, control_groups, cpu_count, free_memory_bytes, ran_out_of_memory


def control_group(folder: Path, limit: str, current: int = 900, cache: int = 250) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{current}\n")
    (folder / "memory.stat").write_text(f"anon 600\nfile 300\nactive_file {cache - 50}\ninactive_file 50\n")
    return folder


def test_memory_that_only_caches_files_counts_as_free(tmp_path):
    assert cgroup_free_bytes(control_group(tmp_path, "1000")) == 1000 - 900 + 250


def test_without_a_limit_or_a_control_group_memory_is_the_machines(tmp_path):
    assert cgroup_free_bytes(control_group(tmp_path, "max")) == float("inf")
    assert cgroup_free_bytes(tmp_path / "none") == float("inf")
    assert 0 < free_memory_bytes() < 2**50
    assert cpu_count() >= 1


def test_version_1_control_groups_are_read(tmp_path):
    (tmp_path / "memory.limit_in_bytes").write_text("1000\n")
    (tmp_path / "memory.usage_in_bytes").write_text("900\n")
    (tmp_path / "memory.stat").write_text("cache 5\ninactive_file 7\ntotal_inactive_file 50\ntotal_active_file 200\n")
    assert cgroup_free_bytes(tmp_path) == 1000 - 900 + 250
    (tmp_path / "memory.limit_in_bytes").write_text("9223372036854771712\n")  # version 1's way to say unlimited
    assert cgroup_free_bytes(tmp_path) > 2**60


@pytest.mark.parametrize(
    "listed, folders",
    [
        ("0::/\n", ["."]),
        ("0::/user.slice/job_7\n", ["user.slice/job_7", "user.slice", "."]),
        ("12:cpu,cpuacct:/a\n5:memory:/docker/b\n1:name=systemd:/c\n", ["memory/docker/b", "memory/docker", "memory"]),
        ("5:cpu,memory:/b\n0::/d\n", ["memory/b", "memory", "d", "."]),
        ("", ["."]),
    ],
)
def test_all_control_groups_that_bound_the_memory_are_found(tmp_path, listed, folders):
    assert control_groups(listed, tmp_path) == [tmp_path / folder for folder in folders]


def chained(first: Exception, second: Exception) -> Exception:
    try:
        try:
            raise first
        except Exception:
            raise second from None
    except Exception as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        np._core._exceptions._ArrayMemoryError((2, 3), np.dtype("float32")),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("Failed to allocate memory for image."),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        torch.OutOfMemoryError(),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("CUDA driver error: CUDA_ERROR_OUT_OF_MEMORY"),
        RuntimeError("CUDA error: cudaErrorMemoryAllocation"),
        RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("miopenStatusAllocFailed"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
        chained(MemoryError(), ValueError("x.nii: cannot be read")),
    ],
)
def test_the_ways_to_run_out_of_memory_are_known(error):
    assert ran_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        *(None, ValueError("out of memory"), RuntimeError("shapes differ"), OSError(28, "full")),
        *(RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), RuntimeError("miopenStatusInternalError")),
    ],
)
def test_other_errors_are_not_taken_for_a_lack_of_memory(error):
    assert not ran_out_of_memory(error)
