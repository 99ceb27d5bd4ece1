"""No password, token or key of a URL or a header is printed or kept, whoever writes the text: git, a store, Python."""

from __future__ import annotations

import glob
import tempfile
from pathlib import Path
from typing import Any

import pytest

from clones import ok
from expmgr.errors import GitFailed
from expmgr.git.process import call_git
from expmgr.redact import redacted
from expmgr.store.backends import UrlStore
from world import Repo

TEXTS = {
    "https://host/x.git?private_token=SECRET": "https://host/x.git?private_token=***",
    "at 'https://host/x.git?private_token=SECRET/': no": "at 'https://host/x.git?private_token=***': no",
    "https://me:SECRET@host:1/x.git": "https://host:1/x.git",
    "https://me:SEC@RET:SECRET@host/x": "https://host/x",
    "https://SECRET@host/x": "https://host/x",
    "https://me:SEC%40RET@host/x": "https://host/x",
    "https%3A%2F%2Fme%3ASECRET%40host%2Fx.git%3Ftoken%3DSECRET%26ref%3Dmain": (
        "https%3A%2F%2Fhost%2Fx.git%3Ftoken%3D***%26ref%3Dmain"
    ),
    "https://h/x.git/info/refs?service=git-upload-pack&t=SECRET": "https://h/x.git/info/refs?service=git-upload-pack&t=***",
    "https://h/?private%5Ftoken=SECRET#access_token=SECRET": "https://h/?private%5Ftoken=***#access_token=***",
    "s3://KEY:SECRET@bucket/p": "s3://bucket/p",
    "https://b.s3.amazonaws.com/k?versionId=1&X-Amz-Credential=SECRET%2F20&X-Amz-Signature=SECRET": (
        "https://b.s3.amazonaws.com/k?versionId=1&X-Amz-Credential=***&X-Amz-Signature=***"
    ),
    "https://a.blob.core.windows.net/c?sv=1&sig=SECRET%3D": "https://a.blob.core.windows.net/c?sv=***&sig=***",
    "to http://127.0.0.1:1/x.git?SECRET": "to http://127.0.0.1:1/x.git?***",
    "'http://h/x.git?SECRET/': no": "'http://h/x.git?***': no",
    "x.git?SECRET": "x.git?***",
    "../x.git?SECRET&ref=main": "../x.git?***&ref=main",
    "https://h/x.git?SECRET&service=git-upload-pack": "https://h/x.git?***&service=git-upload-pack",
    "https://h/x.git?ref=main&SECRET#SECRET": "https://h/x.git?ref=main&***#***",
    "https://h/x.git?SECRET==": "https://h/x.git?***",
    "https://h/x.git?a/b=SECRET?SECRET": "https://h/x.git?a/b=***",
    "https%3A%2F%2Fh%2Fx.git%3FSECRET%26ref%3Dmain": "https%3A%2F%2Fh%2Fx.git%3F***%26ref%3Dmain",
    "https://me:SEC/SECRET@h/x": "https://h/x",
    "'https://me:SEC#SECRET@h/x':": "'https://h/x':",
    "https://SEC/SECRET@h:1/x": "https://h:1/x",
    "https://me:SEC@RET/SECRET'SECRET@h/x": "https://h/x",
    "https%3A%2F%2Fme%3ASEC%2FSECRET%40h%2Fx": "https%3A%2F%2Fh%2Fx",
    "https://SECRET?SECRET@h/x": "https://***?***",
    "https://me:SECRET?a=SECRET@h/x": "https://***?a=***",
    "https://me:SECRET@h/x?a=SECRET@SECRET": "https://h/x?a=***",
    "https://h/x?a=SECRET@SECRET": "https://h/x?a=***",
    "http.extraHeader=Authorization: Bearer SECRET": "http.extraHeader=***",
    "http.https://h/.extraheader=AUTHORIZATION: basic SECRET==": "http.https://h/.extraheader=***",
    "=> Send header: Authorization: Basic SECRET": "=> Send header: Authorization: ***",
    "PRIVATE-TOKEN: SECRET": "PRIVATE-TOKEN: ***",
    "a ghp_0123456789abcdefSECRET0123 b": "a *** b",
    "glpat-0123456789abcdefSECRET": "***",
    "AKIAIOSFODNN7EXAMPLE": "***",
}
AS_THEY_ARE = [
    "git@github.com:me/x.git",
    "expmgr new iris/x --set params.token_count=3; what? key=3 & more",
    "does it fit? a&b=c",
    "data/part-?.csv: no such file, or is it colou?r",
    "https://h/docs/team.md#checkpoints-in-a-store",
    "https://h/x.git/info/refs?service=git-upload-pack",
    "refs/expmgr/log/ann-1234: 3 events",
    "models/iris/wide/seed-0/model.ckpt-200",
]


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_hidden(text: str) -> None:
    assert redacted(text) == TEXTS[text]
    assert redacted(redacted(text)) == redacted(text)
    told = GitFailed(f"a {text}", details=[f"b {text}"], left_alone=f"c {text}", hint=f"d {text}")
    for shown in ("\n".join(told.lines()), str(told), str(told.as_dict())):
        assert "SECRET" not in shown


