"""A small server that speaks the hub's protocol (file lists, repository facts, downloads) for folders on this disk, on
loopback."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


class HubServer:
    """Serves `folder/ORGANISATION/NAME` as repositories with one commit; `downloaded` lists the files that were
    fetched."""

    def __init__(self, folder: Path) -> None:
        self.downloaded: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._answer(with_body=False)

            def do_GET(self) -> None:
                self._answer(with_body=True)

            def log_message(self, *_: object) -> None:
                pass

            def _answer(self, with_body: bool) -> None:
                steps = unquote(urlsplit(self.path).path).strip("/").split("/")
                if steps == [""]:
                    self._send(200, b"", with_body)
                    return
                if steps[:2] == ["api", "models"]:
                    repo, what = folder / steps[2] / steps[3], steps[4] if len(steps) > 4 else "revision"
                    files = sorted(path for path in repo.rglob("*") if path.is_file())
                    names = [path.relative_to(repo).as_posix() for path in files]
                    if not files:
                        self._send(404, b"{}", with_body, {"X-Error-Code": "RepoNotFound"})
                    elif what == "tree":
                        tree = [
                            {"type": "file", "path": name, "size": path.stat().st_size, "oid": _etag(path)}
                            for name, path in zip(names, files, strict=True)
                        ]
                        self._send(200, json.dumps(tree).encode(), with_body)
                    else:
                        facts = {"id": "/".join(steps[2:4]), "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
                        self._send(200, json.dumps(facts).encode(), with_body)
                    return
                path = folder / steps[0] / steps[1] / "/".join(steps[4:])
                if not path.is_file():
                    self._send(404, b"", with_body, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
                    return
                if with_body:
                    server.downloaded.append("/".join(steps[4:]))
                self._send(200, path.read_bytes(), with_body, {"ETag": f'"{_etag(path)}"', "X-Repo-Commit": COMMIT})

            def _send(self, status: int, body: bytes, with_body: bool, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), "Content-Type": "application/json", **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                if with_body:
                    self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
