# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import http.client
import json
import socket
import threading

import cv2
import numpy as np
import pytest

from detection.annotate.images import ImageSet
from detection.annotate.server import MOST_BYTES, PointServer
from detection.annotate.store import PointStore
from vision3d.errors import ConfigError, DataError


@pytest.fixture
def server(tmp_path):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (120, 300, 3), dtype=np.uint8)

    def read(index):
        if index == 2:
            raise DataError("c.png", "is not an image that can be read")
        return picture

    made = PointServer(ImageSet(["a", "b <i>", "c"], read), PointStore(tmp_path / "out", ["plane", "ship"]), 256)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def call(server, method, path, body=None, token=True, **headers):
    """Status, headers and body of one request; a document is sent as JSON."""
    port = server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    if isinstance(body, dict):
        body = json.dumps(body)
        headers = {"Content-Type": "application/json"} | headers
    try:
        connection.request(method, f"/{server.token}/{path}" if token else path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def document(server, method, path, body=None, **headers):
    status, _, data = call(server, method, path, body, **headers)
    return status, json.loads(data)


def test_the_state_and_an_image(server):
    status, state = document(server, "GET", "api/state")
    assert status == 200
    assert state["names"] == ["a", "b <i>", "c"]
    assert state["classes"] == ["plane", "ship"]
    assert state["counts"] == [None] * 3
    assert (state["window"], state["overlap"]) == (256, 64)
    assert document(server, "GET", "api/image/0") == (200, {"width": 300, "height": 120, "points": [], "version": ""})


def test_points_are_on_disk_before_the_answer(server):
    status, saved = document(server, "PUT", "api/image/1", {"version": "", "points": [[10, 20.5, 1]]})
    assert status == 200
    assert server.store.path("b <i>").read_text() == "10.00 20.50 ship\n"
    _, image = document(server, "GET", "api/image/1")
    assert image["points"] == [[10.0, 20.5, 1]]
    assert image["version"] == saved["version"]
    assert document(server, "GET", "api/state")[1]["counts"] == [None, 1, None]


def test_a_second_writer_is_told_what_is_there(server):
    _, saved = document(server, "PUT", "api/image/0", {"version": "", "points": [[1, 1, 0]]})
    status, answer = document(server, "PUT", "api/image/0", {"version": "", "points": [[2, 2, 0]]})
    assert status == 409
    assert answer["points"] == [[1.0, 1.0, 0]]
    assert answer["version"] == saved["version"]
    assert document(server, "PUT", "api/image/0", {"version": answer["version"], "points": []})[0] == 200


def test_tiles_are_pictures(server):
    status, headers, data = call(server, "GET", "tile/0/200/0/256/256")
    assert status == 200
    assert headers["Content-Type"] == "image/jpeg"
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (120, 100, 3)


def test_the_page_comes_with_a_policy_that_lets_nothing_else_in(server):
    status, headers, data = call(server, "GET", "")
    assert status == 200
    policy = headers["Content-Security-Policy"]
    nonce = policy.partition("script-src 'nonce-")[2].partition("'")[0]
    assert len(nonce) >= 20
    text = data.decode()
    assert text.count(f'nonce="{nonce}"') == 2
    assert "{{" not in text
    assert "default-src 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "http" not in text.replace(server.url, "")  # one file: no library, font or picture from elsewhere
    assert nonce not in call(server, "GET", "")[1]["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/", "/wrong/api/state", "/api/state", "//", "/TOKENx/api/state", "/token/"])
def test_nobody_gets_in_without_the_token(server, path):
    path = path.replace("TOKEN", server.token)
    for method in ("GET", "PUT"):
        status, _, data = call(server, method, path, token=False)
        assert status == 404
        assert server.token.encode() not in data


def test_the_token_is_long_and_never_the_same(server, tmp_path):
    with PointServer(server.images, server.store) as other:
        assert other.token != server.token
        assert len(other.token) >= 32
        assert other.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:PORT", "127.0.0.1", "127.0.0.1:1", "", "127.0.0.1:PORT.evil.example"]
)
def test_a_name_that_was_made_to_point_here_is_refused(server, host):
    host = host.replace("PORT", str(server.server_address[1]))
    assert call(server, "GET", "api/state", Host=host)[0] == 421
    assert call(server, "PUT", "api/image/0", {"version": "", "points": []}, Host=host)[0] == 421
    assert not server.store.path("a").exists()


