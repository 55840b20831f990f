"""What other pages, other programs and wrong requests can do to the server of the review page: nothing.

Each is refused with 403, 404, 405, 413 or 422, and no file of the folder changes by it. The server is a real process.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import socket
import time
from itertools import product

import numpy as np
import psutil
import pytest

from builders.drafts_folder import SHAPE, make_drafts
from builders.review_server import review_server

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND")
ADDRESSES = (
    *("/", "/api/session", "/api/queue", "/api/case/case_1", "/api/case/case_1/image.nii.gz"),
    *("/api/case/case_1/label/0.nii.gz", "/api/case/case_1/candidate/1/0", "/api/open", "/api/decide"),
    *("/api/save?case=case_1&base=0", "/api/sign", "/api/reject", "/api/nothing", "/index.html"),
    *("/api/refine?case=case_1&base=0&structure=liver&at=1,1,1", "/api/case/case_1/click-places?structure=liver"),
)
REFINE = "/api/refine?case=case_1&base=0&structure=liver&at=1,4,1"
VOXELS = int(np.prod(SHAPE))


def state_of(folder):
    """Hashes of all files, by name."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("attacks")
    (root / "secret.txt").write_text("nobody may read this")
    return make_drafts(root)


@pytest.fixture(scope="module")
def anna(folder):
    with review_server(folder) as reviewer:
        assert reviewer.enter().status == 200
        assert reviewer.post("/api/open", {"case": "case_1"}).status == 200
        yield reviewer


@pytest.fixture(autouse=True)
def nothing_is_written(folder, anna):
    before = state_of(folder)
    yield
    assert state_of(folder) == before
    assert anna.get("/api/session").status == 200  # and the server still answers


# ---- who asks ----


def test_the_right_request_is_answered(anna):
    assert anna.get("/api/case/case_1").json["state"] == "IN_REVIEW"  # else what is below proves nothing


@pytest.mark.parametrize("path", ADDRESSES)
@pytest.mark.parametrize("method", METHODS)
def test_without_the_cookie_nothing_is_answered(anna, method, path):
    others = {name: value for name, value in anna.own_headers.items() if name != "Cookie"}
    assert anna.ask(method, path, b"{}", others).status == 403


@pytest.mark.parametrize("path", ADDRESSES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "localhost:1", "127.0.0.1.evil.example:{port}", ""])
def test_a_foreign_name_that_leads_here_is_refused(anna, method, path, host):
    headers = {**anna.own_headers, "Host": host.format(port=anna.port)}
    assert anna.ask(method, path, b"{}", headers).status == 403


def test_both_own_names_are_answered(anna):
    for host in ("127.0.0.1", "localhost", "LOCALHOST"):
        headers = {"Cookie": anna.cookie, "Host": f"{host}:{anna.port}"}
        assert anna.ask("GET", "/api/session", headers=headers).status == 200


def test_two_hosts_or_none_are_refused(anna):
    own = f"127.0.0.1:{anna.port}"
    for hosts in ((own, "evil.example"), ("evil.example", own), ()):
        lines = ["GET /api/session HTTP/1.1", *(f"Host: {host}" for host in hosts), f"Cookie: {anna.cookie}"]
        with socket.create_connection(("127.0.0.1", anna.port), timeout=30) as connection:
            connection.sendall(("\r\n".join([*lines, "Connection: close"]) + "\r\n\r\n").encode())
            status = int(connection.recv(4096).split()[1])
        assert status in (400, 403), hosts


@pytest.mark.parametrize(
    "cookie", ["{name}=wrong", "{name}=", "{name}={token}", "other={secret}", "{name}={secret}x", "{own}; {name}=x", ""]
)
def test_a_wrong_cookie_is_refused(anna, cookie):
    name, _, secret = anna.cookie.partition("=")
    text = cookie.format(name=name, secret=secret, token=anna.token, own=anna.cookie)
    assert anna.ask("GET", "/api/session", headers={"Cookie": text}).status == (403 if text != anna.cookie else 200)


