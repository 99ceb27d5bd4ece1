"""Every parser of text that somebody else may have written, as a function of bytes: the one list for hypothesis and atheris.

A target may raise `ExpmgrError` and nothing else. What it accepts has to survive a round trip, and the next reader.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expmgr.api.filters import Condition
from expmgr.checkpoints.bundle import NotAnIndex, read_index
from expmgr.checkpoints.model_dir import ModelDir
from expmgr.checkpoints.probe_rows import read_rows, rows_content
from expmgr.checkpoints.rebuild import Known, rebuilt
from expmgr.checkpoints.signature import Signature, read_signature
from expmgr.cli import output
from expmgr.data import csvdata
from expmgr.data.locations import Places, is_url
from expmgr.disk import durable
from expmgr.errors import EnvironmentProblem, ExpmgrError
from expmgr.escape import clean, markdown, moment
from expmgr.guard.judge import judge
from expmgr.launch.environments import interpreter_of
from expmgr.log.events import canonical, parse_event
from expmgr.log.writers import all_writers, writer_id
from expmgr.paths import RunDir, VariantName
from expmgr.render.ci import as_annotations, as_junit
from expmgr.render.review import as_json, as_lines, as_markdown, frozen_files, headline
from expmgr.reviews.report import kept
from expmgr.runs.events import read_events
from expmgr.runs.folding import fold
from expmgr.runs.origin import origin_of, teller_of
from expmgr.runs.record import RunRecord, is_abandoned, record_in
from expmgr.runs.request import read_request
from expmgr.settings import models_root, read_settings, shared_settings
from expmgr.spec.changes import flat
from expmgr.spec.experiment import ExperimentSpec
from expmgr.spec.yaml_file import read_spec, set_values
from expmgr.store.backends import open_store
from expmgr.store.contents import parse_contents
from expmgr.store.fetched import fetched_run
from expmgr.team.validate_record import foreign_record
from expmgr.team.verify_signatures import Signers, is_among
from expmgr.variants.code_digest import reached
from expmgr.variants.code_lookup import check_references
from fuzz import seeds
from memory import at_most
from world import Repo

WRITER = "ann-00000001"
#: Nothing that is read takes so long, or so much, also on a machine that is busy.
MOST_SECONDS = 20.0
MOST_BYTES = 1_500_000_000


class Broken(Exception):
    """An input that a parser did not survive, and why."""


@dataclass(frozen=True)
class Target:
    """One parser. `form` says how its seeds are mutated: json, yaml, toml, lines or bytes."""

    name: str
    form: str
    read: Callable[[bytes, Path, Any], object]
    """Is given the content, an empty folder, and the real files (`seeds.Real`)."""

    def run(self, content: bytes, real: Any) -> bool:
        """Whether `content` was accepted; `Broken` for an error that is not documented, or that has no measure."""
        start, busy = time.perf_counter(), time.process_time()
        with tempfile.TemporaryDirectory(prefix="expmgr-fuzz-", dir=_FAST) as folder:
            try:
                with at_most(MOST_BYTES):
                    self.read(content, Path(folder), real)
                is_accepted = True
            except ExpmgrError as error:
                is_accepted = False
                lines = error.lines()
                if int(error.exit_code) == 70 or sum(map(len, lines)) > 20_000:
                    raise Broken(f"{self.name}: {lines[0][:300]}") from error
                for line in lines:
                    printed(line)
            except RecursionError:
                raise Broken(f"{self.name}: nested too deeply") from None
            except MemoryError:
                raise Broken(f"{self.name}: took more than {MOST_BYTES // 1_000_000} MB") from None
        # On a busy machine time passes that nobody worked; what waits for a program that hangs is seen all the same.
        if time.process_time() - busy > MOST_SECONDS or time.perf_counter() - start > 6 * MOST_SECONDS:
            raise Broken(f"{self.name}: took {time.perf_counter() - start:.1f} s")
        return is_accepted


_FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def printed(text: str) -> None:
    """A terminal and a file can take it."""
    clean(text).encode("utf-8")
    markdown(text).encode("utf-8")


def as_strict_json(value: Any) -> None:
    """It can be printed as JSON by `--json`, and as JSON that every reader takes."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        output.show_json(value)
    out.getvalue().encode("utf-8")
    json.loads(out.getvalue(), parse_constant=lambda word: _raise(Broken(f"--json prints {word}")))


def _raise(error: Exception) -> Any:
    raise error


def same(one: object, two: object, what: str) -> None:
    if one != two:
        raise Broken(f"{what}: {str(one)[:200]} became {str(two)[:200]}")


