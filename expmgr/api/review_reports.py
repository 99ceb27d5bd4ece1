"""Reviews as a notebook shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ReviewReport:
    """One review, with its evidence as it is now. `as_dict()` is what `expmgr review show --json` prints."""

    report: Mapping[str, Any]
    """Everything that is known of it: `docs/reference/review.md` explains each key."""

    @property
    def id(self) -> str:
        return str(self.report["id"])

    @property
    def candidate(self) -> str:
        """The variant that is to be merged."""
        return str(self.report["candidate"])

    @property
    def baseline(self) -> str:
        """The variant that it is compared with."""
        return str(self.report["baseline"])

    @property
    def state(self) -> str:
        """`open`, `approved`, `merged` or `closed`."""
        return str(self.report["state"])

    @property
    def verdict(self) -> str | None:
        """What the numbers say: "better", "inconclusive" and so on; None where there is no verdict."""
        verdict = self.report["verdict"]
        return None if verdict is None else str(verdict)

    @property
    def missing(self) -> Sequence[str]:
        """What a merge still needs, a sentence each."""
        return [str(one["told"]) for one in self.report["missing"]]

    def as_dict(self) -> dict[str, Any]:
        return dict(self.report)

    def __repr__(self) -> str:
        from expmgr.render.review import headline

        return f"<{headline(self.report)}>"

    def _repr_markdown_(self) -> str:
        from expmgr.render.review import as_markdown

        return as_markdown(self.report)


@dataclass(frozen=True)
class ReviewReports:
    """Some reviews, the oldest first. `as_dict()` is what `expmgr review list --json` prints."""

    reviews: Sequence[ReviewReport]

    def as_dict(self) -> dict[str, Any]:
        return {"format": 1, "reviews": [one.as_dict() for one in self.reviews]}

    def __iter__(self) -> Iterator[ReviewReport]:
        return iter(self.reviews)

    def __len__(self) -> int:
        return len(self.reviews)

    def __getitem__(self, number: int) -> ReviewReport:
        return self.reviews[number]

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.reviews)) or "no review"
