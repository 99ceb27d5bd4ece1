"""Hostile versions of real files: bytes, values and structure changed as somebody would who wants a reader to fail.

Everything is drawn from a `random.Random`, so hypothesis and atheris make the same mutations.
"""

from __future__ import annotations

import base64
import json
import random
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any


def zipped(text: str) -> str:
    """As a signature has a long field."""
    return f"zlib+base64:{base64.b64encode(zlib.compress(text.encode())).decode()}"


#: What a value of JSON is replaced by.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, 2**64, -(2**70), 10**400, 0.5, 1e308, -1e308, 5e-324,
    float("nan"), float("inf"), "", "0", "1", "nan", "a" * 3000, "\x00", "\x1b[31m", "a\nb\r\u2028", "\ud800", "\u202e",
    "../../x", "/etc/passwd", "-", "--help", "zlib+base64:AAAA", "zlib+base64:eNrtwTEBAAAAwqD1T20ND6AAAAAAAAAAAAAAAA==",
    zipped('{"kind":"\\ud800"}'), zipped('{"kind":"x","a":NaN}'), zipped(f'{{"kind":"x","a":{"9" * 4000}}}'),
    zipped(f'{{"kind":"x","a":{"[" * 900}{"]" * 900}}}'), zipped('{"saved":[],"run_id":{},"expmgr":"\\ud800"}'),
    [], {}, [[]], [None], {"": None}, ["a"] * 500, {"a": 1}, {"format": 2}, [1, [2, [3]]],
)  # fmt: skip
#: What a parser of YAML, TOML, CSV or allowed signers may stumble over.
TOKENS = tuple(
    word.encode("utf-8", "surrogatepass")
    for word in (
        "[", "]", "{", "}", ":", ": ", ",", "- ", "? ", "&a ", "*a", "<<: *a", "!!bool ", "!!int ", "!!float ", "!!binary ",
        "!!set ", "!!omap ", "!!timestamp ", "!!python/object:os.system ", "!x ", "|\n  ", ">\n  ", "'", '"', "#", " #", "\t",
        "%YAML 1.1\n---\n", "%TAG ! x\n---\n", "---\n", "...\n", "\ufeff", "\x00", "\ud800", "\u2028", "\x85", "\r", "~",
        ".inf", "-.inf", ".nan", "1e999", "0x", "0x" + "f" * 500, "0o9", "1_", "-_", "1:30", "9" * 5000, "2001-13-45",
        "2001-12-14t21:59:43.10-05:00", "=", "null", "true", '"\\ud800"', '"\\0"', '"\\x41"', "\\U00ffffff", "[" * 200,
        "{a: " * 100, "- " * 100, "a: &b [*b]\n", "[tool.expmgr]\n", "[[a]]\n", "a.b.c = 1\n", "1979-05-27T07:32:00Z",
        '"""', "'''", "inf", " openpgp ", "ssh-ed25519 ", "AAAA", "cert-authority ", "!*", "*", "é", "\x1b[2J",
        "~nobodyx/",
    )
)  # fmt: skip


def mutated(rnd: random.Random, form: str, seeds: Sequence[bytes]) -> bytes:
    """One of `seeds`, changed a few times; now and then nothing but noise."""
    if rnd.random() < 0.03:
        return rnd.randbytes(rnd.randrange(200))
    content = rnd.choice(seeds)
    ways: list[Callable[[random.Random, bytes], bytes]] = [_bytes]
    if form in ("json", "json-lines"):
        ways = [_json_lines if form == "json-lines" else _json] * 6 + [_bytes, _tokens]
    elif form != "bytes":
        ways = [_tokens, _tokens, _lines, _scalars, _bytes]
    for _ in range(rnd.choice((1, 1, 1, 2, 3, 5))):
        content = rnd.choice(ways)(rnd, content)
    return content[:2_000_000]


def _bytes(rnd: random.Random, content: bytes) -> bytes:
    if not content:
        return rnd.randbytes(3)
    at, what = rnd.randrange(len(content)), rnd.randrange(7)
    if what == 0:
        return content[:at]
    if what == 1:
        return content[:at] + bytes([content[at] ^ (1 << rnd.randrange(8))]) + content[at + 1 :]
    if what == 2:
        return content[:at] + rnd.randbytes(rnd.randrange(1, 9)) + content[at:]
    if what == 3:
        return content[:at] + content[at + rnd.randrange(1, 40) :]
    if what == 4:
        end = at + rnd.randrange(1, 60)
        return content[:end] + content[at:end] * rnd.choice((1, 2, 300)) + content[end:]
    if what == 5:
        return content[:at] + bytes([rnd.choice((0, 0x7F, 0x80, 0xFF))]) * rnd.choice((1, 4, 9, 12)) + content[at + 4 :]
    return content[at:] + content[:at]


