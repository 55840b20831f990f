"""The one entry of all measurements: ``python -m bench VERB ...``, called in the root of a clone."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

# verb: (module with a function ``main`` that takes the arguments after the verb, what it measures)
VERBS = {
    "gpu": ("bench.gpu.command", "ten minutes on a CUDA device: what is right, how fast, how much memory"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        print(f"python -m bench: unknown verb {verb!r}; choose from {', '.join(VERBS)}", file=sys.stderr)
        return 2
    # Only now: each verb needs libraries of its own, which another machine may lack.
    module = importlib.import_module(VERBS[verb][0])
    module.main(rest)
    return 0


def overview() -> str:
    """All verbs with a line each."""
    width = max(len(verb) for verb in VERBS)
    lines = [f"  {verb:{width}}  {what}" for verb, (_, what) in VERBS.items()]
    return "\n".join(["usage: python -m bench VERB ...   (VERB --help tells its options)", "", *lines])


if __name__ == "__main__":
    sys.exit(main())