def test_the_address_works_once_and_no_other_token_does(anna):
    for token in (anna.token, "", "x", anna.token + "x", anna.token[:-1], "%00", "é"):
        answer = anna.ask("GET", f"/?t={token}".encode("ascii", "ignore").decode())
        assert answer.status == 403
        assert "set-cookie" not in answer.headers


def test_the_cookie_is_out_of_reach_of_scripts_and_of_other_sites(folder):
    with review_server(folder, "--read-only") as other:
        kept = other.enter().headers["set-cookie"]
    assert "; HttpOnly" in kept
    assert "; SameSite=Strict" in kept
    assert "Domain" not in kept
    assert len(kept.partition("=")[2].partition(";")[0]) >= 43  # 256 bits
    assert len(other.token) >= 43


# ---- where it comes from ----

CHANGING = ("/api/open", "/api/heartbeat", "/api/release", "/api/decide", "/api/finish", "/api/sign", "/api/reject")


@pytest.mark.parametrize("path", [*CHANGING, "/api/amend", "/api/save?case=case_1&base=0", REFINE])
@pytest.mark.parametrize(
    "origin",
    [None, "null", "http://evil.example", "http://127.0.0.1", "https://127.0.0.1:{port}", "http://127.0.0.1:1"],
)
def test_what_changes_something_must_come_from_the_page(anna, path, origin):
    headers = {name: value for name, value in anna.own_headers.items() if name != "Origin"}
    if origin is not None:
        headers["Origin"] = origin.format(port=anna.port)
    assert anna.ask("POST", path, json.dumps({"case": "case_1"}), headers).status == 403


@pytest.mark.parametrize("path", [*CHANGING, "/api/save?case=case_1&base=0", REFINE])
@pytest.mark.parametrize("value", [None, "", "0", "true"])
def test_without_the_own_header_nothing_is_changed(anna, path, value):
    headers = {name: text for name, text in anna.own_headers.items() if name != "X-Segfw"}
    if value is not None:
        headers["X-Segfw"] = value
    assert anna.ask("POST", path, json.dumps({"case": "case_1"}), headers).status == 403


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"])
def test_a_form_of_another_page_changes_nothing(anna, kind):
    """As a browser would send it along with the cookie: a form has no header of ours, and a foreign Origin."""
    body = 'case=case_1&x={"case":"case_1"}'
    for origin in ("http://evil.example", "null", anna.origin):
        headers = {"Cookie": anna.cookie, "Origin": origin, "Content-Type": kind}
        assert anna.ask("POST", "/api/release", body, headers).status == 403


@pytest.mark.parametrize("began", ["cross-site", "same-site"])
def test_a_picture_or_script_on_another_page_gets_nothing(anna, began):
    """Of another port of this computer the cookie is sent along, because ports make no other site."""
    headers = {"Cookie": anna.cookie, "Sec-Fetch-Site": began}
    assert anna.ask("GET", "/api/case/case_1/image.nii.gz", headers=headers).status == 403
    headers["Sec-Fetch-Site"] = "same-origin"
    assert anna.ask("GET", "/api/case/case_1/image.nii.gz", headers=headers).status == 200


def test_a_preflight_of_another_page_is_refused(anna):
    headers = {
        "Origin": "http://evil.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-segfw",
    }
    answer = anna.ask("OPTIONS", "/api/save", headers=headers)
    assert answer.status == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "path, status", [("/api/session", 200), ("/api/case/case_1/image.nii.gz", 200), ("/no", 404), ("/api/case/no", 404)]
)
def test_every_answer_says_what_browsers_may_not_do(anna, path, status):
    answers = [anna.get(path), anna.ask("GET", path)]
    assert [answer.status for answer in answers] == [status, 403]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'none'"):
            assert part in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "server" not in answer.headers


def test_it_listens_on_this_computer_alone(anna):
    listening = [each for each in psutil.Process(anna.process.pid).net_connections("inet") if each.status == "LISTEN"]
    assert [each.laddr.ip for each in listening] == ["127.0.0.1"]


# ---- what is asked for ----