def _tokens(rnd: random.Random, content: bytes) -> bytes:
    at = rnd.randrange(len(content) + 1)
    return content[:at] + rnd.choice(TOKENS) + content[at + rnd.choice((0, 0, 1, 5)) :]


def _lines(rnd: random.Random, content: bytes) -> bytes:
    lines = content.split(b"\n")
    at, other = rnd.randrange(len(lines)), rnd.randrange(len(lines))
    what = rnd.randrange(5)
    if what == 0:
        lines[at] = lines[other]
    elif what == 1:
        lines.insert(at, rnd.choice(TOKENS) + lines[other])
    elif what == 2:
        del lines[at]
    elif what == 3:
        lines[at] = b"  " + lines[at]
    else:
        lines[at:at] = [lines[other]] * rnd.choice((2, 50))
    return b"\n".join(lines)


def _scalars(rnd: random.Random, content: bytes) -> bytes:
    """Another value in the place of a word or a number."""
    words = list(re.finditer(rb"[\w.]+", content))
    if not words:
        return content
    word = rnd.choice(words)
    token = rnd.choice((rnd.choice(TOKENS), rnd.choice(words)[0], _text(rnd.choice(VALUES))))
    return content[: word.start()] + token + content[word.end() :]


def _text(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode()


def _json(rnd: random.Random, content: bytes) -> bytes:
    """Another value, key or shape somewhere in it."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return _bytes(rnd, content)
    what = rnd.random()
    if what < 0.04:
        return b"[" * 3000 + content + b"]" * 3000
    if what < 0.08:
        return content.replace(b"{", b'{"format":1,"kind":"x",', 1)  # keys that are there twice
    if what < 0.10:
        return json.dumps(values).encode(rnd.choice(("utf-16", "utf-32", "utf-8-sig")))
    places = list(_places(values))
    if not places:
        return _text(rnd.choice(VALUES))
    holder, key = rnd.choice(places)
    what = rnd.random()
    if what < 0.6:
        holder[key] = _value(rnd, holder[key])
    elif what < 0.75:
        del holder[key]
    elif what < 0.85 and isinstance(holder, dict):
        holder[rnd.choice(("", "x", "\x00", "kind", "format", "../x", "\ud800", "k" * 3000))] = holder[key]
    elif what < 0.92:
        other, another = rnd.choice(places)
        with_it = other.get(another) if isinstance(other, dict) else other[another] if another < len(other) else None
        holder[key] = json.loads(json.dumps(with_it))
    else:
        inner: Any = holder[key]
        for _ in range(rnd.choice((1, 60, 150, 900))):
            inner = [inner]
        holder[key] = inner
    try:
        return json.dumps(values, ensure_ascii=rnd.random() < 0.5).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return content


def _value(rnd: random.Random, old: Any) -> Any:
    if isinstance(old, str) and rnd.random() < 0.3:
        return rnd.choice((f"{old}\x00", f"{old}\n", old.upper(), old[:-1], f"../{old}", f"{old}\u202e", old * 50))
    if isinstance(old, (int, float)) and rnd.random() < 0.3:
        return rnd.choice((-old, old + 1, str(old), [old], 0.5 if abs(old) > 1e300 else old * 1e300))
    return rnd.choice(VALUES)


def _places(values: Any) -> list[tuple[Any, Any]]:
    """Every holder of a value, and the key of it there."""
    found: list[tuple[Any, Any]] = []
    queue = [values]
    while queue:
        one = queue.pop()
        if isinstance(one, (dict, list)):
            keys = list(one) if isinstance(one, dict) else list(range(len(one)))
            found += [(one, key) for key in keys]
            queue += [one[key] for key in keys]
    return found


def _json_lines(rnd: random.Random, content: bytes) -> bytes:
    lines = content.split(b"\n")
    at = rnd.randrange(len(lines))
    if rnd.random() < 0.2:
        return _lines(rnd, content)
    head, brace, body = lines[at].partition(b"{")
    lines[at] = head + _json(rnd, brace + body)
    return b"\n".join(lines)