# Specs.


def _spec(content: bytes, folder: Path, real: Any) -> None:
    spec = read_spec(content, "spec.yaml")
    resolved = spec.resolved()
    as_strict_json(resolved)
    same(ExperimentSpec.model_validate(resolved).resolved(), resolved, "a resolved spec")
    for key, value in flat(resolved).items():
        printed(f"{key} {value}")


def _set(content: bytes, folder: Path, real: Any) -> None:
    """The first line is an assignment, the rest is the spec."""
    line, _, text = content.partition(b"\n")
    assignment = line.decode("utf-8", "replace")
    new = set_values(text, [assignment], "spec.yaml")
    read_spec(new, "spec.yaml")


def _condition(content: bytes, folder: Path, real: Any) -> None:
    condition = Condition.parse(content.decode("utf-8", "replace"))
    for value in (None, 1, 1e308, "x", [1, 2], True):
        condition.holds(value)


def _code(content: bytes, folder: Path, real: Any) -> None:
    """A module that a spec names, as a branch has it."""
    name = VariantName("own", "wide")
    files = {f"{name.folder}/model.py": content}
    paths = [name.spec_path, *files]
    for model, params in (
        ("python, build: 'model:build', params_model: 'model:Params'", "units: 4"),
        ("script, script: model.py", "x: 1"),
    ):
        data = "python, train: 'model:train', eval: 'model:build'" if "build" in model else "script"
        files[name.spec_path] = (
            f"experiment: own\nmodel: {{kind: {model}, params: {{{params}}}}}\ndata: {{kind: {data}, batch_size: 1}}\n"
            "optimizer: null\nloss: null\ntrain: {max_steps: 5}\ncompare: {metric: loss}\n"
        ).encode()
        reached(paths, name, files.get)
        check_references(read_spec(files[name.spec_path], name.spec_path, "own"), name.folder, paths, files.get)


# Events and records.


def _event(content: bytes, folder: Path, real: Any) -> None:
    event = parse_event(content, WRITER)
    again = parse_event(event.content, WRITER)
    same((again.id, again.content), (event.id, event.content), "an event")
    as_strict_json(json.loads(event.content))
    printed(f"{event.title} {event.actor} {moment(event.at)} {event.commits}")
    canonical(event.model_dump(mode="json", exclude_none=True))


def _record(content: bytes, folder: Path, real: Any) -> None:
    record = foreign_record(content, WRITER)
    known = RunRecord.model_validate_json(real.record)
    # What the event that names the record has to say of it, so `pull` holds it against that.
    about = ("run_id", "variant", "commit")
    if any(getattr(record, key) != getattr(known, key) for key in about) or not record.has_ended:
        return
    as_strict_json(record.as_dict())
    printed(repr(record))
    with real.with_record(record.run_id, content) as repo:
        commands = (
            ("list", "--where", "train.max_steps>1", "--sort", "train.max_steps"),
            ("show", record.run_id),
            ("show", "iris/wide"),
            ("compare", "iris/baseline", "iris/wide"),
        )
        command(repo, *commands[zlib.crc32(content) % len(commands)])  # each starts git, and takes its time


def command(repo: Repo, *argv: str) -> str:
    """stdout of a command, which may refuse, and may not fail."""
    done = repo.expmgr(*argv)
    if done.code not in (0, 1, 2, 3, 5):
        raise Broken(f"expmgr {' '.join(argv)} ended with {done.code}: {done.stderr[-500:]}")
    f"{done.stdout}{done.stderr}".encode()
    return done.stdout


def _own_record(content: bytes, folder: Path, real: Any) -> None:
    record = record_in(content, folder / "run.json")
    printed(repr(record))
    is_abandoned(record)
    same(RunRecord.model_validate_json(json.dumps(record.model_dump(mode="json"))).run_id, record.run_id, "a record")


def _run_events(content: bytes, folder: Path, real: Any) -> None:
    """Lines of JSON; the length and CRC before each are right in one file, and as they are given in the other."""
    whole = b"".join(b"%d %08x %s\n" % (len(line), zlib.crc32(line), line) for line in content.split(b"\n"))
    record = RunRecord.model_validate_json(real.record)
    for number, lines in enumerate((content, whole)):
        run_dir = RunDir(folder / str(number))
        run_dir.path.mkdir()
        run_dir.events.write_bytes(lines)
        run_dir.record.write_bytes(real.record)
        events, end = read_events(run_dir)
        if end > len(lines):
            raise Broken("more events than bytes")
        with contextlib.suppress(
            ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError
        ):  # as Records does
            fold(record, events)


