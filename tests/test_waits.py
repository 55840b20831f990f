"""The usual waits of tests have an end: what hangs must fail and say where, and not hold all that come after it.

These are waits for processes, threads, events and queues, and loops that do nothing but look again. Results of futures
are not looked at: most here are of other objects, and are there at once.
"""

import ast
from collections.abc import Sequence
from pathlib import Path

TESTS = Path(__file__).parent
RUNS = ("run", "call", "check_call", "check_output")  # functions of subprocess that wait for a process
# Methods of processes, threads, events, barriers and queues; str.join and dict.get have an argument.
WAITS = ("wait", "join", "communicate", "get")
CLOCKS = ("monotonic", "perf_counter", "time")


def endless_waits(source: str) -> list[int]:
    """Lines that may wait without an end."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.While) and looks_for_ever(node):
            found.append(node.lineno)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and waits_for_ever(node, node.func):
            found.append(node.lineno)
    return sorted(found)


def looks_for_ever(loop: ast.While) -> bool:
    """Whether a loop does nothing or sleeps until something has come, and nothing but that ends it."""
    within = list(ast.walk(loop))
    does_nothing = all(isinstance(step, ast.Pass) for step in loop.body)
    if not does_nothing and not any(is_call_of(node, ("sleep",)) for node in within):
        return False
    if any(isinstance(node, ast.Assert | ast.Raise | ast.Break | ast.Return) for node in within):
        return False
    compared = [part for node in within if isinstance(node, ast.Compare) for part in ast.walk(node)]
    return not any(is_call_of(part, CLOCKS) for part in compared)


def is_call_of(node: ast.AST, names: Sequence[str]) -> bool:
    """Whether a function or method of one of these names is called."""
    if not isinstance(node, ast.Call):
        return False
    return isinstance(node.func, ast.Attribute | ast.Name) and ast.unparse(node.func).split(".")[-1] in names


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
while not is_done():
    time.sleep(1)
while process.poll() is None:
    sleep(1)
while time.monotonic() < ends_at_s:
    time.sleep(1)
while not is_done():
    assert clock() < ends_at_s
    time.sleep(1)
while True:
    if is_done():
        break
    time.sleep(1)
while len(found) < 7:
    found.append(drawn())
queue.get()
queue.get(timeout=60)
words.get("one")
"""
    assert endless_waits(source) == [2, 4, 6, 8, 10, 12, 14, 27]
