"""A process that reviews: FOLDER CASE USER STEP [file_limit=BYTES]. STEP is 'accept', or 'save' until it is killed."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

from builders.review import drawn
from segfw.base.errors import UserError
from segfw.reviewing.people import Person
from segfw.reviewing.review_store import ReviewStore


def main() -> int:
    folder, case, user, step = sys.argv[1:5]
    store = ReviewStore.open(Path(folder))
    person = Person(user=user)
    store.open_case(case, person)
    for text in sys.argv[5:]:
        import resource

        limit = int(text.removeprefix("file_limit="))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        if step == "accept":
            store.decide_all(case, person, dict.fromkeys(store.structures, "accept"))
            store.finish(case, person)
        else:
            for number in count():
                values = drawn()
                values[0, number % 6, number // 6 % 5] ^= 1
                base = store.standing(case).version
                made = store.save(case, person, values, base=base, origin="edited", tool="test")
                print(made.number, made.sha256, flush=True)
    except UserError as error:
        print(error)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
