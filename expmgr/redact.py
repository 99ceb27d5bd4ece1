"""Hides passwords, tokens and keys in URLs and headers, before a text is printed or kept."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "***"

#: Values in the query of a URL that open nothing. Every other value is hidden: hosts call a token what they like.
_HARMLESS = (
    "service|ref|branch|tag|rev|version|versionid|generation|region|format|raw|page|per_page|dl|download|endpoint_url"
)
_URL = re.compile(r"\S*(?:://|\?|%3a%2f%2f)\S+", re.IGNORECASE)
_STOP = r"\s'\"<>`"
#: `user:password@` and `token@`, up to the last @ before the path. `git@` of SSH goes too: nobody misses it.
_USER = re.compile(rf"(?<=://)[^/?#{_STOP}]*@")
_ENCODED_USER = re.compile(rf"(?<=%3a%2f%2f)(?:(?!%2f)[^/?#{_STOP}])*?%40", re.IGNORECASE)
_QUERY = re.compile(rf"([?&;#](?:amp;)?(?!(?:{_HARMLESS})=)[\w.\[\]%~-]+=)[^&;#{_STOP}]+", re.IGNORECASE)
_ENCODED_QUERY = re.compile(
    rf"((?:%3f|%26|%23|%3b)(?!(?:{_HARMLESS})%3d)(?:(?!%3d|%26)[\w.%~-])+%3d)(?:(?!%26|%23)[^&;#{_STOP}])+",
    re.IGNORECASE,
)
#: Headers that carry a secret, also as git's setting `http.<url>.extraHeader`.
_EXTRA_HEADER = re.compile(r"(extraheader['\"]?\s*[=:]?\s*)['\"]?[^\s=:'\"][^'\"\n]*", re.IGNORECASE)
_HEADER = re.compile(
    r"\b((?:proxy-)?authorization|(?:set-)?cookie|(?:private|job|deploy|access|auth)-token|x-[\w-]*(?:token|key|auth)[\w-]*)"
    r"(\s*[:=]\s*)[^'\"\n]+",
    re.IGNORECASE,
)
#: Keys that are known by their form: GitHub, GitLab, AWS.
_KEYS = re.compile(
    r"\b(?:gh[pousr]_\w{16,}|github_pat_\w{16,}|gl(?:pat|ptt|dt|rt|cbt)-[\w.-]{16,}|A(?:KIA|SIA)[0-9A-Z]{16})\b"
)


def redacted(text: str) -> str:
    """`text` with every password, token and key hidden that it has in a URL, in a header, or in a form that is known."""
    text = _URL.sub(lambda found: _of_url(found[0]), text)
    text = _HEADER.sub(rf"\1\2{HIDDEN}", _EXTRA_HEADER.sub(rf"\1{HIDDEN}", text))
    return _KEYS.sub(HIDDEN, text)


def _of_url(text: str) -> str:
    text = _ENCODED_USER.sub("", _USER.sub("", text))
    return _ENCODED_QUERY.sub(rf"\1{HIDDEN}", _QUERY.sub(rf"\1{HIDDEN}", text))


def redacted_values(value: Any) -> Any:
    """A JSON value with every text in it `redacted`, keys excepted."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {key: redacted_values(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [redacted_values(one) for one in value]
    return value