def _request(content: bytes, folder: Path, real: Any) -> None:
    RunDir(folder).request.write_bytes(content)
    try:
        read_request(RunDir(folder))
    except ExpmgrError:
        return  # our own process wrote it: what cannot be read is our bug


def _lines_of_json(content: bytes, folder: Path, real: Any) -> None:
    """Files beside records and in the store, of which a broken one counts as none."""
    own = folder / ".git" / "expmgr"
    own.mkdir(parents=True)
    (own / "writer.json").write_bytes(content)
    all_writers(own)
    same(writer_id(own) in all_writers(own), True, "a new writer")
    for name in ("origin.json", "fetched.json"):
        (folder / name).write_bytes(content)
    record = RunRecord.model_validate_json(real.record)
    printed(f"{origin_of(RunDir(folder))} {teller_of(RunDir(folder), record)} {fetched_run(folder)}")


# Checkpoints.


def _manifest(content: bytes, folder: Path, real: Any) -> None:
    variant_dir = folder / "wide"
    path = variant_dir / "seed-0"
    path.mkdir(parents=True)
    (path / "manifest.json").write_bytes(content)
    (variant_dir / "variant.json").write_bytes(content)
    model_dir = ModelDir(path, shown="models/iris/wide/seed-0", variant="iris/wide", seed=0)
    with contextlib.suppress(ExpmgrError):
        model_dir.check_usable()
    manifest = model_dir.read_manifest()
    assert manifest is not None
    for one in manifest.checkpoints:
        printed(f"{one.name} {moment(one.saved_at)} {one.metrics}")
        inside = [(path / name).resolve().parent == path.resolve() for name in one.files]
        same(all(inside), True, "files in the model_dir")
    durable.write_json(path / "manifest.json", manifest.model_dump(mode="json"))
    same(model_dir.read_manifest(), manifest, "a manifest")


def _signature(content: bytes, folder: Path, real: Any) -> None:
    prefix = folder / "model.ckpt-1"
    prefix.with_name("model.ckpt-1.json").write_bytes(content)
    prefix.with_name("model.ckpt-1.index").write_bytes(real.index)
    signature = read_signature(prefix, "models/iris/wide/model.ckpt-1")
    again = Signature.model_validate_json(signature.model_dump_json())
    same(again.model_dump_json(), signature.model_dump_json(), "a signature")
    as_strict_json({key: getattr(signature, key) for key in ("architecture", "layers", "provenance")})
    for judgement in (judge(signature, signature), judge(real.signature, signature), judge(signature, real.signature)):
        printed(json.dumps(judgement.as_dict(), ensure_ascii=True))


def _rebuild(content: bytes, folder: Path, real: Any) -> None:
    """A signature from which a manifest is rebuilt."""
    for name, held in {"json": content, "index": real.index, "data-00000-of-00001": seeds.WEIGHTS}.items():
        (folder / f"model.ckpt-1.{name}").write_bytes(held)
    known = Known(lambda run_id, _: {}.get(run_id), {1: 5}, points={1: {"accuracy": 0.5}}, rows={"eval": "a" * 64},
                  selection={"metric": "accuracy", "split": "eval", "mode": "max"})  # fmt: skip
    made = rebuilt(folder, "models/iris/wide/seed-0", "iris/wide", 0, known)
    as_strict_json([one.as_dict() for one in made.not_taken])
    for line in (*(f"{one.name}: {one.why}" for one in made.not_taken), *made.notes):
        printed(line)
    if not made.manifest.checkpoints:
        raise ExpmgrError("it is not whole")
    durable.write_json(folder / "manifest.json", made.manifest.model_dump(mode="json"))
    model_dir = ModelDir(folder, shown="models/iris/wide/seed-0", variant="iris/wide", seed=0)
    same(model_dir.read_manifest(), made.manifest, "a rebuilt manifest")


def _bundle(content: bytes, folder: Path, real: Any) -> None:
    path = folder / "model.ckpt-1.index"
    path.write_bytes(content)
    try:
        found = read_index(path)
    except NotAnIndex:
        return
    for key, tensor in found.items():
        printed(f"{key} {tensor}")


def _probe_rows(content: bytes, folder: Path, real: Any) -> None:
    path = folder / "probe-0123456789abcdef.npz"
    path.write_bytes(content)
    arrays = read_rows(path)
    if arrays is not None:
        path.write_bytes(rows_content(arrays))
        again = read_rows(path)
        assert again is not None
        same([one.tobytes() for one in again], [one.tobytes() for one in arrays], "rows of a probe")


