"""``segfw review`` as a command: what it refuses, and how it ends."""

import http.client
import signal
import socket
import sys
import threading

import pytest

from builders.drafts_folder import make_drafts
from builders.review_server import review_server
from segfw.cli import main
from segfw.review_page import serve_review


def test_a_folder_of_something_else_is_refused(tmp_path, capsys):
    assert main(["review", str(tmp_path), "--no-browser"]) == 2
    assert "is no folder of segfw's masks" in capsys.readouterr().err


def test_a_port_that_is_taken_is_told(tmp_path, capsys):
    folder = make_drafts(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["review", str(folder), "--no-browser", "--port", str(port)]) == 2
    assert f"port {port} is taken" in capsys.readouterr().err


def test_a_name_that_is_none_is_refused(tmp_path, capsys):
    folder = make_drafts(tmp_path)
    assert main(["review", str(folder), "--no-browser", "--user", "  "]) == 2
    assert "name of a user" in capsys.readouterr().err


def test_packages_that_lack_are_named_with_the_command_that_installs_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(serve_review, "NEEDED", ("starlette", "a_server_that_nobody_has"))
    assert main(["review", str(make_drafts(tmp_path)), "--no-browser"]) == 2
    said = capsys.readouterr().err
    assert "needs a_server_that_nobody_has" in said
    assert "pip install 'segfw[review]'" in said


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal of a process that is Ctrl-C")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "as services are ended"])
def test_it_ends_without_a_word_of_complaint(tmp_path, how):
    folder = make_drafts(tmp_path)
    with review_server(folder) as anna:
        anna.enter()
        assert anna.post("/api/open", {"case": "case_1"}).status == 200
        anna.process.send_signal(how)
        assert anna.process.wait(30) == 0
        said = anna.process.stdout.read()
    assert "Traceback" not in said
    assert "Error" not in said


def test_a_program_may_serve_it_from_a_thread_of_its_own():
    async def no_page(scope, receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    listening = serve_review.bound_socket(0)
    server = serve_review.local_server(no_page)
    is_ready = threading.Event()
    serving = threading.Thread(
        target=serve_review.answer_until_ended, args=(server, listening, is_ready.set), daemon=True
    )
    serving.start()
    assert is_ready.wait(60)
    asked = http.client.HTTPConnection("127.0.0.1", listening.getsockname()[1], timeout=60)
    asked.request("GET", "/")
    assert asked.getresponse().status == 204
    asked.close()
    server.should_exit = True
    serving.join(60)
    assert not serving.is_alive()
