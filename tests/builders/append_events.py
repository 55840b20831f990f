"""A process that appends events to a log: FOLDER NAME NUMBER [file_limit=BYTES]; 'endless' until it is killed."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

from segfw.base.errors import DiskFull
from segfw.reviewing.review_log import Entry, ReviewLog


def main() -> int:
    folder, name, number = sys.argv[1:4]
    for text in sys.argv[4:]:
        import resource

        limit = int(text.removeprefix("file_limit="))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    log = ReviewLog.open(Path(folder))
    try:
        for index in count() if number == "endless" else range(int(number)):
            log.append(Entry(event="test", case=name, reason=f"{name} {index}"))
            print(index, flush=True)
    except DiskFull as error:
        print(error)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
