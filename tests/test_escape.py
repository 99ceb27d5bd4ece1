"""What people write, as plain words of Markdown."""

from __future__ import annotations

import pytest

from expmgr.escape import markdown


@pytest.mark.parametrize("text", ["0.9467", "-0.0933", "+0.0067", "10 of 12", "a.b", "3.", "1.5 x"])
def test_a_number_is_a_number(text: str) -> None:
    """A backslash before a digit would be shown."""
    assert markdown(text).replace("\\.", ".") == text
    assert "\\" not in markdown(text) or text == "3."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a", "\\- a"), ("---", "\\---"), ("+ a", "\\+ a"), ("1. a", "1\\. a"), ("12) a", "12\\) a"),
        ("> a", "&gt; a"), ("===", "\\==="), ("# a", "\\# a"), ("#1", "&#35;1"), ("org/repo#12", "org/repo&#35;12"),
        ("GH-3", "GH&#45;3"), ("@all", "@<!-- -->all"),
        ("a *b* _c_ `d` [e](f) <g>", "a \\*b\\* \\_c\\_ \\`d\\` \\[e\\](f) &lt;g&gt;"),
    ],
)  # fmt: skip
def test_nothing_is_markup(text: str, said: str) -> None:
    assert markdown(text) == said
