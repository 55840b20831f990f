"""What the tests themselves import: builders, never one another, and SimpleITK only where it is used."""

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
FILES = sorted(path for path in TESTS.rglob("*.py") if path.parent.name != "written_before")  # as it was once run


def imports(path: Path, is_top_only: bool = False) -> Iterator[str]:
    """Names of the modules that a file imports, anywhere or at its top."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if is_top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_no_test_imports_from_another_and_none_from_conftest():
    wrong = {
        (path.name, module)
        for path in FILES
        for module in imports(path)
        if module.split(".")[-1].startswith("test_") or module == "conftest"
    }
    assert not wrong


def test_every_file_of_tests_has_a_name_of_its_own():
    """Folders of tests are no packages: two files of one name could not be collected together."""
    names = [
        path.stem
        for path in FILES
        if path.stem not in ("__init__", "__main__", "conftest") and path.parent.name != "builders"
    ]
    assert len(set(names)) == len(names)


def test_all_tests_are_collected_where_simpleitk_is_missing():
    """Its wheel has 53 MB, and most tests run without: pytest.importorskip names it where it is used."""
    assert not [path.name for path in FILES if "SimpleITK" in imports(path, is_top_only=True)]