@pytest.mark.parametrize("text", AS_THEY_ARE)
def test_what_is_left(text: str) -> None:
    assert redacted(text) == text


SHAPES = [
    *("a", "x-", "x-key", "://", "x://", "?a", "%3fa", "%3a%2f%2f", "%40", "a%3d", "&amp;", "?=", "@", "?a@", "#", ";"),
    *(
        "authorization",
        "authorization ",
        "authorization:",
        "extraheader",
        "extraheader ",
        "extraheader=",
        "glpat-",
        "ghp_",
    ),
    *(" ", "'", "\n", "x-a ", "://a?b ", "cookie :"),
]


@pytest.mark.parametrize(
    "before", ["", "x://", "x://a?", "%3a%2f%2f", "extraheader", "authorization", "x.git?", "glpat-"]
)
def test_the_time_grows_with_the_length_alone(before: str) -> None:
    """Time that grows with the square of the length would be minutes here."""
    for shape in SHAPES:
        text = before + shape * (200_000 // len(shape))
        assert len(redacted(text)) <= 3 * len(text) + 100


def test_a_long_word_is_cut_and_shows_no_part_of_a_secret() -> None:
    long = "a" * 100_000
    shown = redacted(f"https://h/{long}?SECRET b https://h/x?{'SECRET' * 10_000} https://{'SECRET' * 10_000}@h/x c")
    assert shown == f"https://h/{'a' * 3990}... b https://h/x?*** https://h/x c"
    assert redacted(shown) == shown
    assert redacted(f"{'a/' * 1_998}glpat-{'SECRET' * 10_000}{long}") == f"{'a/' * 1_998}***"
    assert redacted("a" * 7_000) == "a" * 7_000


REMOTES = [
    "http://127.0.0.1:1/x.git?private_token=SECRET",
    "http://me:SECRET@127.0.0.1:1/x.git",
    "http://SECRET@127.0.0.1:1/x.git?a=1&job_token=SECRET",
    "http://127.0.0.1:1/x.git?SECRET",
]


@pytest.mark.parametrize("url", REMOTES)
def test_a_remote_that_fails(iris: Repo, url: str) -> None:
    ok(iris, "new", "iris/wide")
    iris.git("remote", "add", "origin", url)
    iris.git("config", "http.extraHeader", "Authorization: Bearer SECRET")
    for command in ("push", "pull"):
        failed = iris.expmgr(command, "--json")
        assert failed.code == 1
        assert "127.0.0.1:1" in failed.stderr
        assert "SECRET" not in failed.stdout + failed.stderr
    assert "SECRET" not in call_git(iris.path, ["ls-remote", url]).stderr


def test_a_store(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="cannot be used") as raised:
        UrlStore("nosuch://KEY:SECRET@bucket/p?X-Amz-Signature=SECRET")
    assert "SECRET" not in "\n".join(raised.value.lines())  # type: ignore[attr-defined]
    assert "SECRET" not in UrlStore("memory://KEY:SECRET@bucket/p").name


def test_a_report_of_a_bug(iris: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("https://me:SECRET@host/x?token=SECRET")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("expmgr.project.Project.open", fail)
    told = iris.expmgr("list", "--json", "--where", "https://host/?token=SECRET")
    assert told.code == 70
    (report,) = glob.glob(f"{tmp_path}/expmgr-report-*.txt")
    assert "SECRET" not in told.stdout + told.stderr + Path(report).read_text()
