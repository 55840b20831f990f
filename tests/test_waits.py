"""No test waits for ever: what hangs must fail and say where, instead of holding all that come after it."""

import ast
from pathlib import Path

TESTS = Path(__file__).parent
RUNS = ("run", "call", "check_call", "check_output")  # functions of subprocess that wait for a process
WAITS = ("wait", "join", "communicate")  # methods of processes, threads, events and barriers; str.join has an argument


def endless_waits(source: str) -> list[int]:
    """Lines that may wait without an end."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.While) and all(isinstance(step, ast.Pass) for step in node.body):
            found.append(node.lineno)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and waits_for_ever(node, node.func):
            found.append(node.lineno)
    return sorted(found)


def waits_for_ever(call: ast.Call, called: ast.Attribute) -> bool:
    if any(keyword.arg in ("timeout", None) for keyword in call.keywords):
        return False
    if isinstance(called.value, ast.Name) and called.value.id == "subprocess":
        return called.attr in RUNS
    # The first argument of communicate is what the process is told, that of the others the seconds.
    return called.attr in WAITS and (not call.args or called.attr == "communicate")


def test_every_wait_of_a_test_has_an_end():
    files = sorted(TESTS.rglob("*.py"))
    assert len(files) > 200  # else this proves nothing
    endless = [
        f"{path.relative_to(TESTS)}:{line}"
        for path in files
        for line in endless_waits(path.read_text(encoding="utf-8"))
    ]
    assert endless == []


def test_endless_waits_are_found():
    source = """
subprocess.run(command)
subprocess.run(command, timeout=300)
process.wait()
process.wait(60)
process.communicate("words")
process.communicate("words", timeout=60)
thread.join()
", ".join(words)
while not is_done():
    pass
"""
    assert endless_waits(source) == [2, 4, 6, 8, 10]
