"""The HTTP side of the test's Hub."""

import base64
import contextlib
import dataclasses
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_server.card import problems
from tests.hub_server.repository import File, HubError, Repository, is_large
from tests.hub_server.xet import XetStorage

# What tokens are allowed: the user, and whether they may write.
TOKENS = {
    "hf_alice": ("alice", True),
    "hf_alice_reads": ("alice", False),
    "hf_bob": ("bob", True),
}


@dataclasses.dataclass
class Fault:
    """What goes wrong with requests for matching paths.

    Args:
        path: str, a regular expression to be found in the path.
        times: int, how many requests are hit.
        status: int, the status to answer with.
        headers: dict, of that answer.
        cut: int, the bytes of the body after which the connection is cut;
            takes the place of `status`.
        page: bytes, an HTML page to answer with, as a proxy would; likewise,
            with status 200.
        method: str, the only method that is hit, or `None` for any.
    """

    path: str
    times: int = 1
    status: int = 503
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    cut: int | None = None
    page: bytes | None = None
    method: str | None = None


@dataclasses.dataclass
class Reply:
    """An answer; a body that isn't `bytes` is sent as JSON."""

    body: object = b""
    status: int = 200
    headers: dict[str, str] = dataclasses.field(default_factory=dict)


ROUTES: list[tuple[str, re.Pattern, Callable[..., Reply]]] = []


def route(methods: str, path: str) -> Callable:
    """Registers what answers requests for a path.

    `KIND` in the path stands for `models` or `datasets`, which share their
    names here, `NAME` for `owner/name`, `REV` for a revision and `HASH` for a
    hash in hexadecimal digits.
    """
    for short, pattern in (
        ("KIND", "(models|datasets)"),
        ("NAME", r"(?P<name>[^/]+/[^/]+)"),
        ("REV", r"(?P<revision>[^/]+)"),  # Slashes are %2F.
        ("HASH", r"(?P<hash>[0-9a-f]{64})"),
    ):
        path = path.replace(short, pattern)

    def register(function: Callable[..., Reply]) -> Callable[..., Reply]:
        ROUTES.append((methods, re.compile(path), function))
        return function

    return register


