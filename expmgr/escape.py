"""Makes text from other people safe to print: names, notes and comments, also in Markdown."""

from __future__ import annotations

import html
import re

# What a terminal would act on: C0 and C1 control characters, breaks of lines and paragraphs that are none of ours, and the
# marks that turn text around. (U+200C and U+200D are letters' joints in many scripts.) Halves of surrogate pairs cannot be
# printed at all; git's names of files have them for bytes that are not UTF-8.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
#: What UTF-8 cannot hold: Python's stand-in for a byte that is not UTF-8, or half of a character of another encoding.
SURROGATE = re.compile("[\ud800-\udfff]")
_TICKS = re.compile("`+")


def is_text(text: str) -> bool:
    """Whether `text` consists of characters, so that UTF-8 can hold it."""
    return text.isascii() or not SURROGATE.search(text)


def clean(text: str) -> str:
    """`text` with nothing in it that a terminal would act on."""
    return CONTROL.sub("\ufffd", text)


def moment(at: float) -> str:
    """Seconds since 1970 as date and time, UTC: the same text for everybody, and the clock of the ids of runs."""
    from datetime import datetime, timezone

    return f"{datetime.fromtimestamp(at, timezone.utc):%Y-%m-%d %H:%M} UTC"


def one_line(text: str) -> str:
    """`text` on a line: what a cell of a table takes."""
    return " ".join(text.split())


def markdown(text: str) -> str:
    """`text` on a line of Markdown that is read as plain words: no markup, no HTML, no mention, no reference to an issue."""
    words = html.escape(one_line(clean(text)), quote=False)
    words = re.sub(r"([\\`*_{}\[\]|~$])", r"\\\1", words)
    # A list, heading or rule begins a line; @name and #1 notify people and link to what is not meant.
    words = re.sub(r"^([-+#](?!\d)|[>=])", r"\\\1", words)
    words = re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", words)
    words = re.sub(r"(?<!&)#(?=\d)", "&#35;", words)  # `org/repo#12` too
    words = re.sub(r"\b(GH)-(?=\d)", r"\1&#45;", words, flags=re.IGNORECASE)
    return re.sub(r"(?<!\w)@(?=\w)", "@<!-- -->", words)


def fenced(text: str) -> str:
    """`text` of several lines as a Markdown block in which nothing is markup."""
    words = clean(text).strip("\n")
    fence = "`" * max([3, *(len(found[0]) + 1 for found in _TICKS.finditer(words))])
    return f"{fence}text\n{words}\n{fence}"
