"""Pages whose commands are typed: `python tests/typed.py docs/tutorial.md` writes what each prints below it.

What differs from time to time and place to place (ids, times, speeds, low digits) is compared without its value.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

#: The model_dir that a page finds beside its folder, as `old_model`.
ESTIMATOR = Path(__file__).parent / "data" / "estimator_iris"
_BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
_VARYING = (
    (re.compile(r"\d{8}-\d{9}-[0-9a-f]{6}"), "<run>"),
    (re.compile(r"/\S*old_model"), "<old_model>"),
    (re.compile(r"events\.out\.tfevents\.\S+"), "<events>"),
    (re.compile(r"probe-[0-9a-f]{16}"), "<probe>"),
    (re.compile(r"index [0-9a-f]{7,}\.\.[0-9a-f]{7,}"), "<index>"),
    (re.compile(r"\b[0-9a-f]{8,40}\b"), "<id>"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?"), "<time>"),
    (re.compile(r"-?\d+\.\d+([eE]-?\d+)?"), "<number>"),
    (re.compile(r"(tensorflow|keras|python) \S+"), r"\1 <version>"),
    (re.compile(r"by +\S+ on \S+"), "by <user>"),
    (re.compile(r"[ \t]+"), " "),
)
_PROGRESS = re.compile(r".* seed \d+: step [\d,]+ of ")


def commands(text: str) -> list[tuple[str, int, list[str]]]:
    """Each line after `$`, the exit code that the page names, and what stands below it."""
    found: list[tuple[str, int, list[str]]] = []
    for block in _BLOCK.findall(text):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], int(line.partition("# exit ")[2] or 0), []))
            else:
                found[-1][2].append(line)
    return found


def typed(line: str, folder: Path, environ: Mapping[str, str]) -> tuple[int, list[str]]:
    """The exit code of `line` in a shell in `folder`, and what it printed, but for progress."""
    shell = {**environ, "PATH": f"{Path(sys.executable).parent}:{environ['PATH']}", "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=shell, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    lines = done.stdout.decode().splitlines()
    return done.returncode, [line.rstrip() for line in lines if not _PROGRESS.match(line)]


def settled(lines: list[str]) -> list[str]:
    """`lines` without the values that differ from time to time."""
    kept = []
    for line in lines:
        for pattern, word in _VARYING:
            line = pattern.sub(word, line)
        kept.append(re.sub(r"-{2,}|─+", "-", line).strip())
    return [line for line in kept if line]


def _rewrite(page: Path) -> None:
    from world import sealed

    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as folder:
        Path(home, ".gitconfig").write_text(
            "[user]\n\tname = Ann Lee\n\temail = ann@example.org\n[init]\n\tdefaultBranch = main\n", encoding="utf-8"
        )
        environ = {**sealed(Path(home), os.environ), "COLUMNS": "110", "USER": "ann", "LOGNAME": "ann"}
        Path(folder, "iris").mkdir()
        shutil.copytree(ESTIMATOR, Path(folder, "old_model"))

        def block(match: re.Match[str]) -> str:
            lines = []
            for line, _, _ in commands(match[0]):
                code, told = typed(line, Path(folder, "iris"), environ)
                print(f"{code} {line}")
                lines += [f"$ {line}", *told]
            return "```console\n" + "\n".join(lines) + "\n```"

        page.write_text(_BLOCK.sub(block, text), encoding="utf-8")


if __name__ == "__main__":
    _rewrite(Path(sys.argv[1]))
