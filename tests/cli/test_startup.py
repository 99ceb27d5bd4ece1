"""What keeps commands quick to start, without a clock: what they import, and how often they start git."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clones import Team, ok, ran
from expmgr.cli.main import COMMANDS, make_app
from world import Repo, Result

#: Prints which of the modules that its first argument names a command imported.
IMPORTED = """
import json, sys
names = json.loads(sys.argv.pop(1))
from expmgr.__main__ import entry
try:
    entry()
finally:
    sys.stderr.write("imported: " + json.dumps([name for name in names if name in sys.modules]))
"""
#: What no command imports before it needs it.
HEAVY = ["tensorflow", "keras", "numpy", "scipy", "pandas", "matplotlib", "ruamel", "rich", "fsspec", "git"]
#: pydantic's models of specs and what is about a model: seldom needed to show what there is.
MODELS = ["expmgr.spec.experiment", "expmgr.checkpoints.signature", "expmgr.comparison.comparison"]
STORED = ["expmgr.runs.record", "expmgr.log.events"]


def imported(repo: Repo, names: list[str], *command: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, json.dumps(names), *command],
        cwd=repo.path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stderr.partition("imported: ")[2]))


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (["--help"], ["pydantic", "sqlite3", "expmgr.git.process", "expmgr.project", *MODELS, *STORED]),
        (["list", "--help"], ["sqlite3", "expmgr.git.process", "expmgr.cli.run", *MODELS, *STORED]),
        (["list"], ["expmgr.cli.run", *MODELS, *STORED]),
        (["show", "iris/wide"], ["expmgr.cli.run", *MODELS]),
        (["log"], ["expmgr.cli.run", *MODELS]),
        (["doctor"], ["expmgr.cli.run", *MODELS]),
        (["review", "list", "--help"], ["sqlite3", "expmgr.git.process", "expmgr.cli.run", *MODELS, *STORED]),
    ],
)
def test_a_command_imports_nothing_heavy(iris: Repo, command: list[str], names: list[str]) -> None:
    assert iris.expmgr("new", "iris/wide").code == 0
    assert imported(iris, [*HEAVY, *names], *command) == []


def test_the_modules_that_are_looked_for_exist(iris: Repo) -> None:
    """Under another name, they would never be found."""
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    names = {*HEAVY, *MODELS, *STORED, "pydantic", "sqlite3", "expmgr.git.process", "expmgr.cli.run", "expmgr.project"}
    subprocess.run([sys.executable, "-c", code, *(names - {"tensorflow", "keras"})], check=True)


def git_processes(repo: Repo, *command: str) -> list[str]:
    """The git commands that a command of expmgr starts, in their order."""
    trace = repo.path / ".git" / "trace"
    trace.unlink(missing_ok=True)
    result = repo.expmgr_process(*command, env={"GIT_TRACE2_EVENT": str(trace)})
    assert result.code == 0, result.stderr
    events = [json.loads(line) for line in trace.read_text().splitlines()]
    return [one["name"] for one in events if one["event"] == "cmd_name" and "/" not in one["sid"]]


def test_list_asks_git_three_times_however_many_variants_there_are(iris: Repo) -> None:
    for name in ("wide", "deep", "narrow"):
        assert iris.expmgr("new", f"iris/{name}").code == 0
        assert git_processes(iris, "list") == ["rev-parse", "for-each-ref", "log"]


def test_a_list_of_checked_records_asks_git_no_more_than_before(team: Team) -> None:
    """Records that the log names are remembered; `list` after `run` reads no log with pydantic either."""
    ann = team.join("ann")
    ok(ann, "new", "iris/wide")
    ran(ann, "iris/wide", 0.95, 0.96)
    assert imported(ann, ["expmgr.log.events", "expmgr.runs.record"], "list") == []
    assert git_processes(ann, "list") == ["rev-parse", "for-each-ref", "log"]


def test_the_table_of_commands_is_right() -> None:
    """Each module adds the commands that the table names, so that a command is found in the module that is loaded for it."""
    for module, names in COMMANDS.items():
        app = make_app(names[0])
        added = [str(one.name) for one in app.registered_commands] + [str(one.name) for one in app.registered_groups]
        assert tuple(added) == names, module


def test_the_overview_is_that_of_the_whole_app(repo: Repo) -> None:
    """It is made of commands without parameters."""
    shown = repo.expmgr("--help").stdout
    assert repo.expmgr("-C", ".", "--help").stdout == shown  # here all commands have their parameters
    assert repo.expmgr() == Result(2, "", shown)
    names = [one for names in COMMANDS.values() for one in names if one not in ("ls", "review")]
    listed = [line.split()[0] for line in shown.partition("Commands:\n")[2].splitlines()]
    assert listed == [*names, "review"]  # a group of commands comes last


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("lst",), 2, "Error: No such command 'lst'. Did you mean 'list', 'ls'?"),
        (("list", "--lmit", "3"), 2, "Error: No such option: --lmit (Possible options: --limit, --md)"),
        (("review", "opn"), 2, "Error: No such command 'opn'. Did you mean 'open'?"),
        (("--nope", "list"), 2, "Error: No such option: --nope"),
        (("-C",), 2, "Error: Option '-C' requires an argument."),
        (("-C", "nowhere", "list"), 1, "Error: cannot work in nowhere: No such file or directory"),
    ],
)
def test_wrong_words_are_answered_as_by_the_whole_app(
    repo: Repo, arguments: tuple[str, ...], code: int, told: str
) -> None:
    result = repo.expmgr(*arguments)
    assert (result.code, result.stdout) == (code, "")
    assert told in result.stderr.splitlines()


@pytest.mark.parametrize("before", [("-C", "below"), ("-Cbelow",), ("--",)], ids=" ".join)
def test_a_command_is_found_behind_options(iris: Repo, before: tuple[str, ...]) -> None:
    (iris.path / "below").mkdir()
    assert iris.expmgr("new", "iris/wide").code == 0
    assert iris.expmgr(*before, "list") == iris.expmgr("list")


def completed(typed: str) -> list[str]:
    """What bash completes `typed` to."""
    words = typed.split(" ")
    env = {"_EXPMGR_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "expmgr"], env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_shell_completes_commands_and_their_options() -> None:
    assert completed("expmgr re") == ["retract", "restore", "review"]
    assert completed("expmgr review op") == ["open"]
    assert completed("expmgr list --") == ["--where", "--sort", "--limit", "--json", "--csv", "--md", "--help"]


def test_a_script_that_imports_git_gets_all_of_gitpython(repo: Repo) -> None:
    """After expmgr has, which needs only a part of it; and before."""
    work = "import git; print(git.Repo('.').head.commit.summary, git.exc.GitError.__name__, git.Git('.').version_info[0] > 1)"
    ours = (
        "from expmgr.git.process import call_git; from pathlib import Path; print(call_git(Path(), ['version']).status)"
    )
    for code, expected in ((f"{ours}; {work}", ["0", "first"]), (f"{work}; {ours}", ["first", "0"])):
        done = subprocess.run([sys.executable, "-c", code], cwd=repo.path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert [line.split()[0] for line in lines] == expected
        assert [line.split()[-2:] for line in lines if "first" in line] == [["GitError", "True"]]


#: Modules come and go while a part of GitPython is imported: in a thread, and at each look at a name in `sys.modules`.
BUSY = """
import sys, threading, types
sys.setswitchinterval(1e-6)
class Name(str):
    def partition(self, separator):
        sys.modules[f"made.beside{len(sys.modules)}"] = types.ModuleType("beside")
        return super().partition(separator)
