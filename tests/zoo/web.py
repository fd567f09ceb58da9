"""A file server on loopback with failures on demand."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Web:
    """The files by path, and the failures."""

    files: dict[str, bytes]
    cuts: list[int] = field(default_factory=list)  # bytes after which the next answers end
    statuses: list[int] = field(default_factory=list)  # of the next answers, without a file
    etag: str | None = '"one"'
    ranges: bool = True
    endless: bool = False  # answer with bytes of no declared length until the client hangs up
    asked: list[str] = field(default_factory=list)  # the Range header of each request, or ""
    url: str = ""


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Web]:
    web = Web(files)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            web.asked.append(asked)
            body = web.files.get(self.path)
            status = web.statuses.pop(0) if web.statuses else 200 if body is not None else 404
            if status != 200 or body is None:
                return self.send_error(status)
            if web.endless:
                return self.send_bytes_without_end()
            fresh = self.headers.get("If-Range") == web.etag
            start = int(asked[6:-1]) if asked and web.ranges and fresh else 0
            if start and start >= len(body):
                return self.send_error(416)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) - start))
            if web.etag is not None:
                self.send_header("ETag", web.etag)
            self.end_headers()
            end = start + web.cuts.pop(0) if web.cuts else len(body)
            self.wfile.write(body[start:end])
            if end < len(body):
                self.close_connection = True
            return None

        def send_bytes_without_end(self) -> None:
            self.close_connection = True
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(bytes(2**16))

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    web.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
