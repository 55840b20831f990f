"""``segfw predict`` of a small model in a process of its own, slow enough to be killed in the midst of it.

python -m builders.slow_prediction MODEL IMAGES MASKS [slow=SECONDS] [file_limit=BYTES]
    [arguments of predict as name=value ...]

It computes with as many threads as the process that started it, because sums depend on them in their last digits.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from segfw.networks import build_network

TESTS = Path(__file__).parents[1]


def start_slow_prediction(model: Path, images: Path, masks: Path, *options: str) -> subprocess.Popen:
    """Starts ``predict`` in a process of its own; what it says is read from its standard output."""
    command = [sys.executable, "-m", "builders.slow_prediction", str(model), str(images), str(masks), *options]
    threads = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.Popen(
        command, cwd=TESTS, env=threads, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def slowly(seconds: float):
    """Builds networks that take at least so long for each batch of tiles."""

    def build(wanted):
        network = build_network(wanted)
        network.register_forward_pre_hook(lambda *_: time.sleep(seconds))
        return network

    return build


def main() -> int:
    from segfw.base.parallel import CasesFailed
    from segfw.verbs.predict import predict

    # A shell that runs the tests in the background makes all its children ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    paths, options = [Path(text) for text in sys.argv[1:4]], {}
    for text in sys.argv[4:]:
        name, _, value = text.partition("=")
        if name == "slow":
            options["build"] = slowly(float(value))
        elif name == "file_limit":
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (int(value), int(value)))
        else:
            options[name] = value or True
    try:
        predict(*paths, **{"device": "cpu"} | options)
    except CasesFailed as error:
        print(error)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
