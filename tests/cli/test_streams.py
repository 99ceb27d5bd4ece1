"""Commands whose stdin, stdout or stderr is closed, full, not UTF-8 or no longer read, in a place that lacks what is usual."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pty
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from expmgr.cli.main import COMMANDS, main
from world import Repo, Result

#: Each command as it prints something without training a model, with its exit code.
PRINTING = [
    ("init", "init --help", 0),
    ("new", "new iris/größer --json", 1),
    ("run", "run iris/none --json", 1),
    ("status", "status --json", 0),
    ("logs", "logs --help", 0),
    ("stop", "stop iris/wide --json", 0),
    ("check", "check iris/none --json", 1),
    ("checkpoints", "checkpoints iris/wide --json", 0),
    ("adopt", "adopt nowhere --as iris/wide --json", 1),
    ("evaluate", "evaluate --help", 0),
    ("predict", "predict --help", 0),
    ("export", "export --help", 0),
    ("compare", "compare iris/baseline iris/wide", 0),
    ("diff", "diff iris/baseline iris/wide", 0),
    ("list", "list", 0),
    ("ls", "ls --json", 0),
    ("show", "show iris/wide", 0),
    ("log", "log", 0),
    ("note", "note iris/wide -m größer", 0),
    ("retract", "retract nothing -m why --json", 1),
    ("restore", "restore --json", 0),
    ("push", "push --json", 1),
    ("pull", "pull --json", 1),
    ("review", "review list --json", 0),
    ("doctor", "doctor --json", 0),
    ("tensorboard", "tensorboard --help", 0),
]

#: Runs each command of the list on stdin in a fork, in which stdin, stdout and stderr are what the first argument says.
FORKS = """
import io, json, os, sys
from importlib import import_module
from expmgr import __main__
from expmgr.cli import main
for module in main.COMMANDS:
    import_module(f"expmgr.cli.{module}")