def test_localhost_and_own_origin_are_let_in_and_others_are_not(server):
    port = server.server_address[1]
    assert call(server, "GET", "api/state", Host=f"localhost:{port}")[0] == 200
    own = {"version": "", "points": []}
    assert call(server, "PUT", "api/image/0", own, Origin=f"http://127.0.0.1:{port}")[0] == 200
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{port}"):
        assert call(server, "PUT", "api/image/1", own, Origin=origin)[0] == 403
    assert not server.store.path("b <i>").exists()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"version": "", "points": [[1, 2]]},
        {"version": "", "points": [[1, 2, "plane"]]},
        {"version": "", "points": [[1, 2, 0.5]]},
        {"version": "", "points": [[True, 2, 0]]},
        {"version": "", "points": [[1, 2, True]]},
        {"version": "", "points": [[1, 2, 7]]},
        {"version": "", "points": [[1, 1e9, 0]]},
        {"version": "", "points": [[float("nan"), 1, 0]]},
        {"version": "", "points": [[10**400, 1, 0]]},
        {"version": 1, "points": []},
        {"version": "", "points": {}},
        {"version": "", "points": [], "name": "../../x"},
    ],
)
def test_what_is_no_list_of_points_is_refused(server, body):
    status, answer = document(server, "PUT", "api/image/0", body)
    assert status == 400
    assert answer["error"]
    assert not server.store.folder.exists()


def test_bodies_are_limited_and_of_one_kind(server):
    big = {"Content-Length": str(MOST_BYTES + 1), "Content-Type": "application/json"}
    assert call(server, "PUT", "api/image/0", b"", **big)[0] == 413
    for length in ("-1", "1e3", "x", "\u0663"):
        if length.isascii():
            assert call(server, "PUT", "api/image/0", b"", **{"Content-Length": length})[0] == 413
    assert call(server, "PUT", "api/image/0", b"{}", **{"Content-Type": "text/plain"})[0] == 415
    assert call(server, "PUT", "api/image/0", b"[" * 100_000, **{"Content-Type": "application/json"})[0] == 400
    with socket.create_connection(server.server_address, timeout=10) as raw:
        head = (
            f"PUT /{server.token}/api/image/0 HTTP/1.1\r\nHost: {server.hosts[0]}\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        raw.sendall(head.encode())
        assert raw.recv(100).split()[1] == b"411"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("nothing", 404),
        ("api/image/3", 404),
        ("api/image/-1", 404),
        ("api/image/1e0", 404),
        ("api/image/..%2f..%2fetc", 404),
        ("../../etc/passwd", 404),
        ("tile/0/0/0/256", 404),
        ("tile/0/300/0/10/10", 400),
        ("tile/0/0/0/0/10", 400),
        ("tile/0/0/0/99999/10", 400),
        ("api/image/2", 422),
        ("tile/2/0/0/10/10", 422),
    ],
)
def test_paths_that_lead_nowhere(server, path, status):
    found, answer = document(server, "GET", path)
    assert found == status
    assert "\n" not in answer["error"]


def test_an_unreadable_image_is_named_and_the_others_go_on(server):
    assert document(server, "GET", "api/image/2")[1]["error"] == "c.png: is not an image that can be read"
    assert document(server, "GET", "api/image/1")[0] == 200


def test_one_connection_serves_many_requests(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    version = ""
    for n in range(5):
        body = json.dumps({"version": version, "points": [[n, n, 0]]})
        connection.request("PUT", f"/{server.token}/api/image/0", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        version = json.loads(answer.read())["version"]
        connection.request("GET", f"/{server.token}/nothing")
        assert connection.getresponse().read()
    connection.close()
    assert server.store.path("a").read_text() == "4.00 4.00 plane\n"


def test_a_taken_port_is_told(server):
    with pytest.raises(ConfigError, match=f"port {server.server_address[1]} cannot be used"):
        PointServer(server.images, server.store, port=server.server_address[1])
