"""Hints that errors share."""

from __future__ import annotations

from expmgr.errors import did_you_mean


def test_a_name_that_is_nearly_one_of_those_there_are() -> None:
    names = ["accuracy", "loss", "auc"]
    assert did_you_mean("acuracy", names) == "did you mean accuracy?"
    assert did_you_mean("acuracy", names, "one of ...", typed="metrics.{}".format) == "did you mean metrics.accuracy?"


def test_a_name_like_none_of_them() -> None:
    assert did_you_mean("recall", ["accuracy"]) is None
    assert did_you_mean("recall", ["accuracy"], "it has accuracy") == "it has accuracy"
    assert did_you_mean("recall", []) is None