class HubServer:
    """A Hub that listens on the loopback interface while in a `with` block.

    Attributes:
        url: str, what `HF_ENDPOINT` has to be.
        repositories: dict of `Repository` by name.
        large_files: dict of the content of large files by SHA-256.
        xet: the same for the xet client.
        faults: list of `Fault`; tests add theirs.
        requests: list of (method, path), all that were received.

    Example:
    ```python
    with HubServer() as hub:
        api = huggingface_hub.HfApi(hub.url, token="hf_alice")
        api.create_repo("alice/encoder")
    ```
    """

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.large_files: dict[str, bytes] = {}
        self.xet = XetStorage()
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.hub = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        # Another host to the client, which then keeps its token to itself.
        self.storage_url = f"http://localhost:{self._server.server_port}"

    def __enter__(self) -> "HubServer":
        threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        ).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take_fault(self, method: str, path: str) -> Fault | None:
        """Returns the fault that hits a request, and counts it."""
        with self.lock:
            for fault in self.faults:
                if (
                    fault.times
                    and fault.method in (None, method)
                    and re.search(fault.path, path)
                ):
                    fault.times -= 1
                    return fault
        return None

    def count(self, method: str, path: str) -> int:
        """Returns how many requests there were for a path (an expression)."""
        return sum(
            method == m and re.search(path, p) is not None
            for m, p in self.requests
        )

    def flip_bit(self, name: str, path: str, revision: str = "main") -> None:
        """Changes one bit of a stored file, and nothing that describes it."""
        file = self.repositories[name].at(revision).files[path]
        if file.xet_hash:
            self.xet.flip_bit(file.xet_hash)
            return
        data = bytearray(file.read())
        data[len(data) // 2] ^= 1
        file.read = lambda: bytes(data)

    def large_file(self, sha256: str, size: int) -> File:
        """Returns a large file that was uploaded before."""
        xet_hash = self.xet.by_sha256.get(sha256)
        if sha256 in self.large_files:
            # What came by both ways is read by the plain one.
            data = self.large_files[sha256]
            return File.large(sha256, size, lambda: data, None)
        if xet_hash is None:
            raise HubError(400, f"There is no large file {sha256}")
        return File.large(
            sha256, size, lambda: self.xet.read(xet_hash, self.url), xet_hash
        )


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits some 40 ms

    @property
    def hub(self) -> HubServer:
        """The Hub that the request is for."""
        return self.server.hub  # type: ignore[attr-defined]

    def log_message(self, *arguments: object) -> None:
        """Prints nothing."""

    def handle_one_request(self) -> None:
        """Answers a request; a client that went away is not an error."""
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()

    def answer(self) -> None:
        """Finds what answers the request, and sends it."""
        self.body = self._read_body()
        address = urlsplit(self.path)
        self.query = {k: v[0] for k, v in parse_qs(address.query).items()}
        self.hub.requests.append((self.command, self.path))
        fault = self.hub.take_fault(self.command, self.path)
        try:
            if fault and fault.cut is fault.page is None:
                raise HubError(fault.status, "A fault of the test's")
            if fault and fault.page is not None:
                kind = {"Content-Type": "text/html"}
                reply = Reply(fault.page, headers=kind)
            else:
                reply = self._reply(address.path)
        except HubError as error:
            headers = {"X-Error-Message": error.message}
            if error.code:
                headers["X-Error-Code"] = error.code
            if fault:
                headers.update(fault.headers)
            reply = Reply({"error": error.message}, error.status, headers)
        self._send(reply, None if fault is None else fault.cut)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def _reply(self, path: str) -> Reply:
        for methods, pattern, function in ROUTES:
            match = pattern.fullmatch(path)
            if match and self.command in methods.split():
                groups = match.groupdict()
                return function(
                    self, **{k: unquote(v or "") for k, v in groups.items()}
                )
        raise HubError(404, f"There is nothing at {self.command} {path}")

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, reply: Reply, cut: int | None = None) -> None:
        body = reply.body
        kind = "application/octet-stream"
        if not isinstance(body, bytes):
            body, kind = json.dumps(body).encode(), "application/json"
        elif reply.status == 200:
            body = self._part(reply, body)
        self.send_response(reply.status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            **reply.headers,
        }
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True

    def _part(self, reply: Reply, body: bytes) -> bytes:
        """Returns the part that a header `Range` asks for."""
        match = re.fullmatch(
            r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")
        )
        if not match:
            return body
        first, last = int(match[1]), int(match[2] or len(body) - 1)
        if first >= len(body):
            reply.status = 416
            reply.headers["Content-Range"] = f"bytes */{len(body)}"
            return b""
        part = body[first : last + 1]
        reply.status = 206
        reply.headers["Content-Range"] = (
            f"bytes {first}-{first + len(part) - 1}/{len(body)}"
        )
        return part

    # Who may do what.

    def user(self, write: bool = False) -> str | None:
        """Returns the name of the token's user."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token:
            if write:
                raise HubError(401, "Invalid username or password.")
            return None
        if token not in TOKENS:
            raise HubError(401, "Invalid credentials in Authorization header")
        name, may_write = TOKENS[token]
        if write and not may_write:
            raise HubError(403, "This token may not write")
        return name

    def repository(self, name: str, write: bool = False) -> Repository:
        """Returns a repository if the user may see it, or write to it."""
        user = self.user()
        repository = self.hub.repositories.get(name)
        if repository is None or (
            repository.private and repository.owner != user
        ):
            raise HubError(
                404 if user else 401, "Repository not found", "RepoNotFound"
            )
        if write and self.user(write=True) != repository.owner:
            raise HubError(403, f"{user} may not write to {name}")
        return repository

    # The API.

    @route("GET", "/api/whoami-v2")
    def _whoami(self) -> Reply:
        user = self.user()
        if user is None:
            raise HubError(401, "Invalid username or password.")
        return Reply({"type": "user", "id": user, "name": user, "orgs": []})

    @route("POST", "/api/repos/create")
    def _create(self) -> Reply:
        user = self.user(write=True)
        wanted = json.loads(self.body)
        owner = wanted.get("organization") or user
        name = f"{owner}/{wanted['name']}"
        if owner != user:
            raise HubError(403, f"{user} may not create {name}")
        address = {"url": f"{self.hub.url}/{name}", "name": name, "id": name}
        with self.hub.lock:
            if name in self.hub.repositories:
                return Reply({"error": "It exists", **address}, 409)
            private = wanted.get("visibility") == "private"
            self.hub.repositories[name] = Repository(name, private)
        return Reply(address)

    @route("POST", "/api/validate-yaml")
    def _validate(self) -> Reply:
        errors, warnings = problems(json.loads(self.body)["content"])
        answer = {
            "errors": [{"message": text} for text in errors],
            "warnings": [{"message": text} for text in warnings],
        }
        return Reply(answer, 400 if errors else 200)

    def _check_card(self, data: bytes) -> None:
        errors, _ = problems(data.decode())
        if errors:
            raise HubError(400, f"Bad request for metadata: {errors[0]}")

    @route("GET", "/api/KIND/NAME(/revision/REV)?")
    def _info(self, name: str, revision: str) -> Reply:
        repository = self.repository(name)
        commit = repository.at(revision or "main")
        files = [file.entry(path) for path, file in commit.files.items()]
        siblings: list[dict] = [{"rfilename": file["path"]} for file in files]
        if self.query.get("blobs", "").lower() == "true":
            for sibling, file in zip(siblings, files):
                sibling |= {"size": file["size"], "blobId": file["oid"]}
                if lfs := file.get("lfs"):
                    sibling["lfs"] = {**lfs, "sha256": lfs["oid"]}
        return Reply(
            {
                "id": name,
                "sha": commit.sha,
                "private": repository.private,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": siblings,
            }
        )

    @route("GET", "/api/KIND/NAME/tree/REV(/(?P<path>.+))?")
    def _tree(self, name: str, revision: str, path: str) -> Reply:
        files = self.repository(name).at(revision).files
        prefix = f"{path}/" if path else ""
        entries = {}
        for inner, file in files.items():
            if not inner.startswith(prefix):
                continue
            *folders, _ = inner.removeprefix(prefix).split("/")
            if folders and self.query.get("recursive") != "true":
                folder = prefix + folders[0]
                entries[folder] = {
                    "type": "directory",
                    "oid": "0" * 40,
                    "size": 0,
                    "path": folder,
                }
            else:
                entries[inner] = file.entry(inner)
        if path and not entries:
            raise HubError(404, f"There is no {path}", "EntryNotFound")
        return Reply(list(entries.values()))

    @route("POST", "/api/KIND/NAME/paths-info/REV")
    def _paths(self, name: str, revision: str) -> Reply:
        files = self.repository(name).at(revision).files
        wanted = parse_qs(self.body.decode())["paths"]
        return Reply(
            [files[path].entry(path) for path in wanted if path in files]
        )

    @route("GET", "/api/KIND/NAME/refs")
    def _refs(self, name: str) -> Reply:
        branches = [
            {
                "name": branch,
                "ref": f"refs/heads/{branch}",
                "targetCommit": commit.sha,
            }
            for branch, commit in self.repository(name).branches.items()
        ]
        return Reply({"branches": branches, "converts": [], "tags": []})

    @route("GET", "/api/KIND/NAME/commits/REV")
    def _commits(self, name: str, revision: str) -> Reply:
        return Reply(
            [
                {
                    "id": commit.sha,
                    "title": commit.title,
                    "message": "",
                    "date": "2026-01-01T00:00:00.000Z",
                    "authors": [{"user": commit.author}],
                }
                for commit in self.repository(name).history(revision)
            ]
        )

    @route("POST", "/api/KIND/NAME/branch/REV")
    def _branch(self, name: str, revision: str) -> Reply:
        start = json.loads(self.body).get("startingPoint", "main")
        self.repository(name, write=True).create_branch(revision, start)
        return Reply({})

    @route("POST", "/api/KIND/NAME/preupload/REV")
    def _preupload(self, name: str, revision: str) -> Reply:
        present = self.repository(name, write=True).at(revision).files
        files = []
        for file in json.loads(self.body)["files"]:
            path = file["path"]
            large = is_large(path, file["size"])
            known = present.get(path)
            files.append(
                {
                    "path": path,
                    "uploadMode": "lfs" if large else "regular",
                    "shouldIgnore": False,
                    "oid": known and (known.sha256 if large else known.oid),
                }
            )
        return Reply({"files": files})

    @route("POST", "/api/KIND/NAME/commit/REV")
    def _commit(self, name: str, revision: str) -> Reply:
        repository = self.repository(name, write=True)
        added, deleted, header = {}, [], {}
        for line in self.body.splitlines():
            row = json.loads(line)
            key, value = row["key"], row["value"]
            if key == "header":
                header = value
            elif key == "file":
                data = base64.b64decode(value["content"])
                if value["path"] == "README.md":
                    self._check_card(data)
                added[value["path"]] = File.small(data)
            elif key == "lfsFile":
                added[value["path"]] = self.hub.large_file(
                    value["oid"], value["size"]
                )
            elif key == "deletedFile":
                deleted.append(value["path"])
            else:
                raise HubError(400, f"There is no {key} here")
        with self.hub.lock:
            commit = repository.commit(
                revision,
                header["summary"],
                self.user() or "",
                added,
                deleted,
                header.get("parentCommit"),
            )
        return Reply(
            {
                "success": True,
                "commitOid": commit.sha,
                "commitUrl": f"{self.hub.url}/{name}/commit/{commit.sha}",
            }
        )

    # Large files, over plain HTTP.

    @route("POST", r"/NAME\.git/info/lfs/objects/batch")
    def _batch(self, name: str) -> Reply:
        self.repository(name, write=True)
        objects = []
        for item in json.loads(self.body)["objects"]:
            answer = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.large_files:
                place = f"{self.hub.storage_url}/large/{item['oid']}"
                answer["actions"] = {"upload": {"href": place}}
            objects.append(answer)
        return Reply({"transfer": "basic", "objects": objects})

    @route("PUT", "/large/HASH")
    def _put_large(self, hash: str) -> Reply:
        if "Authorization" in self.headers:
            raise HubError(400, "The storage needs no token")
        if hashlib.sha256(self.body).hexdigest() != hash:
            raise HubError(400, "The content doesn't have this SHA-256")
        self.hub.large_files[hash] = self.body
        return Reply()

    @route("GET HEAD", "(/datasets)?/NAME/resolve/REV/(?P<path>.+)")
    def _resolve(self, name: str, revision: str, path: str) -> Reply:
        commit = self.repository(name).at(revision)
        headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
        file = commit.files.get(path)
        if file is None:
            headers["X-Error-Code"] = "EntryNotFound"
            headers["X-Error-Message"] = "Entry not found"
            return Reply({}, 404, headers)
        headers["ETag"] = f'"{file.etag}"'
        if not file.sha256:
            return Reply(file.read(), headers=headers)
        # The Hub sends clients on to its storage.
        headers["X-Linked-ETag"] = headers["ETag"]
        headers["X-Linked-Size"] = str(file.size)
        headers["Location"] = (
            f"{self.hub.storage_url}/stored/{name}/{commit.sha}/{path}"
        )
        if file.xet_hash:
            token = f"{self.hub.url}/api/models/{name}/xet-read-token"
            headers["X-Xet-Hash"] = file.xet_hash
            headers["Link"] = f'<{token}/{commit.sha}>; rel="xet-auth"'
        return Reply(status=302, headers=headers)

    @route("GET HEAD", "/stored/NAME/REV/(?P<path>.+)")
    def _stored(self, name: str, revision: str, path: str) -> Reply:
        # Its addresses are secrets themselves: a token here is a leak.
        if "Authorization" in self.headers:
            raise HubError(400, "The storage needs no token")
        file = self.hub.repositories[name].at(revision).files[path]
        return Reply(file.read(), headers={"ETag": f'"{file.etag}"'})

    # Large files, over xet.

    @route("GET", "/api/KIND/NAME/xet-(?P<kind>read|write)-token/REV")
    def _xet_token(self, name: str, kind: str, revision: str) -> Reply:
        self.repository(name, write=kind == "write").at(revision)
        expires = int(time.time()) + 3600
        return Reply(
            {"accessToken": kind, "exp": expires, "casUrl": self.hub.url},
            headers={
                "X-Xet-Cas-Url": self.hub.url,
                "X-Xet-Access-Token": kind,
                "X-Xet-Token-Expiration": str(expires),
            },
        )

    @route("POST", "/v1/xorbs/default/HASH")
    def _put_xorb(self, hash: str) -> Reply:
        inserted = self.hub.xet.xorbs.setdefault(hash, self.body) is self.body
        return Reply({"was_inserted": inserted})

    @route("GET", "/v1/xorbs/default/HASH")
    def _get_xorb(self, hash: str) -> Reply:
        return Reply(self.hub.xet.xorbs[hash])

    @route("POST", "/v1/shards")
    def _put_shard(self) -> Reply:
        self.hub.xet.add_shard(self.body)
        return Reply({"result": 1})

    @route("GET", "/v1/reconstructions/HASH")
    def _reconstruction(self, hash: str) -> Reply:
        wanted = self.headers.get("Range", "")
        return Reply(self.hub.xet.reconstruction(hash, wanted, self.hub.url))
