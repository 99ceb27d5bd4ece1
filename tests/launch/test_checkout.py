"""The run's own checkout: whole, private, and refused where it cannot be whole."""

from __future__ import annotations

import hashlib
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from expmgr.errors import CheckoutFailed
from expmgr.git.repo import GitRepo
from expmgr.launch.checkout import make_checkout, remove_checkout
from world import Repo, new_repo


def contents(folder: Path) -> dict[str, bytes | str]:
    """Path to content, link targets as text; without git's own."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if ".git" in Path(name).parts:
            continue
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = path.read_bytes() + (b"+x" if path.stat().st_mode & 0o100 else b"")
    return found


def checked_out(repo: Repo, target: Path, commit: str = "HEAD") -> dict[str, bytes | str]:
    found = GitRepo.discover(repo.path)
    make_checkout(found, found.commit_of(commit) or "", target)
    return contents(target)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "code"


def fill(repo: Repo) -> None:
    repo.write("plain.txt", "one\n")
    repo.write("run.sh", "#!/bin/sh\n").chmod(0o755)
    repo.write('a folder/it\'s "odd" ü.txt', "odd\n")
    repo.write("-rf", "dash\n")
    (repo.path / "link").symlink_to("plain.txt")
    repo.commit("files")


def test_it_holds_exactly_the_files_of_the_commit(repo: Repo, target: Path) -> None:
    fill(repo)
    wanted = contents(repo.path)
    repo.write("plain.txt", "edited\n")
    repo.write("untracked.txt", "mine\n")
    before = repo.snapshot()
    assert checked_out(repo, target) == wanted
    assert repo.snapshot() == before
    assert repo.git("status", "--porcelain", folder=target) == ""
    assert repo.git("rev-parse", "HEAD", folder=target) == repo.git("rev-parse", "HEAD")


@pytest.mark.parametrize("name", ['it\'s "quoted"', "with space", "ünïcode", "new\nline"])
def test_wherever_the_repository_lies(tmp_path: Path, target: Path, name: str) -> None:
    repo = new_repo(tmp_path / name)
    fill(repo)
    assert checked_out(repo, target) == contents(repo.path)


def test_sha256(tmp_path: Path, target: Path) -> None:
    folder = tmp_path / "sha256"
    folder.mkdir()
    repo = Repo(folder)
    repo.git("init", "--quiet", "--object-format=sha256")
    fill(repo)
    assert checked_out(repo, target) == contents(repo.path)
    assert len(repo.git("rev-parse", "HEAD", folder=target).strip()) == 64


@pytest.mark.parametrize("kind", ["bare", "linked", "shallow", "sparse", "packed"])
def test_every_kind_of_clone(repo: Repo, tmp_path: Path, target: Path, kind: str) -> None:
    fill(repo)
    wanted = contents(repo.path)
    folder = tmp_path / kind
    if kind == "bare":
        repo.git("clone", "--quiet", "--bare", str(repo.path), str(folder))
    elif kind == "linked":
        repo.git("worktree", "add", "--quiet", "--detach", str(folder))
    elif kind == "shallow":
        repo.git("clone", "--quiet", "--depth=1", f"file://{repo.path}", str(folder))
    elif kind == "sparse":
        repo.git("clone", "--quiet", "--sparse", str(repo.path), str(folder))
    else:
        folder = repo.path
        repo.git("gc", "--quiet")
    assert checked_out(Repo(folder), target) == wanted


def test_no_hook_and_no_template_of_the_user_reaches_it(repo: Repo, tmp_path: Path, target: Path) -> None:
    fill(repo)
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "reference-transaction", "post-index-change"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        (hooks / name).chmod(0o755)
    template = tmp_path / "template" / "hooks"
    template.mkdir(parents=True)
    (template / "post-checkout").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (template / "post-checkout").chmod(0o755)
    repo.git("config", "--global", "core.hooksPath", str(hooks))
    repo.git("config", "--global", "init.templateDir", str(template.parent))
    checked_out(repo, target)
    assert not (tmp_path / "ran").exists()


def test_a_filter_of_the_user_gives_the_same_bytes_as_in_their_checkout(repo: Repo, target: Path) -> None:
    repo.git("config", "filter.rot.smudge", "tr a-z n-za-m")
    repo.git("config", "filter.rot.clean", "tr a-z n-za-m")
    repo.write(".gitattributes", "*.secret filter=rot\n")
    repo.write("x.secret", "hello\n")
    repo.commit("filtered")
    assert repo.git("cat-file", "blob", "HEAD:x.secret") == "uryyb\n"
    assert checked_out(repo, target)["x.secret"] == b"hello\n"


@pytest.fixture
def nested(tmp_path: Path) -> Repo:
    """A repository with a submodule, which has one itself."""
    inner, middle, outer = (new_repo(tmp_path / name) for name in ("inner", "middle", "outer"))
    inner.git("config", "--global", "protocol.file.allow", "always")
    inner.write("inner.txt", "inner\n")
    inner.commit()
    middle.write("middle.txt", "middle\n")
    middle.git("submodule", "--quiet", "add", str(inner.path), "deep")
    middle.commit()
    outer.write("outer.txt", "outer\n")
    outer.git("submodule", "--quiet", "add", "--name", "odd name", str(middle.path), "lib/middle")
    outer.commit()
    outer.git("submodule", "--quiet", "update", "--init", "--recursive")
    return outer


def test_submodules_are_filled(nested: Repo, target: Path) -> None:
    assert checked_out(nested, target) == {
        ".gitmodules": nested.read(".gitmodules").encode(),
        "outer.txt": b"outer\n",
        "lib/middle/.gitmodules": nested.read("lib/middle/.gitmodules").encode(),
        "lib/middle/middle.txt": b"middle\n",
        "lib/middle/deep/inner.txt": b"inner\n",
    }
    assert nested.git("status", "--porcelain", folder=target) == ""


def test_a_submodule_that_is_not_checked_out_but_cloned(nested: Repo, target: Path) -> None:
    nested.git("submodule", "--quiet", "deinit", "--force", "--all")
    assert checked_out(nested, target)["lib/middle/middle.txt"] == b"middle\n"


def test_a_submodule_that_is_not_there_refuses_the_run(nested: Repo, tmp_path: Path, target: Path) -> None:
    clone = Repo(tmp_path / "clone")
    nested.git("clone", "--quiet", str(nested.path), str(clone.path))
    commit = clone.git("rev-parse", "HEAD:lib/middle").strip()
    with pytest.raises(CheckoutFailed) as caught:
        checked_out(clone, target)
    assert caught.value.lines() == [
        f"Error: submodule lib/middle is not in this clone at commit {commit[:12]}",
        "No run was started.",
        "Hint: git submodule update --init --recursive -- lib/middle",
    ]
    assert not target.exists()


def lfs(repo: Repo, path: str, content: bytes, *, store: str | None = ".git/lfs") -> None:
    """A file as git-lfs keeps it: a pointer in git, its content in the store."""
    digest = hashlib.sha256(content).hexdigest()
    repo.write(path, f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n")
    if store:
        repo.write(f"{store}/objects/{digest[:2]}/{digest[2:4]}/{digest}", content)


def test_lfs_files_are_there_without_git_lfs(repo: Repo, target: Path) -> None:
    repo.write("data/.gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
    lfs(repo, "data/a.bin", b"the weights\n")
    lfs(repo, "data/sub/b.bin", b"more\n")
    repo.commit("lfs")
    repo.git("config", "filter.lfs.smudge", "false")
    repo.git("config", "filter.lfs.required", "true")
    found = checked_out(repo, target)
    assert (found["data/a.bin"], found["data/sub/b.bin"]) == (b"the weights\n", b"more\n")


def test_lfs_files_that_are_not_there_refuse_the_run(repo: Repo, target: Path) -> None:
    repo.write(".gitattributes", "*.bin filter=lfs -text\n")
    lfs(repo, "a.bin", b"far away\n", store=None)
    repo.commit("lfs")
    with pytest.raises(CheckoutFailed) as caught:
        checked_out(repo, target)
    assert caught.value.lines()[1] == "  a.bin"
    assert (caught.value.hint or "").startswith("git lfs fetch")
    assert not target.exists()


@pytest.mark.parametrize("spec", ["blob:none", "tree:0"])
def test_a_partial_clone_is_filled_or_refused(repo: Repo, tmp_path: Path, target: Path, spec: str) -> None:
    fill(repo)
    wanted = contents(repo.path)
    repo.git("config", "uploadpack.allowFilter", "true")
    repo.git("config", "uploadpack.allowAnySHA1InWant", "true")
    clones = []
    for name in ("one", "two"):
        folder = tmp_path / name
        repo.git("clone", "--quiet", "--no-checkout", f"--filter={spec}", f"file://{repo.path}", str(folder))
        clones.append(Repo(folder))
    assert checked_out(clones[0], target) == wanted
    repo.path.rename(tmp_path / "gone")
    with pytest.raises(CheckoutFailed):
        checked_out(clones[1], target.with_name("second"))
    assert not target.with_name("second").exists()


def test_sixteen_at_once(repo: Repo, tmp_path: Path) -> None:
    fill(repo)
    wanted = contents(repo.path)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda number: checked_out(repo, tmp_path / f"code{number}"), range(16)))
    assert found == [wanted] * 16


def test_what_a_crash_left_is_no_obstacle(repo: Repo, target: Path) -> None:
    fill(repo)
    target.mkdir(parents=True)
    (target / "half").write_text("")
    remove_checkout(target)
    assert checked_out(repo, target) == contents(repo.path)
    remove_checkout(target)
    assert subprocess.run(["git", "fsck", "--strict"], cwd=repo.path, capture_output=True, check=False).returncode == 0