sys.modules[Name("looked_at")] = types.ModuleType("looked_at")
def import_many():
    while not is_over:
        names = [f"made.part{number}" for number in range(3_000)]
        for name in names:
            sys.modules[name] = types.ModuleType(name)
        for name in names:
            del sys.modules[name]
is_over = False
busy = threading.Thread(target=import_many)
busy.start()
try:
    from expmgr.git.runner import git_runner
    for _ in range(5):
        runner, not_found = git_runner()
finally:
    is_over = True
    busy.join()
print(runner.__module__, not_found.__module__, [name for name in list(sys.modules) if name.split(".")[0] == "git"])
import git
print(git.Repo(".").head.commit.summary, git.remote.Remote.__name__, git.Git is git.cmd.Git)
"""


def test_git_is_found_while_a_thread_imports_many_modules(repo: Repo) -> None:
    """And `import git` afterwards gets the whole of GitPython."""
    done = subprocess.run([sys.executable, "-c", BUSY], cwd=repo.path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["git.cmd git.exc []", "first Remote True"]


def test_scipy_is_imported_in_a_thread_once_git_can_be_asked() -> None:
    """So that no thread imports anything while GitPython is imported in parts."""
    code = """
import sys, threading
class Spy(threading.Thread):
    def start(self):
        print("expmgr.git.process" in sys.modules, [name for name in sys.modules if name.partition(".")[0] == "git"])
        super().start()
        self.join()
threading.Thread = Spy
from expmgr.comparison.statistics import begin_to_import
begin_to_import()
import git
print("scipy.special" in sys.modules, git.Repo.__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["True []", "True Repo"]


def test_without_git_it_says_so(repo: Repo, tmp_path: Path) -> None:
    nothing = tmp_path / "bin"
    nothing.mkdir()
    assert repo.expmgr_process("list", env={"PATH": str(nothing)}) == Result(
        1, "", "Error: git is not on the PATH\nNothing was changed.\nHint: install git 2.36 or newer\n"
    )


BESIDE = """
import sys, threading, types
from expmgr.git.runner import git_runner
sys.setswitchinterval(1e-6)

def load():
    for number in range(100_000):
        sys.modules[f"module_{number}"] = types.ModuleType(f"module_{number}")

thread = threading.Thread(target=load)
thread.start()
while thread.is_alive():
    git_runner()
"""


def test_gitpython_is_imported_beside_other_imports() -> None:
    """`compare` imports scipy in a thread of its own."""
    done = subprocess.run([sys.executable, "-c", BESIDE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_usage_lines_name_each_argument_once(repo: Repo) -> None:
    """`diff [OPTIONS] {VARIANT}...`, and no brackets or dots of ours in those of typer."""
    lines = []
    for name in itertools.chain(*COMMANDS.values()):
        lines += repo.expmgr(name, "--help").stdout.splitlines()[:1]
    group = repo.expmgr("review", "--help").stdout.partition("Commands:\n")[2]
    for line in group.splitlines():
        lines += repo.expmgr("review", line.split()[0], "--help").stdout.splitlines()[:1]
    assert len(lines) > 30
    assert [one for one in lines if "...}" in one or "[[" in one or "...]" in one] == []
    assert "Usage: expmgr diff [OPTIONS] {VARIANT}..." in lines
