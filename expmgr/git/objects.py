"""Git objects in memory: entries of a tree, and new objects packed for a repository."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One entry of a tree. `mode` as git writes it: 100644, 100755, 120000 (link), 160000 (submodule)."""

    mode: str
    oid: str
    path: str


@dataclass(frozen=True)
class NewCommit:
    """A commit that is to be made: its files (path to content), its message, and its parents after the first."""

    files: Mapping[str, bytes]
    message: str
    parents: Sequence[str] = ()


def folders_of(paths: Iterable[str]) -> list[str]:
    """All folders on the way to `paths`, the root ("") first."""
    return sorted({"/".join(path.split("/")[:depth]) for path in paths for depth in range(path.count("/") + 1)})


class NewObjects:
    """Objects on their way into a repository, by id; equal ones once."""

    def __init__(self, object_format: str) -> None:
        self.hash_name = object_format
        self._packed: dict[bytes, bytes] = {}

    def _digest(self, content: bytes) -> bytes:
        return hashlib.new(self.hash_name, content, usedforsecurity=False).digest()

    def add(self, kind: str, content: bytes) -> bytes:
        """Take in an object (`commit`, `tree` or `blob`); its id, raw."""
        name = self._digest(b"%s %d\0%s" % (kind.encode(), len(content), content))
        # gitformat-pack: the type, the size in 4 bits and then in sevens, the content by zlib.
        size = len(content)
        header = [("commit", "tree", "blob").index(kind) + 1 << 4 | size & 15]
        size >>= 4
        while size:
            header[-1] |= 128
            header.append(size & 127)
            size >>= 7
        self._packed[name] = bytes(header) + zlib.compress(content, 1)
        return name

    def tree(self, folders: Mapping[str, bytes], files: Mapping[str, bytes], folder: str = "") -> bytes:
        """Take in the tree of `folder` with `files` replaced in it, and those below it; its id, raw.

        `folders` are the trees as they were, as git writes them; a file stays executable.
        """
        entries = dict(_entries(folders.get(folder, b""), len(self._digest(b""))))
        prefix = f"{folder}/" if folder else ""
        for name in {path[len(prefix) :].partition("/")[0] for path in files if path.startswith(prefix)}:
            key, path = name.encode("utf-8", "surrogateescape"), prefix + name
            if path in files:
                mode = b"100755" if entries.get(key, (b"", b""))[0] == b"100755" else b"100644"
                entries[key] = (mode, self.add("blob", files[path]))
            else:
                entries[key] = (b"40000", self.tree(folders, files, path))
        # git sorts a folder as if its name ended with a slash.
        ordered = sorted(entries.items(), key=lambda entry: entry[0] + b"/" * (entry[1][0] == b"40000"))
        return self.add("tree", b"".join(b"%s %s\0%s" % (mode, name, oid) for name, (mode, oid) in ordered))

    def __len__(self) -> int:
        return len(self._packed)

    def pack(self) -> bytes:
        """All of them as git's pack, version 2."""
        content = b"PACK" + struct.pack(">II", 2, len(self._packed)) + b"".join(self._packed.values())
        return content + self._digest(content)


def _entries(tree: bytes, id_bytes: int) -> Iterator[tuple[bytes, tuple[bytes, bytes]]]:
    """Name, mode and raw id of each entry of a tree as git writes it."""
    at = 0
    while at < len(tree):
        end = tree.index(b"\0", at)
        mode, _, name = tree[at:end].partition(b" ")
        at = end + 1 + id_bytes
        yield name, (mode, tree[end + 1 : at])
