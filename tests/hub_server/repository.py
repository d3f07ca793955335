"""Repositories of the test's Hub: commits of files, in memory."""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Callable

# What the Hub keeps apart from git: these endings, and large files.
LARGE_ENDINGS = (".h5", ".keras", ".safetensors", ".bin", ".npz")
LARGE_SIZE = 10 * 2**20


class HubError(Exception):
    """An answer that tells a client what is wrong.

    Args:
        status: int, the HTTP status.
        message: str.
        code: the Hub's `X-Error-Code`, which the client makes its exceptions
            of.
    """

    def __init__(self, status: int, message: str, code: str | None = None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


def git_blob(data: bytes) -> str:
    """Returns git's name of a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclasses.dataclass
class File:
    """A file of a commit.

    Args:
        size: int, in bytes.
        oid: what git calls it; for a large file, what it calls the pointer.
        read: gives the content, as the storage has it at that time.
        sha256: of a large file's content, else `None`.
        xet_hash: of a large file that came over xet, else `None`.
    """

    size: int
    oid: str
    read: Callable[[], bytes]
    sha256: str | None = None
    xet_hash: str | None = None

    @classmethod
    def small(cls, data: bytes) -> "File":
        """Returns a file that git itself would hold."""
        return cls(len(data), git_blob(data), lambda: data)

    @classmethod
    def large(
        cls,
        sha256: str,
        size: int,
        read: Callable[[], bytes],
        xet_hash: str | None,
    ) -> "File":
        """Returns a file of which git would hold a pointer."""
        pointer = (
            "version https://git-lfs.github.com/spec/v1\n"
            f"oid sha256:{sha256}\nsize {size}\n"
        )
        return cls(size, git_blob(pointer.encode()), read, sha256, xet_hash)

    @property
    def etag(self) -> str:
        """What the client names the file in its cache."""
        return self.sha256 or self.oid

    def entry(self, path: str) -> dict:
        """Returns the row of a listing."""
        row: dict = {
            "type": "file",
            "path": path,
            "oid": self.oid,
            "size": self.size,
        }
        if self.sha256:
            row["lfs"] = {
                "oid": self.sha256,
                "size": self.size,
                "pointerSize": 130,
            }
        if self.xet_hash:
            row["xetHash"] = self.xet_hash
        return row


def is_large(path: str, size: int) -> bool:
    """Whether the Hub would keep a file apart from git."""
    return size > 0 and (path.endswith(LARGE_ENDINGS) or size >= LARGE_SIZE)


@dataclasses.dataclass
class Commit:
    """A state of all files."""

    sha: str
    title: str
    author: str
    files: dict[str, File]
    parent: "Commit | None" = None


class Repository:
    """A repository with its branches.

    Args:
        name: `"owner/name"`.
        private: bool.
    """

    def __init__(self, name: str, private: bool):
        self.name = name
        self.owner = name.split("/")[0]
        self.private = private
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, Commit] = {}
        self._numbers = itertools.count()
        attributes = "".join(
            f"*{ending} filter=lfs diff=lfs merge=lfs -text\n"
            for ending in LARGE_ENDINGS
        )
        files = {".gitattributes": File.small(attributes.encode())}
        self._add(Commit("", "initial commit", self.owner, files), "main")

    def _add(self, commit: Commit, branch: str) -> Commit:
        # Not git's own name of the commit, but as unique and as long.
        text = f"{self.name} {next(self._numbers)} {commit.title}"
        commit.sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[commit.sha] = commit
        self.branches[branch] = commit
        return commit

    def at(self, revision: str) -> Commit:
        """Returns the commit that a branch or a SHA stands for."""
        found = self.branches.get(revision) or self.commits.get(revision)
        if found is None:
            raise HubError(
                404, f"Invalid rev id: {revision}", "RevisionNotFound"
            )
        return found

    def create_branch(self, name: str, start: str) -> None:
        """Lets a new branch begin at a revision."""
        if name in self.branches:
            raise HubError(409, f"Reference already exists: {name}")
        self.branches[name] = self.at(start)

    def commit(
        self,
        branch: str,
        title: str,
        author: str,
        added: dict[str, File],
        deleted: list[str],
        parent: str | None = None,
    ) -> Commit:
        """Adds a commit to a branch; all of it or nothing."""
        if branch not in self.branches:
            raise HubError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        head = self.branches[branch]
        if parent and not head.sha.startswith(parent):
            raise HubError(412, "A commit has happened since.")
        for path in (*added, *deleted):
            if re.search(r"(^|/)(\.\.?|\.git)?(/|$)", path):
                raise HubError(400, f"Invalid path: {path}")
        for path in deleted:
            if path not in head.files:
                raise HubError(404, f"There is no file {path}", "EntryNotFound")
        kept = {k: v for k, v in head.files.items() if k not in deleted}
        files = {**kept, **added}
        return self._add(Commit("", title, author, files, head), branch)

    def history(self, revision: str) -> list[Commit]:
        """Returns the commits up to a revision, newest first."""
        commits = []
        commit: Commit | None = self.at(revision)
        while commit:
            commits.append(commit)
            commit = commit.parent
        return commits
