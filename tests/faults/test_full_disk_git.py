"""A disk that is full where git writes: exit code 74, with the folder and the bytes, and nothing half done."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clones import Team, new_team, ok
from world import Repo

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("unshare") is None, reason="needs Linux and unshare"
)

#: Calls Python code in a mount namespace in which `disk` has little room, and prints what it found.
START = 'mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@"'


def on_small_disk(folder: Path, size: str, code: str, *args: str) -> Any:
    """What `code` prints as JSON, which has `disk`, a tmpfs of `size`, as its current folder."""
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    command = ["unshare", "-m", "sh", "-c", START, "sh", size, str(disk), sys.executable, "-c", code, str(disk), *args]
    if subprocess.run([*command[:7], str(disk), "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs to mount a tmpfs")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


CHECKOUT = """
import json, os, sys
from pathlib import Path
from expmgr.errors import ExpmgrError
from expmgr.git.repo import GitRepo
from expmgr.launch.checkout import make_checkout
repo = GitRepo.discover(Path(sys.argv[2]))
target = Path(sys.argv[1], "run", "code")
try:
    make_checkout(repo, repo.head(), target)
except ExpmgrError as error:
    print(json.dumps([error.as_dict(), target.exists()]))
"""


@pytest.mark.parametrize("sizes", [(3_000_000,), (100_000,) * 30, (10,) * 3000], ids=["one", "several", "many"])
def test_a_checkout_that_does_not_fit(repo: Repo, tmp_path: Path, sizes: tuple[int, ...]) -> None:
    for number, size in enumerate(sizes):
        repo.write(f"data/{number}.bin", os.urandom(size))
    repo.commit("much")
    limit = "1m" if sum(sizes) > 1_000_000 else "1m,nr_inodes=500"
    told, is_there = on_small_disk(tmp_path, limit, CHECKOUT, str(repo.path))
    assert (told["error"], told["exit_code"], is_there) == ("DiskFull", 74, False)
    assert told["message"].endswith(f" could not be checked out in {tmp_path}/disk/run/code: no space left")
    assert told["details"][0].startswith(f"it needs {sum(sizes):,} bytes, and ")
    assert told["left_alone"] == "No run was started."
    assert told["hint"] == f"make room: df -h {tmp_path}/disk/run"


COMMANDS = """
import json, os, subprocess, sys
from pathlib import Path
disk, source, commands = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
subprocess.run(["cp", "-r", source, str(disk / "repo")], check=True)
os.chdir(disk / "repo")
filler = os.open(disk / "filler", os.O_CREAT | os.O_WRONLY)
try:
    while True:
        os.write(filler, bytes(4096))
except OSError:
    pass
found = []
for command in commands:
    refs = subprocess.run(["git", "for-each-ref"], capture_output=True, text=True).stdout
    done = subprocess.run([sys.executable, "-m", "expmgr", *command], capture_output=True, text=True)
    same = refs == subprocess.run(["git", "for-each-ref"], capture_output=True, text=True).stdout
    found.append([done.returncode, done.stderr, same])
print(json.dumps(found))
"""


def test_commands_on_a_full_disk(tmp_path: Path) -> None:
    team = new_team(tmp_path)
    ann, bob = team.join("ann"), team.join("bob")
    ok(ann, "new", "iris/wide")
    ok(bob, "new", "iris/of-bob")
    (bob.path / "big.bin").write_bytes(os.urandom(300_000))
    bob.commit("big")
    bob.git("branch", "--force", "exp/iris/of-bob", "HEAD")
    ok(bob, "push")
    commands = [
        ["note", "iris/wide", "-m", "words"],
        ["new", "iris/deep"],
        ["init", "--experiment", "mine", "--commit"],
        ["pull"],
    ]
    found = on_small_disk(tmp_path, "3m", COMMANDS, str(ann.path), json.dumps(commands))
    for command, (code, told, is_same) in zip(commands, found, strict=True):
        assert (code, is_same) == (74, True), (command, told)
        assert told.startswith("Error: "), told
        assert "No space left on device" in told, told
        if command[0] in ("new", "pull"):
            assert f"no space left in {tmp_path}/disk/repo: 0 bytes are free" in told, told
            assert told.endswith(f"Hint: make room: df -h {tmp_path}/disk/repo\n"), told


def test_a_full_disk_at_the_remote_is_the_remotes(team: Team) -> None:
    ann = team.join("ann")
    ok(ann, "new", "iris/wide")
    hook = team.hub.path / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'fatal: write error: No space left on device' >&2\nexit 1\n")
    hook.chmod(0o755)
    failed = ann.expmgr("push")
    assert failed.code == 1
    assert "remote: fatal: write error: No space left on device" in failed.stderr
