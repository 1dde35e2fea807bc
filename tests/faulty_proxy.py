"""An HTTP proxy in front of a store that makes every n-th request go wrong in one chosen way."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import urlsplit

FAULTS = {"unavailable", "dropped", "answer lost", "answer cut short", "request cut short"}
"""503 without doing it; closed without doing it; done, then closed without an answer; done, half the answer; half the
request sent on."""


class FaultyProxy:
    """Use as a context manager; `address` is where clients go, `faults` how many requests went wrong."""

    def __init__(self, target: str, fault: str, every: int) -> None:
        assert fault in FAULTS
        self.faults = 0
        self._count = 0
        self._lock = threading.Lock()
        proxy, host = self, urlsplit(target).netloc

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
                pass

            def _handle(self) -> None:
                body = self._body()
                wrong = proxy._is_next_wrong()
                if wrong and fault == "unavailable":
                    self.send_response(503)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if wrong and fault == "dropped":
                    self.close_connection = True
                    return
                connection = http.client.HTTPConnection(host, timeout=30)
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in {"connection", "expect", "transfer-encoding", "content-length"}:
                        connection.putheader(name, value)
                connection.putheader("Content-Length", str(len(body)))
                connection.endheaders()
                if wrong and fault == "request cut short" and len(body) > 1:
                    connection.send(body[: len(body) // 2])
                    connection.close()
                    self.close_connection = True
                    return
                connection.send(body)
                answer = connection.getresponse()
                data = answer.read()
                connection.close()
                if wrong and fault == "answer lost":
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in {"connection", "transfer-encoding", "content-length", "date", "server"}:
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
                self.send_header("Content-Length", length or "0")
                self.end_headers()
                if wrong and fault == "answer cut short" and len(data) > 1:
                    self.wfile.write(data[: len(data) // 2])
                    self.close_connection = True
                    return
                self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle

            def _body(self) -> bytes:
                if self.headers.get("Expect", "").lower() == "100-continue":
                    self.send_response_only(100)
                    self.end_headers()
                if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                    parts = []
                    while size := int(self.rfile.readline().split(b";")[0], 16):
                        parts.append(self.rfile.read(size))
                        self.rfile.readline()
                    while self.rfile.readline().strip():
                        pass
                    return b"".join(parts)
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._every = every

    def _is_next_wrong(self) -> bool:
        with self._lock:
            self._count += 1
            wrong = self._count % self._every == 0
            self.faults += wrong
            return wrong

    def __enter__(self) -> FaultyProxy:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
