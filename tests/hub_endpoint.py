"""A small hub: the part of the Hugging Face hub's HTTP API that a push and a download use.

    with Hub() as hub:                      # hub.url is what HF_ENDPOINT names
        ...
    hub.repos["org/name"].files["model.json"]

It knows the calls that huggingface_hub makes: whoami, repos/create, validate-yaml, preupload, Git
LFS' batch with an upload, commit, model info, tree and resolve.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_tests"
READER = "hf_may_not_write"


@dataclass
class Repo:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=lambda: ["0" * 40])

    @property
    def head(self) -> str:
        return self.commits[-1]


class Hub:
    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.refuses: str = ""  # a part of a path that is answered with 500
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Hub:
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.calls.append(f"{self.command} {path}")
        if path == "/api/whoami-v2":
            if self._token() not in (TOKEN, READER):
                return self._json({"error": "Invalid username or password."}, 401)
            return self._json({"type": "user", "name": "org", "orgs": []})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            return self._info(found[1])
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/(.+)", path):
            repo = self._repo(found[1])
            return self._missing() if repo is None else self._json(_tree(repo))
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(found[1], found[3])
        return self._json({"error": f"no {path}"}, 404)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.calls.append(f"POST {path}")
        body = self._body()
        if self.hub.refuses and self.hub.refuses in path:
            return self._json({"error": "Internal trouble"}, 500)
        if path == "/api/validate-yaml":
            text = json.loads(body)["content"]
            bad = not text.startswith("---")
            errors = [{"message": "no front matter"}] if bad else []
            return self._json({"errors": errors, "warnings": []}, 400 if bad else 200)
        if self._token() not in (TOKEN, READER):
            return self._json({"error": "Invalid username or password."}, 401)
        if self._token() == READER:
            return self._json({"error": "You have no right to write."}, 403)
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/(.+)", path):
            listed = json.loads(body)["files"]
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in listed
            ]
            return self._json({"files": modes})
        if found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self._batch(json.loads(body))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/(.+)", path):
            return self._commit(found[1], body)
        return self._json({"error": f"no {path}"}, 404)

    def do_PUT(self) -> None:
        oid = self.path.rpartition("/")[2]
        body = self._body()
        self.hub.calls.append("PUT object")
        if hashlib.sha256(body).hexdigest() != oid:
            return self._json({"error": "another content"}, 400)
        self.hub.objects[oid] = body
        return self._json({})

    # ---- answers

    def _create(self, asked: dict[str, Any]) -> None:
        id = f"{asked.get('organization') or 'org'}/{asked['name']}"
        if id.startswith("others/"):
            return self._json({"error": "You have no right to this namespace."}, 403)
        if id in self.hub.repos:
            answer = {"error": "You already created this model repo", "id": id, "name": id}
            return self._json({**answer, "url": f"{self.hub.url}/{id}"}, 409)
        private = bool(asked.get("private") or asked.get("visibility") == "private")
        self.hub.repos[id] = Repo(private=private)
        return self._json({"url": f"{self.hub.url}/{id}", "name": id, "id": id})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = [
            {
                "oid": entry["oid"],
                "size": entry["size"],
                "actions": {"upload": {"href": f"{self.hub.url}/objects/{entry['oid']}"}},
            }
            for entry in asked["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, id: str, body: bytes) -> None:
        repo = self._repo(id)
        if repo is None:
            return self._missing()
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                repo.files[value["path"]] = self.hub.objects[value["oid"]]
        state = repr(sorted((name, hashlib.sha1(x).hexdigest()) for name, x in repo.files.items()))
        repo.commits.append(hashlib.sha1(state.encode()).hexdigest())
        url = f"{self.hub.url}/{id}/commit/{repo.head}"
        return self._json({"success": True, "commitOid": repo.head, "commitUrl": url})

    def _info(self, id: str) -> None:
        repo = self._repo(id)
        if repo is None:
            return self._missing()
        siblings = [
            {
                "rfilename": name,
                "size": len(content),
                "blobId": hashlib.sha1(content).hexdigest(),
            }
            for name, content in sorted(repo.files.items())
        ]
        answer = {"_id": id, "id": id, "modelId": id, "sha": repo.head, "private": repo.private}
        return self._json({**answer, "siblings": siblings, "tags": [], "downloads": 0})

    def _file(self, id: str, name: str) -> None:
        repo = self._repo(id)
        if repo is None:
            return self._missing()
        content = repo.files.get(name)
        if content is None:
            return self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        headers = {
            "X-Repo-Commit": repo.head,
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "Accept-Ranges": "bytes",
        }
        self._send(content, 200, "application/octet-stream", headers)

    def _repo(self, id: str) -> Repo | None:
        repo = self.hub.repos.get(id)
        if repo is not None and repo.private and self._token() != TOKEN:
            return None
        return repo

    def _missing(self) -> None:
        self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().strip() or b"0", 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _json(self, values: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(values).encode(), status, "application/json", headers or {})

    def _send(self, content: bytes, status: int, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _tree(repo: Repo) -> list[dict[str, Any]]:
    return [
        {"type": "file", "path": name, "size": len(x), "oid": hashlib.sha1(x).hexdigest()}
        for name, x in sorted(repo.files.items())
    ]