STRANGE_IDS = (
    *("..", ".", "../case_1", "..%2f..%2fsecret.txt", "%2e%2e", "%2e%2e%2fsecret.txt", "..%5c..%5csecret.txt"),
    *("case_1%00", "case_1%0a", "case_1.nii.gz", "%2fetc%2fpasswd", "CASE_1", "case_1%20", "", "nobody"),
    *("%252e%252e%252fsecret.txt", "%c0%ae%c0%ae", "case_1%2f..%2fcase_2", "review", "quality", "x" * 3000),
)


@pytest.mark.parametrize(
    "tail", ["", "/image.nii.gz", "/label/0.nii.gz", "/doubt.nii.gz", "/compare/draft", "/click-places?structure=liver"]
)
@pytest.mark.parametrize("case", STRANGE_IDS)
def test_an_id_that_is_no_case_is_not_found(anna, case, tail):
    answer = anna.get(f"/api/case/{case}{tail}")
    assert answer.status in (404, 414)
    assert b"nobody may read" not in answer.body


@pytest.mark.parametrize("case", STRANGE_IDS)
def test_nothing_is_written_for_an_id_that_is_no_case(anna, case):
    from urllib.parse import unquote_to_bytes

    name = unquote_to_bytes(case).decode("latin-1")
    packed = gzip.compress(bytes(VOXELS))
    assert anna.post(f"/api/save?case={case}&base=0", packed).status in (404, 414)
    assert anna.post(f"/api/refine?case={case}&base=0&structure=liver&at=1,1,1", packed).status in (404, 414)
    assert anna.post("/api/open", {"case": name}).status == 404
    assert anna.post("/api/reject", {"case": name, "reason": "image-bad"}).status == 404


@pytest.mark.parametrize(
    "path",
    [
        *("/..%2f..%2fsecret.txt", "/../../../../secret.txt", "/page/../../secret.txt", "/%2e%2e/secret.txt"),
        *("/review_desk.py", "/../review_desk.py", "/..%2freview_desk.py", "/text/..%2f..%2freview_desk.py"),
        *("//etc/passwd", "/etc/passwd", "/C:/Windows/win.ini", "/index.html%00", "/.", "/.."),
    ],
)
def test_no_file_but_those_of_the_page_is_served(anna, path):
    answer = anna.get(path)
    assert answer.status == 404
    assert b"nobody may read" not in answer.body


@pytest.mark.parametrize(
    "box", ["0,0,0,9,6,5", "0,0,0,0,6,5", "-1,0,0,1,1,1", "1,1,1", "a", "5,0,0,2,6,5", "1e3,0,0,1,1,1"]
)
def test_a_box_that_is_none_is_refused(anna, box):
    assert anna.get(f"/api/case/case_1/label/0.nii.gz?box={box}").status == 400
    assert anna.post(f"/api/save?case=case_1&base=0&box={box}", gzip.compress(bytes(VOXELS))).status == 400


@pytest.mark.parametrize(
    "path, status",
    [
        ("/api/case/case_1/label/7.nii.gz", 404),
        ("/api/case/case_1/label/-1.nii.gz", 404),
        ("/api/case/case_1/label/1e9.nii.gz", 404),
        ("/api/case/case_1/label/99999999999999999999.nii.gz", 404),
        ("/api/case/case_1/label/0.nii.gz?group=3", 400),
        ("/api/case/case_1/image.nii.gz?channel=5", 404),
        ("/api/case/case_1/compare/fold_../../x", 404),
        ("/api/case/case_1/compare/fold_0", 404),
        ("/api/case/case_1/compare/version_3", 404),
        ("/api/case/case_1/candidate/1/9", 404),
        ("/api/case/case_1/candidate/9/0", 404),
        ("/api/case/case_1/click-places", 400),
        ("/api/case/case_1/click-places?structure=liver&base=4", 404),
        ("/api/queue?offset=-1", 400),
        ("/api/queue?limit=many", 400),
        ("/api/session?" + "x" * 5000, 414),
    ],
)
def test_what_is_not_there_is_told(anna, path, status):
    answer = anna.get(path)
    assert answer.status == status
    assert answer.json["error"]


# ---- what is brought ----


