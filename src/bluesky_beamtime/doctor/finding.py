"""What a look found: how grave, what, and the command that mends it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Level = Literal["well", "advice", "trouble"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """What was looked at: ``space``, ``clock``."""
    level: Level
    """``well``; ``advice`` if it could be better; ``trouble`` if data or time are at
    stake."""
    what: str
    """What was seen."""
    command: str = ""
    """What mends it, to be typed into a shell."""


@dataclass(slots=True)
class Report:
    """Everything that was looked at."""

    findings: list[Finding] = field(default_factory=list[Finding])

    @property
    def ok(self) -> bool:
        """Whether there is no trouble."""
        return not any(finding.level == "trouble" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"ok": self.ok, "findings": [asdict(one) for one in self.findings]}
