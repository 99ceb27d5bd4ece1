"""Hides passwords, tokens and keys in URLs and headers, before a text is printed or kept."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "***"

#: Values in the query of a URL that open nothing. Every other value is hidden: hosts call a token what they like.
_HARMLESS = (
    "service|ref|branch|tag|rev|version|versionid|generation|region|format|raw|page|per_page|dl|download|endpoint_url"
)
_WORD = re.compile(r"\S+")
#: No path and no URL is longer. Of a longer word the beginning is shown.
_MOST_CHARS = 8_000
_STOP = r"\s'\"<>`"
_SCHEME = re.compile(r"://|%3a%2f%2f", re.IGNORECASE)
_ENCODED_AT = "%40"
_AUTHORITY = re.compile(r"[^/?#]*")
#: A name or a value alone in a query, with the padding of base64. No pattern here scans a character more than a few times.
_ALONE = re.compile(rf"([?&;#](?:amp;)?)(?!amp;)[^=?&;#{_STOP}]+=*(?=[?&;#{_STOP}]|$)")
_QUERY = re.compile(rf"([?&;#](?:amp;)?(?!(?:{_HARMLESS})=)[\w.\[\]%~-]+=)[^&;#{_STOP}]+", re.IGNORECASE)
_QUERY_OF_URL = re.compile(rf"([?&;#](?:amp;)?(?!(?:{_HARMLESS})=)[^=?&;#{_STOP}]*=)[^&;#{_STOP}]+", re.IGNORECASE)
_ENCODED_QUERY = re.compile(
    rf"((?:%3f|%26|%23|%3b)(?!(?:{_HARMLESS})%3d)(?:(?!%3d|%26|%3f|%23|%3b)[\w.%~-])+%3d)(?:(?!%26|%23)[^&;#{_STOP}])+",
    re.IGNORECASE,
)
_ENCODED_ALONE = re.compile(
    rf"(%3f|%26|%23|%3b)(?:(?!%3d|%26|%3f|%23|%3b)[^=?&;#{_STOP}])+(?:%3d)*(?=%26|%3f|%23|%3b|[?&;#{_STOP}]|$)",
    re.IGNORECASE,
)
#: Headers that carry a secret, also as git's setting `http.<url>.extraHeader`.
_EXTRA_HEADER = re.compile(r"(extraheader['\"]?\s*(?:[=:]\s*)?)['\"]?[^\s=:'\"][^'\"\n]*", re.IGNORECASE)
_HEADER = re.compile(
    r"\b((?:proxy-)?authorization|(?:set-)?cookie|(?:private|job|deploy|access|auth)-token|x-[\w-]{0,60}?(?:token|key|auth)[\w-]{0,60})"
    r"(\s*[:=]\s*)[^'\"\n]+",
    re.IGNORECASE,
)
#: Keys that are known by their form: GitHub, GitLab, AWS.
_KEYS = re.compile(
    r"\b(?:gh[pousr]_\w{16,}|github_pat_\w{16,}|gl(?:pat|ptt|dt|rt|cbt)-[\w.-]{16,}|A(?:KIA|SIA)[0-9A-Z]{16})\b"
)


def redacted(text: str) -> str:
    """`text` with every password, token and key hidden that it has in a URL, in a header, or in a form that is known.

    Takes time in proportion to the length of `text`. The rest of a word that no path or URL is as long as is left out.
    """
    text = _WORD.sub(lambda found: _short(_of_word(found[0])), _KEYS.sub(HIDDEN, text))
    return _HEADER.sub(rf"\1\2{HIDDEN}", _EXTRA_HEADER.sub(rf"\1{HIDDEN}", text))


def _short(word: str) -> str:
    return word if len(word) <= _MOST_CHARS else f"{word[: _MOST_CHARS // 2]}..."


def _of_word(word: str) -> str:
    scheme = _SCHEME.search(word)
    if scheme is not None:
        return word[: scheme.end()] + _of_url(word[scheme.end() :], is_encoded=scheme[0] != "://")
    if "?" not in word:
        return word
    start = word.find(".git?") + len(".git")
    if start >= len(".git"):  # a URL that git, or a person, wrote without its beginning
        return word[:start] + _QUERY_OF_URL.sub(rf"\1{HIDDEN}", _ALONE.sub(rf"\1{HIDDEN}", word[start:]))
    return _QUERY.sub(rf"\1{HIDDEN}", word)


def _of_url(text: str, *, is_encoded: bool) -> str:
    """What follows `://`, without the user and with its query hidden. A password may have a / or a # in it, so the user goes
    up to the last @. `git@` of SSH goes too: nobody misses it."""
    path, mark, query = text.partition("?")
    query = _ALONE.sub(rf"\1{HIDDEN}", mark + query)
    shown = _QUERY_OF_URL.sub(rf"\1{HIDDEN}", path + query)
    shown = _ENCODED_QUERY.sub(rf"\1{HIDDEN}", _hide_alone(shown) if is_encoded else shown)
    at = shown.rfind("@")
    if is_encoded:
        encoded = shown.rfind(_ENCODED_AT)
        at = max(at, encoded + len(_ENCODED_AT) - 1 if encoded >= 0 else -1)
    if at >= 0:
        return shown[at + 1 :]
    authority = _AUTHORITY.match(shown)
    assert authority is not None
    if "@" in text and (":" in authority[0] or shown[authority.end() : authority.end() + 1] != "/"):
        return HIDDEN + shown[authority.end() :]  # what looks like a query may be of a password
    return shown


def _hide_alone(text: str) -> str:
    start = text.lower().find("%3f")
    return text if start < 0 else text[:start] + _ENCODED_ALONE.sub(rf"\1{HIDDEN}", text[start:])


def redacted_values(value: Any) -> Any:
    """A JSON value with every text in it `redacted`, keys excepted."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {key: redacted_values(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [redacted_values(one) for one in value]
    return value
