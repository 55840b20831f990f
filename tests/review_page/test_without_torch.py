"""The server of the review page, and the page that needs none, run where there is no PyTorch."""

import os
import subprocess
import sys
from pathlib import Path

from builders.drafts_folder import make_drafts

BLOCKED = """
import sys
sys.modules["torch"] = None
from pathlib import Path
from segfw.review_page.review_desk import ReviewDesk, Seat
from segfw.review_page.review_routes import review_app
from segfw.review_page.page_files import page_files
from segfw.review_page.review_index import Wanted
from segfw.reviewing.people import Person
from segfw.reviewing.review_store import ReviewStore
desk = ReviewDesk(ReviewStore.open(Path(sys.argv[1])), Seat(person=Person(user="Anna")))
review_app(desk, page_files())
grid = desk.views.grid("case_1")
print(desk.session()["user"], desk.queue(0, 9, Wanted())["total"], len(desk.case("case_1", grid)["structures"]))
print(desk.views.image("case_1", grid).array.shape)
"""


def test_the_server_needs_no_torch(tmp_path):
    folder = make_drafts(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", BLOCKED, str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["Anna 4 2", "(5, 6, 8)"]