@pytest.mark.parametrize(
    "content, status",
    [
        (gzip.compress(bytes(VOXELS - 1)), 422),
        (gzip.compress(bytes(VOXELS + 1)), 413),
        (gzip.compress(bytes(VOXELS))[:-3], 422),
        (gzip.compress(bytes(VOXELS)) + b"more", 422),
        (b"", 422),
        (b"\x1f\x8b" + bytes(20), 422),
        (bytes(VOXELS), 422),
        (gzip.compress(bytes([3]) + bytes(VOXELS - 1)), 422),
        (gzip.compress(bytes([255]) * VOXELS), 422),
        (gzip.compress(bytes(50_000_000), 9), 413),
    ],
    ids=["short", "long", "cut", "more", "empty", "damaged", "no gzip", "index 3", "index 255", "bomb"],
)
def test_a_bitmap_that_is_none_is_refused(anna, content, status):
    answer = anna.post("/api/save?case=case_1&base=0", content)
    assert answer.status == status, answer.body
    assert answer.json["error"]


@pytest.fixture(scope="module")
def ben(tmp_path_factory):
    """Somebody whose server has a refiner, on a folder of his own."""
    with review_server(make_drafts(tmp_path_factory.mktemp("clicks")), program=("builders.planted_refiner",)) as server:
        assert server.enter().status == 200
        assert server.post("/api/open", {"case": "case_1"}).status == 200
        assert server.post(REFINE, gzip.compress(bytes(VOXELS))).json["box_xyz"]  # else what is below proves nothing
        yield server


@pytest.mark.parametrize(
    "content, status",
    [
        (gzip.compress(bytes(VOXELS - 1)), 422),
        (gzip.compress(bytes(VOXELS + 1)), 413),
        (gzip.compress(bytes(VOXELS))[:-3], 422),
        (b"", 422),
        (bytes(VOXELS), 422),
        (gzip.compress(bytes([3]) + bytes(VOXELS - 1)), 422),
        (gzip.compress(bytes(50_000_000), 9), 413),
    ],
    ids=["short", "long", "cut", "empty", "no gzip", "index 3", "bomb"],
)
def test_a_click_on_a_bitmap_that_is_none_is_refused(ben, content, status):
    answer = ben.post(REFINE, content)
    assert answer.status == status, answer.body
    assert answer.json["error"]


@pytest.mark.parametrize(
    "query, status",
    [
        ("base=0&structure=liver", 400),
        ("base=0&structure=liver&at=1,2", 400),
        ("base=0&structure=liver&at=1,2,-3", 400),
        ("base=0&structure=liver&at=1,2,1e1", 400),
        ("base=0&structure=liver&at=nan,2,1", 400),
        ("base=0&structure=liver&at=inf,2,1", 400),
        ("base=0&structure=liver&at=8,0,0", 400),
        ("base=0&structure=spleen&at=1,1,1", 400),
        ("base=0&at=1,1,1", 400),
        ("base=7&structure=liver&at=1,1,1", 404),
        ("structure=liver&at=1,1,1", 400),
        ("base=0&structure=liver&at=1,1,1&group=1", 400),
        ("base=0&structure=liver&at=1,1,1&box=0,0,0,9,6,5", 400),
    ],
)
def test_a_click_that_says_something_else_is_refused(ben, query, status):
    answer = ben.post(f"/api/refine?case=case_1&{query}", gzip.compress(bytes(VOXELS)))
    assert answer.status == status, answer.body
    assert answer.json["error"]


@pytest.mark.parametrize(
    "query, status",
    [
        ("base=-1", 400),
        ("base=x", 400),
        ("", 400),
        ("base=7", 404),
        ("base=0&origin=model", 400),
        ("base=0&group=1", 400),
        ("base=0&clicks=-1", 400),
    ],
)
def test_a_save_that_says_something_else_is_refused(anna, query, status):
    assert anna.post(f"/api/save?case=case_1&{query}", gzip.compress(bytes(VOXELS))).status == status