def opened(kind, number):
    if kind == "closed":
        os.close(number)
        return None
    if kind == "full":
        os.dup2(os.open("/dev/full", os.O_WRONLY), number)
    elif kind == "reading":
        os.dup2(os.open(os.devnull, os.O_RDONLY), number)
    elif kind == "stuffed":
        global reader
        reader, writing = os.pipe()
        os.set_blocking(writing, False)
        try:
            while True:
                os.write(writing, bytes(4096))
        except BlockingIOError:
            os.dup2(writing, number)
    elif kind == "unread":
        reading, writing = os.pipe()
        os.dup2(writing, number)
        os.close(reading)
        os.close(writing)
    else:
        os.dup2(os.open(f"{folder}/{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    encoding = kind if kind in ("ascii", "latin-1") else "utf-8"
    errors = "backslashreplace" if number == 2 else "strict"
    return io.TextIOWrapper(io.BufferedWriter(io.FileIO(number, "w", closefd=False)), encoding=encoding, errors=errors)

def child(words):
    code = 99
    sys.argv = ["expmgr", *words]
    sys.stdout, sys.stderr = opened(stdout, 1), opened(stderr, 2)
    try:
        __main__.entry()
    except SystemExit as end:
        code = end.code
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except OSError:
        code = 120  # as Python itself
    os._exit(code)

folder, stdout, stderr = sys.argv[1:]
done = []
for words in json.load(sys.stdin):
    pid = os.fork()
    if pid == 0:
        child(words)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    paths = [f"{folder}/{number}" for number in (1, 2)]
    texts = [open(path, "rb").read().decode("latin-1") if os.path.exists(path) else "" for path in paths]
    done.append([code, *texts])
print(json.dumps(done))
"""


@pytest.fixture
def repo(iris: Repo) -> Repo:
    """Two variants, with reasons and a note that have characters which ASCII lacks."""
    for name in ("baseline", "wide"):
        assert iris.expmgr("new", f"iris/{name}", "-m", "größer ━ 大").code == 0
    assert iris.expmgr("note", "iris/wide", "-m", "Größer ist besser ✓").code == 0
    return iris


def answers(repo: Repo, folder: Path, stdout: str, stderr: str = "file") -> dict[str, Result]:
    """What each command of PRINTING answered, its texts as bytes in latin-1."""
    commands = [shlex.split(typed) for _name, typed, _code in PRINTING]
    done = subprocess.run(
        [sys.executable, "-c", FORKS, str(folder), stdout, stderr],
        cwd=repo.path,
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: Result(*one) for (name, _typed, _code), one in zip(PRINTING, found, strict=True)}


CODES = {name: code for name, _typed, code in PRINTING}


def test_every_command_is_tried() -> None:
    assert [name for name, _typed, _code in PRINTING] == list(itertools.chain(*COMMANDS.values()))


@pytest.mark.parametrize(
    ("stdout", "stderr"),
    [
        ("closed", "closed"),
        ("unread", "full"),
        ("reading", "stuffed"),
        pytest.param("file", "unread", marks=pytest.mark.wide),
    ],
)
def test_streams_that_nobody_reads_change_no_exit_code(repo: Repo, tmp_path: Path, stdout: str, stderr: str) -> None:
    found = answers(repo, tmp_path, stdout, stderr)
    assert {name: one.code for name, one in found.items()} == CODES


def test_a_full_disk_is_told_by_every_command(repo: Repo, tmp_path: Path) -> None:
    """What a command met before is not hidden by it."""
    found = answers(repo, tmp_path, "full")
    assert {name: one.code for name, one in found.items()} == {name: code or 74 for name, code in CODES.items()}
    told = "Error: the output could not be written: No space left on device"
    assert [name for name, one in found.items() if (one.code == 74) != (told in one.stderr)] == []


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("latin-1", marks=pytest.mark.wide)])
def test_what_an_encoding_lacks_is_replaced_and_json_stays_whole(repo: Repo, tmp_path: Path, encoding: str) -> None:
    found = answers(repo, tmp_path, encoding)
    assert {name: one.code for name, one in found.items()} == CODES
    told = [json.loads(found[name].stdout) for name, typed, _code in PRINTING if "--json" in typed.split()]
    assert all(one["format"] == 1 for one in told)
    assert "größer ━ 大" in [one["why"] for one in json.loads(found["ls"].stdout)["variants"]]
    assert ("gr??er" if encoding == "ascii" else "größer ? ?") in found["list"].stdout
    assert "━" not in found["show"].stdout


ODD = {
    "no UTF-8": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "unknown locale": {"LC_ALL": "xx_YY.none", "PYTHONUTF8": "0"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "strict": {"PYTHONIOENCODING": "ascii:backslashreplace"},
    "home": {"HOME": "/dev/null", "XDG_CONFIG_HOME": "/dev/null", "TMPDIR": "/dev/null/none"},
}


@pytest.mark.parametrize("odd", ODD)
def test_what_is_said_in_an_odd_environment_is_kept_as_it_was_said(repo: Repo, odd: str) -> None:
    assert repo.expmgr_process("note", "iris/wide", "-m", "kühl ━", env=ODD[odd]).code == 0
    assert json.loads(repo.expmgr("log", "--json").stdout)["events"][-1]["text"] == "kühl ━"
    shown = repo.expmgr_process("show", "iris/wide", env=ODD[odd])
    wanted = {"home": "kühl ━", "strict": r"k\xfchl \u2501"}.get(odd, "k?hl ?")
    assert (shown.code, wanted in shown.stdout) == (0, True), shown
    assert repo.expmgr_process("new", "iris/other", "-m", "kühl", env=ODD[odd]).code == 0
    assert repo.git("log", "-1", "--format=%s", "exp/iris/other") == "kühl\n"


def test_an_argument_that_is_no_text_is_the_users_mistake(repo: Repo) -> None:
    wrong = {
        ("new", "iris/odd", "-m", "\udcff"): "Error: the argument '\\udcff' is not UTF-8\n",
        ("adopt", "\udcff", "--as", "iris/wide"): "Error: \ufffd does not exist\nNothing was changed.\n",
    }
    for words, told in wrong.items():
        done = repo.expmgr_process(*words)
        assert (done.code, done.stdout, done.stderr) == (1, "", told)


def test_a_folder_that_was_removed_is_no_place_to_work(repo: Repo, tmp_path: Path) -> None:
    def typed(*words: str) -> Result:
        folder = tmp_path / "gone"
        folder.mkdir(exist_ok=True)
        script = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
        done = subprocess.run(
            ["sh", "-c", script, "sh", str(folder), sys.executable, "-m", "expmgr", *words],
            capture_output=True,
            text=True,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    assert typed("list") == Result(
        1,
        "",
        "Error: the current folder cannot be used: No such file or directory\nNothing was changed.\n"
        "Hint: change to a folder that exists, or name it: expmgr -C DIR ...\n",
    )
    assert typed("run", "iris/wide").code == 1
    assert typed("-C", str(repo.path), "list") == repo.expmgr("list")


def on_a_terminal(repo: Repo, *words: str, env: Mapping[str, str]) -> tuple[int, str]:
    """The exit code, and what a terminal of 80 columns shows."""
    terminal, stream = pty.openpty()
    environ = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "TERM")}
    process = subprocess.Popen(
        [sys.executable, "-m", "expmgr", *words],
        cwd=repo.path,
        env={**environ, **env},
        stdin=stream,
        stdout=stream,
        stderr=stream,
        start_new_session=True,
    )
    os.close(stream)
    shown = b""
    with contextlib.suppress(OSError):  # how it ends when the other end is closed
        while part := os.read(terminal, 4096):
            shown += part
    os.close(terminal)
    return process.wait(), shown.decode()


@pytest.mark.parametrize(
    "env", [{"TERM": "dumb"}, {}, {"COLUMNS": "1"}, {"COLUMNS": "0"}, {"COLUMNS": "wide"}, {"COLUMNS": "-5"}]
)
def test_a_terminal_of_any_kind_shows_a_table(repo: Repo, env: dict[str, str]) -> None:
    code, shown = on_a_terminal(repo, "list", env=env)
    assert code == 0
    assert "iris/wide" in shown
    assert "Traceback" not in shown


def test_logs_end_when_nobody_reads_them(repo: Repo) -> None:
    """As `expmgr logs -f RUN | head -1` does."""
    code = (
        "import os, sys; from expmgr.cli import streams; streams.prepare_streams(); "
        "print('line', flush=True); print(streams.has_reader(), file=sys.stderr); "
        "sys.stdin.read(); print('line', flush=True); print(streams.has_reader(), file=sys.stderr)"
    )
    process: Any = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == "True\nFalse\n"
    assert process.wait() == 0


def test_a_pipe_that_is_full_and_does_not_block_is_waited_for() -> None:
    code = (
        "import sys; from expmgr.cli import streams; streams.prepare_streams(); "
        "print('begins', file=sys.stderr); print('x' * 1_000_000)"
    )
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    process: Any = subprocess.Popen([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert process.stderr.readline() == "begins\n"
    time.sleep(0.2)  # so that the pipe is full
    with open(reading, encoding="utf-8") as read:
        assert read.read() == "x" * 1_000_000 + "\n"
    assert (process.wait(), process.stderr.read()) == (0, "")


def test_a_pipe_that_breaks_elsewhere_is_an_error(
    repo: Repo, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the end of a reader of stdout, which typer takes it for."""

    def opened(*_args: object, **_kwargs: object) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        with open(writing, "wb", buffering=0) as file:
            file.write(b"to nobody")

    monkeypatch.chdir(repo.path)
    monkeypatch.setattr("expmgr.project.Project.open", opened)
    told = "a program that the command started, or a file that it wrote to, was closed too early"
    for words in (["list", "--json"], ["review", "list", "--json"]):
        assert main(words) == 1
        shown = capsys.readouterr()
        assert json.loads(shown.out)["message"] == told
        assert shown.err == f"Error: {told}\nHint: repeat the command\n"
