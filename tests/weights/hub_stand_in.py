"""A stand-in of the hub's HTTP interface on loopback: what `huggingface_hub` asks to create, fill, tag and read a
repository. Repositories live in memory, and nothing leaves the machine.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlparse

TOKEN = "hf_write"


class Repository:
    def __init__(self, private: bool) -> None:
        self.private = private
        self.commits: list[dict[str, bytes]] = [{}]
        self.messages = ["initial commit"]
        self.tags: dict[str, int] = {}

    def number(self, revision: str) -> int:
        """The commit of a branch, a tag or a sha. Raises KeyError."""
        if revision == "main":
            return len(self.commits) - 1
        if revision in self.tags:
            return self.tags[revision]
        return {sha(i): i for i in range(len(self.commits))}[revision]


def sha(number: int) -> str:
    return f"{number:040x}"


class Hub(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        """sha256 -> contents of the files that are not sent within a commit."""
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running() -> Iterator[Hub]:
    with Hub() as hub:
        thread = Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _send(self, code: int, body: Any = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", headers.pop("size", str(len(data))))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _found(self, name: str, writing: bool = False) -> Repository | None:
        """A repository that the caller may see, else the answer is sent."""
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        repository = self.server.repositories.get(name)
        if writing and not known:
            self._send(401, {"error": "Invalid credentials"})
        elif repository is None or (repository.private and not known):
            self._send(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        else:
            return repository
        return None

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = [unquote(part) for part in urlparse(self.path).path.strip("/").split("/")]
        self.server.asked.append(f"{self.command} {'/'.join(parts)}")
        if parts[:2] == ["api", "models"]:
            name = "/".join(parts[2:4])
            if (repository := self._found(name)) is None:
                return
            if parts[4:] == ["refs"]:
                tags = [
                    {"name": t, "ref": f"refs/tags/{t}", "targetCommit": sha(n)} for t, n in repository.tags.items()
                ]
                self._send(200, {"branches": [], "converts": [], "tags": tags})
                return
            self._info(repository, name, parts[5] if len(parts) > 5 else "main", parts[4:5] == ["tree"])
        elif len(parts) > 4 and parts[2] == "resolve":
            if (repository := self._found("/".join(parts[:2]))) is not None:
                self._file(repository, parts[3], "/".join(parts[4:]))
        else:
            self._send(404)

    def _info(self, repository: Repository, name: str, revision: str, tree: bool) -> None:
        try:
            number = repository.number(revision)
        except KeyError:
            self._send(404, {"error": "Revision not found"}, X_Error_Code="RevisionNotFound")
            return
        if tree:  # later versions of the client ask for it, too
            files = repository.commits[number].items()
            oids = {path: hashlib.sha1(contents).hexdigest() for path, contents in files}
            self._send(200, [{"type": "file", "path": p, "size": len(c), "oid": oids[p]} for p, c in files])
            return
        siblings = [{"rfilename": file} for file in repository.commits[number]]
        self._send(
            200, {"id": name, "sha": sha(number), "private": repository.private, "siblings": siblings, "tags": []}
        )

    def _file(self, repository: Repository, revision: str, file: str) -> None:
        number = repository.number(revision)
        contents = repository.commits[number].get(file)
        if contents is None:
            self._send(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
            return
        etag = hashlib.sha256(contents).hexdigest()
        self._send(200, contents, ETag=f'"{etag}"', X_Repo_Commit=sha(number))

    def do_POST(self) -> None:
        parts = [unquote(part) for part in urlparse(self.path).path.strip("/").split("/")]
        self.server.asked.append(f"POST {'/'.join(parts)}")
        body = self._body()
        if parts == ["api", "repos", "create"]:
            wanted = json.loads(body)
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._send(401, {"error": "Invalid username or password."})
                return
            name = f"{wanted['organization']}/{wanted['name']}"
            private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
            self.server.repositories[name] = Repository(private)
            self._send(200, {"url": f"{self.server.url}/{name}"})
        elif parts == ["api", "validate-yaml"]:
            self._send(200, {"errors": [], "warnings": []})
        elif parts[2:3] == ["info"]:  # /owner/name.git/info/lfs/objects/batch
            self._batch(json.loads(body))
        elif (repository := self._found("/".join(parts[2:4]), writing=True)) is not None:
            self._write(repository, "/".join(parts[2:4]), parts[4], parts[5], body)

    def _write(self, repository: Repository, name: str, what: str, revision: str, body: bytes) -> None:
        if what == "preupload":
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": f["path"],
                    "shouldIgnore": False,
                    "uploadMode": "lfs" if "safetensors" in f["path"] else "regular",
                }
                for f in files
            ]
            self._send(200, {"files": modes})
        elif what == "tag":
            repository.tags[json.loads(body)["tag"]] = repository.number(revision)
            self._send(200)
        elif what == "commit":
            contents = dict(repository.commits[-1])
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "header":
                    repository.messages.append(value["summary"])
                elif line["key"] == "file":
                    contents[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    contents[value["path"]] = self.server.large[value["oid"]]
            repository.commits.append(contents)
            number = len(repository.commits) - 1
            address = f"{self.server.url}/{name}/commit/{sha(number)}"
            self._send(200, {"success": True, "commitOid": sha(number), "commitUrl": address})

    def _batch(self, wanted: dict[str, Any]) -> None:
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.server.url}/upload/{each['oid']}"}}}
            for each in wanted["objects"]
        ]
        answer = {"transfer": "basic", "objects": objects}
        self._send(200, answer, Content_Type="application/vnd.git-lfs+json")

    def do_PUT(self) -> None:
        self.server.large[self.path.rpartition("/")[2]] = self._body()
        self._send(200)