def test_an_upload_of_1_gb_is_refused_at_its_first_line(anna):
    """By its length alone: the server neither waits for it nor takes memory for it."""
    memory = psutil.Process(anna.process.pid).memory_info().rss
    for path in ("/api/save?case=case_1&base=0", "/api/open", REFINE):
        with socket.create_connection(("127.0.0.1", anna.port), timeout=30) as connection:
            connection.sendall(_head(anna, path, f"Content-Length: {1 << 30}"))
            assert connection.recv(4096).startswith(b"HTTP/1.1 413")
    assert psutil.Process(anna.process.pid).memory_info().rss - memory < 20 << 20


def test_an_upload_of_1_gb_that_does_not_say_its_length_is_cut_off(anna):
    """Sent in pieces as long as the server takes them, which ends long before all was sent."""
    memory = psutil.Process(anna.process.pid).memory_info().rss
    piece = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    for path in ("/api/save?case=case_1&base=0", "/api/open", REFINE):
        sent = 0
        with socket.create_connection(("127.0.0.1", anna.port), timeout=30) as connection:
            connection.sendall(_head(anna, path, "Transfer-Encoding: chunked"))
            try:
                for _ in range(1 << 10):
                    connection.sendall(piece)
                    sent += len(piece)
            except OSError:
                pass
        assert sent < 64 << 20
    assert psutil.Process(anna.process.pid).memory_info().rss - memory < 60 << 20


def test_an_upload_that_breaks_off_saves_nothing(anna):
    packed = gzip.compress(bytes(VOXELS))
    with socket.create_connection(("127.0.0.1", anna.port), timeout=30) as connection:
        connection.sendall(_head(anna, "/api/save?case=case_1&base=0", f"Content-Length: {len(packed)}") + packed[:-5])
    time.sleep(0.2)


def _head(anna, path, length):
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: 127.0.0.1:{anna.port}",
        f"Cookie: {anna.cookie}",
        f"Origin: {anna.origin}",
        "X-Segfw: 1",
        length,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"case": 1}',
        b'{"case": "case_1", "more": 1}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"case":"\\ud800"}',
    ],
)
@pytest.mark.parametrize("action", ["open", "release", "heartbeat", "decide", "sign"])
def test_json_that_is_none_of_ours_is_refused(anna, action, content):
    answer = anna.post(f"/api/{action}", content)
    assert answer.status in (400, 404), answer.body
    assert answer.json["error"]


@pytest.mark.parametrize(
    "action, content, status",
    [
        ("heartbeat", {"case": "case_1", "active_s": -1.0}, 400),
        ("heartbeat", {"case": "case_1", "active_s": "15"}, 400),
        ("heartbeat", {"case": "case_1", "active_s": 1.0, "slices_viewed": {"oblique": [1]}}, 400),
        ("decide", {"case": "case_1", "structure": "spleen", "decision": "accept"}, 400),
        ("decide", {"case": "case_1", "structure": "liver", "decision": "sign"}, 400),
        ("finish", {"case": "case_1"}, 400),
        ("sign", {"case": "case_1", "name": "A", "meaning": "review", "sha256": "0"}, 400),
        ("sign", {"case": "case_1", "name": "A", "meaning": "good", "sha256": "0"}, 400),
        ("reject", {"case": "case_1", "reason": "because"}, 400),
        ("reject", {"case": "case_1", "reason": "other", "text": " "}, 400),
        ("amend", {"case": "case_1", "reason": "x"}, 400),
        ("finish", {"case": "case_2"}, 409),  # it is not open
    ],
)
def test_a_step_that_may_not_be_taken_is_refused_in_words(anna, action, content, status):
    answer = anna.post(f"/api/{action}", content)
    assert answer.status == status
    assert answer.json["error"]


@pytest.mark.parametrize("method, path", list(product(("PUT", "PATCH", "DELETE", "TRACE"), ADDRESSES)))
def test_other_methods_do_nothing_even_from_the_page(anna, method, path):
    assert anna.ask(method, path, b"{}", anna.own_headers).status in (404, 405)


def test_nothing_is_changed_by_asking(anna):
    for name in (*CHANGING, "/api/save?case=case_1&base=0", REFINE):
        assert anna.get(name).status in (404, 405)
