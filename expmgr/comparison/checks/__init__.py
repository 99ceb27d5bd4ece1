"""Whether a comparison makes sense."""

from expmgr.comparison.checks.table import CHECKS, OF_ONE, CheckKind, checks_of, worst

__all__ = ["CHECKS", "OF_ONE", "CheckKind", "checks_of", "worst"]
