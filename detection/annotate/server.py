# SPDX-License-Identifier: Apache-2.0
"""The page's server: this machine alone, and only who has the token.

Other programs and web pages on the machine can reach a local port as well. So every request must carry the random
token in its path, and must name this server as its host (a page elsewhere that lets its own name point here, known as
DNS rebinding, cannot). What is sent is limited in size and checked before anything is written.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from detection.annotate.images import ImageSet
from detection.annotate.store import MOST_POINTS, Conflict, Point, PointStore
from vision3d.errors import ConfigError, DataError

HOST = "127.0.0.1"
MOST_BYTES = 64 * MOST_POINTS  # of a request
OVERLAP_PX = 64  # between neighbouring tiles, so that an object at the border is seen whole in one of them

log = logging.getLogger(__name__)


class Refusal(Exception):
    """A request that gets an error: status and one line."""

    def __init__(self, status: int, reason: str, **more: Any) -> None:
        super().__init__(reason)
        self.status, self.document = status, {"error": reason, **more}


class PointServer(ThreadingHTTPServer):
    """Serves the page for ``images`` and writes into ``store``; ``serve_forever`` until ``shutdown``.

    Args:
        window: side of a tile in pixels.
        port: 0 takes a free one.

    Raises:
        ConfigError: the port is taken or may not be used.
    """

    daemon_threads = True

    def __init__(self, images: ImageSet, store: PointStore, window: int = 1024, port: int = 0) -> None:
        self.images, self.store, self.window = images, store, window
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise ConfigError(f"port {port} cannot be used: {error.strerror or error}") from None

    @property
    def url(self) -> str:
        """Where the page is; whoever knows it may edit the points."""
        return f"http://{HOST}:{self.server_address[1]}/{self.token}/"

    @property
    def hosts(self) -> tuple[str, str]:
        """Values of a request's Host that mean this server."""
        port = self.server_address[1]
        return f"{HOST}:{port}", f"localhost:{port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that leaves in the middle of an answer is no event; the rest goes to the log."""
        log.debug("request of %s failed", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: PointServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "vision3d", ""
    timeout = 60

    def setup(self) -> None:
        super().setup()
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_PUT(self) -> None:
        self._answer(self._put)

    def log_message(self, format: str, *args: Any) -> None:
        # The request line holds the token: it goes nowhere.
        log.debug("answered %s", args[-2] if len(args) > 1 else "")

    def _answer(self, work: Any) -> None:
        body = b""
        try:
            body = self._body()
            work(self._route(), body)
        except Refusal as refusal:
            self._send_json(refusal.document, refusal.status)
        except DataError as error:
            self._send_json({"error": str(error)}, 422)
        except (ValueError, OverflowError) as error:
            self._send_json({"error": str(error)}, 400)

    def _body(self) -> bytes:
        """The request's body, read whole before anything is answered, so that the connection can be used again."""
        if "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise Refusal(411, "send a Content-Length")
        length = self.headers.get("Content-Length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > MOST_BYTES:
            self.close_connection = True
            raise Refusal(413, f"more than {MOST_BYTES} bytes")
        return self.rfile.read(int(length))

    def _route(self) -> list[str]:
        """The path below the token.

        Raises:
            Refusal: the request is not meant for this server, or comes from somebody else.
        """
        if self.headers.get("Host", "") not in self.server.hosts:
            raise Refusal(421, "this server answers to its own address only")
        origin = self.headers.get("Origin")
        if origin is not None and origin not in [f"http://{host}" for host in self.server.hosts]:
            raise Refusal(403, "another page has no business here")
        _, token, *rest = [*urlsplit(self.path).path.split("/"), ""]
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise Refusal(404, "the address lacks the token that the command printed")
        return [part for part in rest if part]

    def _get(self, route: list[str], body: bytes) -> None:
        if not route:
            self._send_page()
        elif route == ["api", "state"]:
            self._send_json(self._state())
        elif route[:2] == ["api", "image"] and len(route) == 3:
            self._send_json(self._image(self._index(route[2])))
        elif route[0] == "tile" and len(route) == 6:
            index, (x, y, width, height) = self._index(route[1]), map(_whole, route[2:])
            self._send(self.server.images.tile(index, x, y, width, height), "image/jpeg", "private, max-age=3600")
        else:
            raise Refusal(404, "there is nothing here")

    def _put(self, route: list[str], body: bytes) -> None:
        if route[:2] != ["api", "image"] or len(route) != 3:
            raise Refusal(404, "there is nothing here")
        if self.headers.get_content_type() != "application/json":
            raise Refusal(415, "send application/json")
        index = self._index(route[2])
        points, version = _parse_points(body)
        images, store = self.server.images, self.server.store
        try:
            saved = store.save(images.names[index], points, version, images.size(index))
        except Conflict:
            raise Refusal(409, "the points of this image were changed elsewhere", **self._image(index)) from None
        self._send_json({"version": saved})

    def _state(self) -> dict[str, Any]:
        images, store = self.server.images, self.server.store
        return {
            "classes": store.classes,
            "names": images.names,
            "counts": store.counts(images.names),
            "window": self.server.window,
            "overlap": min(OVERLAP_PX, self.server.window // 4),
            "folder": str(store.folder),
        }

    def _image(self, index: int) -> dict[str, Any]:
        points, version = self.server.store.load(self.server.images.names[index])
        width, height = self.server.images.size(index)
        return {"width": width, "height": height, "points": points, "version": version}

    def _index(self, text: str) -> int:
        index = _whole(text)
        if index >= len(self.server.images):
            raise Refusal(404, f"there is no image {index}")
        return index

    def _send_page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        page = files("detection.annotate").joinpath("page.html").read_text("utf-8").replace("{{nonce}}", nonce)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self._send(page.encode(), "text/html; charset=utf-8", headers={"Content-Security-Policy": policy})

    def _send_json(self, document: Any, status: int = 200) -> None:
        self._send(json.dumps(document).encode(), "application/json", status=status)

    def _send(
        self,
        body: bytes,
        kind: str,
        cache: str = "no-store",
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        common = {"Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": cache}
        safe = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
        for name, value in {**common, **safe, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise Refusal(404, "there is nothing here")
    return int(text)


def _parse_points(body: bytes) -> tuple[list[Point], str]:
    """``{"version": ..., "points": [[x, y, class], ...]}``, nothing else.

    Raises:
        Refusal: it is something else.
    """
    wrong = Refusal(400, 'send {"version": text, "points": [[x, y, class], ...]}')
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise wrong from None
    if not isinstance(document, dict) or set(document) != {"version", "points"}:
        raise wrong
    version, rows = document["version"], document["points"]
    if not isinstance(version, str) or not isinstance(rows, list):
        raise wrong
    points: list[Point] = []
    for row in rows:
        if not isinstance(row, list) or len(row) != 3 or any(type(v) not in (int, float) for v in row):
            raise wrong
        x, y, label = row
        if type(label) is not int or not (math.isfinite(x) and math.isfinite(y)):
            raise wrong
        points.append((float(x), float(y), label))
    return points, version
