"""What Windows does otherwise, as far as another system can prove it: calls that it lacks, files that are open."""

import ast
import errno
import os
from contextlib import suppress
from pathlib import Path, PureWindowsPath

import pytest

import segfw
from segfw.base import files
from segfw.base.errors import UserError
from segfw.base.files import is_empty, new_folder, once_free, write_text
from segfw.base.output_paths import require_distinct
from segfw.base.records import Record, StoredPath
from segfw.model.weights import load_tensors, save_tensors
from segfw.training.stop_file import COOL_DOWN, GO_ON, STOP_NOW, StopFile

PACKAGE = Path(segfw.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
POSIX_ONLY = """
fork forkpty getuid geteuid getgid getloadavg killpg mkfifo mknod nice setsid statvfs symlink sysconf umask uname wait3
WNOHANG posix_fallocate sched_getaffinity sched_setaffinity SIGKILL SIGHUP SIGUSR1 SIGUSR2 SIGALRM alarm pthread_kill
"""
NOT_ON_WINDOWS = set(POSIX_ONLY.split())
MODULES_NOT_ON_WINDOWS = {"fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"}
TEXT_METHODS = ("read_text", "write_text")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_call_that_windows_lacks_and_no_text_in_the_encoding_of_the_day(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert list(problems(tree)) == []


def problems(tree: ast.AST):
    """What would break on Windows, in words."""
    guarded = {node.args[1].value for node in ast.walk(tree) if is_call(node, "hasattr") and len(node.args) == 2}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            yield from (f"line {node.lineno}: imports {name}" for name in names & MODULES_NOT_ON_WINDOWS)
        if isinstance(node, ast.Attribute) and node.attr in NOT_ON_WINDOWS - guarded:
            owner = getattr(node.value, "id", "")
            if owner in ("os", "signal"):
                yield f"line {node.lineno}: {owner}.{node.attr}"
        if isinstance(node, ast.Call):
            yield from problems_of_text(node)


def is_call(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def problems_of_text(call: ast.Call):
    """Text files need an encoding, and those that are written their line ends, or Windows takes its own."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    is_open = (
        name == "fdopen"
        or is_call(call, "open")
        or (name == "open" and isinstance(owner, ast.Name) and owner.id == "path")
    )
    is_path_method = name in TEXT_METHODS and owner is not None
    if not is_open and not is_path_method:
        return
    place = 0 if owner is not None and name == "open" else 1
    mode = given.get("mode", call.args[place] if is_open and len(call.args) > place else None)
    mode = mode.value if isinstance(mode, ast.Constant) else "r"
    if is_open and "b" in mode:
        return
    if "encoding" not in given:
        yield f"line {call.lineno}: {name} without encoding"
    is_written = name == "write_text" or (is_open and set(mode) & set("wax+"))
    if is_written and "newline" not in given:
        yield f"line {call.lineno}: {name} without newline"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("os.fork()", "line 1: os.fork"),
        ("import fcntl", "line 1: imports fcntl"),
        ("from resource import getrusage", "line 1: imports resource"),
        ("open(path)", "line 1: open without encoding"),
        ("path.read_text()", "line 1: read_text without encoding"),
        ("path.open('w', encoding='utf-8')", "line 1: open without newline"),
        ("path.write_text(text, encoding='utf-8')", "line 1: write_text without newline"),
        ("open(path, 'rb')", None),
        ("len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1", None),
    ],
)
def test_the_test_above_can_fail(source, found):
    assert list(problems(ast.parse(source))) == ([] if found is None else [found])


def test_windows_flushes_only_what_may_be_written_to(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def flush(number: int) -> None:
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(os, "fsync", flush)
    write_text(tmp_path / "a.txt", "whole\n")
    assert (tmp_path / "a.txt").read_bytes() == b"whole\n"


def open_elsewhere(number: int) -> PermissionError:
    """What Windows says of a file that somebody reads."""
    error = PermissionError(errno.EACCES, "is being used by another process")
    error.winerror = number
    return error


@pytest.mark.parametrize("number", files.OPEN_ELSEWHERE)
def test_a_file_that_is_read_is_replaced_once_it_is_free(number):
    answers = [open_elsewhere(number), open_elsewhere(number), None]

    def rename() -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    once_free(rename, wait_s=(0.0, 0.0))
    assert answers == []


def test_a_file_that_is_never_free_is_told_and_a_folder_without_rights_at_once():
    tries = []

    def rename(error: PermissionError) -> None:
        tries.append(error)
        raise error

    with pytest.raises(PermissionError):
        once_free(lambda: rename(open_elsewhere(32)), wait_s=(0.0, 0.0))
    assert len(tries) == 3
    with pytest.raises(PermissionError):
        once_free(lambda: rename(PermissionError(errno.EACCES, "Permission denied")), wait_s=(0.0, 0.0))
    assert len(tries) == 4


class Holder(Record):
    path: StoredPath


def test_stored_paths_have_one_form(tmp_path):
    stored = Holder.model_construct(path=PureWindowsPath(r"C:\scans\imagesTr\a.nii.gz")).model_dump_json()
    assert stored == '{"path":"C:/scans/imagesTr/a.nii.gz"}'
    Holder(path=Path("imagesTr/a.nii.gz")).save(tmp_path / "holder.json")
    assert Holder.load(tmp_path / "holder.json").path == Path("imagesTr/a.nii.gz")


def test_a_folder_that_only_a_file_manager_has_looked_into_is_empty(tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / name).write_bytes(b"")
    assert is_empty(folder)
    with new_folder(folder) as partial:
        (partial / "done").write_bytes(b"")
    assert [path.name for path in folder.iterdir()] == ["done"]
    assert not is_empty(folder)


def test_cases_that_would_be_one_file_are_told(tmp_path):
    with pytest.raises(UserError, match="the cases P1 and p1 would be one file"):
        require_distinct(["P1", "P2", "p1"], tmp_path, ignores_case=lambda _: True)
    require_distinct(["P1", "P2", "p1"], tmp_path, ignores_case=lambda _: False)
    require_distinct(["P1", "P2"], tmp_path, ignores_case=lambda _: pytest.fail("no two are alike"))


def test_a_disk_is_asked_whether_it_tells_capital_letters(tmp_path):
    (tmp_path / "probe").write_bytes(b"")
    is_blind = (tmp_path / "PROBE").exists()
    try:
        require_distinct(["a", "A"], tmp_path)
    except UserError:
        assert is_blind
    else:
        assert not is_blind
    assert [path.name for path in tmp_path.iterdir()] == ["probe"]


def test_asking_a_disk_about_capital_letters_leaves_nothing_behind(tmp_path):
    with suppress(UserError):  # of a disk that does not tell them apart
        require_distinct(["a", "A"], tmp_path / "new" / "masks")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of mapped files")
def test_weights_that_were_read_keep_no_file_mapped(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"a": torch.arange(1000.0)}, {})
    tensors, _ = load_tensors(path)
    assert path.name not in Path("/proc/self/maps").read_text(encoding="utf-8")
    assert tensors["a"][999] == 999


def test_stop_txt_is_obeyed_and_removed(tmp_path):
    stop = StopFile(tmp_path, look_every_s=0.0)
    assert stop.asked() == GO_ON
    (tmp_path / "STOP.txt").write_bytes("now\r\n".encode("utf-16"))
    assert stop.asked() == STOP_NOW
    (tmp_path / "STOP.txt").write_bytes(b"")
    assert stop.asked() == COOL_DOWN
    stop.done()
    assert list(tmp_path.iterdir()) == []