def _contents(content: bytes, folder: Path, real: Any) -> None:
    try:
        found = parse_contents(content)
    except ValueError:
        return  # which `read_contents` tells as a StoreProblem
    text = json.dumps(found.model_dump(mode="json"), allow_nan=False)
    same(parse_contents(text.encode()), found, "a list in the store")


def _dvc(content: bytes, folder: Path, real: Any) -> None:
    digest = f"{'0' * 32}.dir"
    cache = folder / ".dvc" / "cache" / "files" / "md5" / "00"
    cache.mkdir(parents=True)
    (cache / digest[2:]).write_bytes(content)
    (cache / ("0" * 30)).write_bytes(b"a picture")
    (folder / "images.dvc").write_text(f"outs:\n- md5: {digest}\n  path: images\n")
    Places(repository=folder).kept_by_dvc(folder / "images", "data.files")


# Settings, signers, reviews, tables.


def _settings(content: bytes, folder: Path, real: Any) -> None:
    for name in ("pyproject.toml", "expmgr.toml"):
        with contextlib.suppress(ExpmgrError):
            found = shared_settings(lambda path, name=name: content if path == name else None, "the target branch")
            printed(f"{found!r}")
    (folder / "expmgr.toml").write_bytes(content)
    (folder / "config.toml").write_bytes(content)
    settings = read_settings(folder, folder)
    as_strict_json(settings.model_dump(mode="json"))
    for value in (settings.target, settings.allowed_signers):
        os.path.lexists(folder / Path(value or "."))
    os.path.lexists(models_root(settings, folder))
    if settings.store is not None and not is_url(settings.store):
        open_store(settings.store, folder).is_there()
    for name in settings.environments:
        with contextlib.suppress(EnvironmentProblem):
            interpreter_of(settings.environments, name, folder)
    if settings.data_root is not None:
        os.path.lexists(Places(settings.data_root).path("${data_root}/a", "data.train"))


def _signers(content: bytes, folder: Path, real: Any) -> None:
    signers = Signers(None, content)  # type: ignore[arg-type]  # git is not asked
    for mail, person in signers.persons.items():
        same(signers.persons[person], person, "a person")
        printed(mail)
    for line in content.decode("utf-8", "replace").splitlines()[:20]:
        is_among("ann@example.com", line[:2000])


def _review(content: bytes, folder: Path, real: Any) -> None:
    id_ = json.loads(real.review)["id"]
    frozen = kept(content, id_)
    if not frozen:
        raise ExpmgrError("no review")
    numbers = ("verdict", "sentence", "notes", "forest", "checks", "opinions", "evidence")
    found = {**json.loads(real.review), "comments": [], **{key: frozen[key] for key in numbers if key in frozen}}
    for line in (headline(found), *as_lines(found), *as_lines(found, everything=True)):
        printed(line)
    for text in (as_markdown(found), as_junit([found]), *as_annotations([found])):
        text.encode("utf-8")
    as_json(found)
    frozen_files(found)
    as_strict_json(found)


def _csv(content: bytes, folder: Path, real: Any) -> None:
    table = csvdata.read_table(content, "data.csv")
    for column in table.columns[:20]:
        csvdata.is_numeric(table, column)
        csvdata.distinct(table, column)
    spec = read_spec(
        real.spec.replace(b"label: species", b"label: " + json.dumps(table.columns[-1]).encode()), "s.yaml"
    )
    found = csvdata.dataset(spec.data, {"train": table, "eval": table}, is_classifier=True)
    printed(repr(found)[:1000])


TARGETS = {
    one.name: one
    for one in (
        Target("spec", "yaml", _spec),
        Target("set", "yaml", _set),
        Target("condition", "yaml", _condition),
        Target("code", "lines", _code),
        Target("event", "json", _event),
        Target("record", "json", _record),
        Target("own-record", "json", _own_record),
        Target("run-events", "json-lines", _run_events),
        Target("request", "json", _request),
        Target("small-files", "json", _lines_of_json),
        Target("manifest", "json", _manifest),
        Target("signature", "json", _signature),
        Target("rebuild", "json", _rebuild),
        Target("bundle", "bytes", _bundle),
        Target("probe-rows", "bytes", _probe_rows),
        Target("contents", "json", _contents),
        Target("dvc", "json", _dvc),
        Target("settings", "toml", _settings),
        Target("signers", "lines", _signers),
        Target("review", "json", _review),
        Target("csv", "lines", _csv),
    )
}
