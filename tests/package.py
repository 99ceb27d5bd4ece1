"""Are the sdist and the wheel in a folder complete, and is nothing else in them? `make package` asks.

Complete is what git has: every file of `expmgr/` and of `experiments/` (as `expmgr/examples/`) in the wheel, every file but
those of the CI in the sdist, with the same bytes.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]
#: Files of git that are for its host alone.
_OF_THE_CI = (".ci/", ".github/", ".gitlab")
#: What a build writes.
_OF_A_WHEEL = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
_OF_AN_SDIST = frozenset({"PKG-INFO"})
_REQUIRED = re.compile(r"^Requires-Dist: (?P<name>[\w.-]+)(?P<rest>.*)$", re.MULTILINE)


def tracked(root: Path = ROOT) -> dict[str, bytes]:
    """The files of git below `root`, as they are in the folder."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True).stdout
    paths = [name.decode() for name in listed.split(b"\0") if name]
    return {path: (root / path).read_bytes() for path in paths if (root / path).is_file()}


def of_wheel(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of git that a wheel holds, under their names in it."""
    found = {path: content for path, content in files.items() if path.startswith("expmgr/")}
    examples = {path: content for path, content in files.items() if path.startswith("experiments/")}
    return found | {f"expmgr/examples/{path.removeprefix('experiments/')}": one for path, one in examples.items()}


def in_wheel(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {one.filename: archive.read(one) for one in archive.infolist() if not one.is_dir()}


def in_sdist(sdist: Path) -> dict[str, bytes]:
    """Without the folder that all of it is in."""
    found = {}
    with tarfile.open(sdist) as archive:
        for one in archive.getmembers():
            file = archive.extractfile(one)
            if file is not None:
                found[str(PurePosixPath(*PurePosixPath(one.name).parts[1:]))] = file.read()
    return found


def is_current(wheel: Path, files: Mapping[str, bytes]) -> bool:
    """Whether a wheel was built from `files`: the project's own settings are told by its version and requirements alone."""
    try:
        found = in_wheel(wheel)
    except (OSError, zipfile.BadZipFile):
        return False
    settings = ROOT / "pyproject.toml"
    return settings.stat().st_mtime <= wheel.stat().st_mtime and not [*_differences(of_wheel(files), _package(found))]


def _package(found: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in found.items() if ".dist-info/" not in name}


def _differences(wanted: Mapping[str, bytes], found: Mapping[str, bytes]) -> Iterator[str]:
    yield from (f"lacks {name}" for name in sorted(wanted.keys() - found.keys()))
    yield from (f"has {name}, which git has not" for name in sorted(found.keys() - wanted.keys()))
    both = sorted(wanted.keys() & found.keys())
    yield from (f"has another {name} than the folder" for name in both if wanted[name] != found[name])


def wheel_problems(wheel: Path, files: Mapping[str, bytes]) -> Iterator[str]:
    found = in_wheel(wheel)
    yield from _differences(of_wheel(files), _package(found))
    about = {name.split("/", 1)[1]: content for name, content in found.items() if ".dist-info/" in name}
    yield from (f"lacks {name} beside the package" for name in sorted(set(_OF_A_WHEEL) - about.keys()))
    yield from (f"has {name} beside the package" for name in sorted(about.keys() - set(_OF_A_WHEEL)))
    if about.get("licenses/LICENSE") != files["LICENSE"]:
        yield "has another licence than the project"
    for one in _REQUIRED.finditer(about.get("METADATA", b"").decode()):
        if "extra ==" not in one["rest"] and one["name"].startswith(("tensorflow", "keras", "tf")):
            yield f"requires {one['name']}, which is for an extra"


def sdist_problems(sdist: Path, files: Mapping[str, bytes]) -> Iterator[str]:
    wanted = {path: content for path, content in files.items() if not path.startswith(_OF_THE_CI)}
    found = {name: content for name, content in in_sdist(sdist).items() if name not in _OF_AN_SDIST}
    yield from _differences(wanted, found)


def problems(folder: Path, files: Mapping[str, bytes]) -> Iterator[str]:
    """A line each of what is wrong with the one sdist and the one wheel in `folder`."""
    for pattern, ask in (("*.tar.gz", sdist_problems), ("*.whl", wheel_problems)):
        paths = sorted(folder.glob(pattern))
        if len(paths) != 1:
            yield f"{folder} has {len(paths)} files {pattern}, and should have one"
        for path in paths:
            yield from (f"{path.name} {line}" for line in ask(path, files))


def main(folder: str) -> int:
    files = tracked()
    lines = list(problems(Path(folder), files))
    print("\n".join(lines) or f"{folder}: sdist and wheel hold the {len(files)} files of git that they should")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
