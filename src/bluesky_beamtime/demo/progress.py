"""One progress bar for a scan, and one for whatever it waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


class ScanProgress:
    """Shows how far a run is, from its documents.

    Subscribe it to a RunEngine, and give :meth:`watch` to a ``ProgressBarManager``.

    Parameters
    ----------
    console
        Where to draw. If it is no terminal nothing moves, and each run leaves a line.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.RLock()
        self._progress: Progress | None = None
        self._run: TaskID | None = None
        self._primary: set[str] = set()
        self._announced: dict[str, int] = {}

    # -------------------------------------------------------------------- documents

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take a document, in the thread of the RunEngine."""
        with self._lock:
            if name == "start":
                self._begin(doc)
            elif self._progress is None or self._run is None:
                return
            elif name == "descriptor":
                if doc["name"] == "primary":
                    self._primary.add(doc["uid"])
            elif name == "event":
                if doc["descriptor"] in self._primary:
                    self._progress.update(self._run, completed=doc["seq_num"])
            elif name == "stream_datum":
                self._announce(doc)
            elif name == "stop":
                self.close()

    def _begin(self, start: Mapping[str, Any]) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeElapsedColumn as Elapsed

        self.close()
        self._progress = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=34),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            Elapsed(),
            console=self._console,
        )
        self._progress.start()
        title = f"scan {start.get('scan_id', '')} {start.get('plan_name', '')}"
        self._run = self._progress.add_task(
            title, total=start.get("num_points"), unit="points"
        )

    def _announce(self, doc: Mapping[str, Any]) -> None:
        """Follow a fly scan, which is as far as its slowest detector."""
        if doc["descriptor"] not in self._primary or self._progress is None:
            return
        announced = self._announced
        announced[doc["stream_resource"]] = doc["indices"]["stop"]
        task = self._progress.tasks[0]
        furthest = max(task.completed, min(announced.values()))
        self._progress.update(task.id, completed=furthest)

    def close(self) -> None:
        """Leave the bar as it is and draw no more; may be called again."""
        with self._lock:
            if self._progress is not None:
                self._progress.stop()
            self._progress = self._run = None
            self._primary.clear()
            self._announced.clear()

    # --------------------------------------------------------------------- statuses

    def watch(self, statuses: Iterable[Any]) -> _StatusBars:
        """Show what the RunEngine waits for; for a ``ProgressBarManager``."""
        return _StatusBars(self, statuses)

    def _show(self, tasks: dict[str, TaskID], update: Mapping[str, Any]) -> None:
        """Draw one update of one status, from whichever thread it comes."""
        name = str(update.get("name") or "waiting")
        unit = str(update.get("unit") or "")
        try:
            first = float(update["initial"])
            total = abs(float(update["target"]) - first)
            completed = abs(float(update["current"]) - first)
        except (KeyError, TypeError):
            # A status that counts nothing has no bar.
            return
        with self._lock:
            if self._progress is None:
                return
            if name not in tasks:
                tasks[name] = self._progress.add_task(f"  {name}", unit=unit)
            self._progress.update(tasks[name], total=total, completed=completed)

    def _hide(self, tasks: dict[str, TaskID]) -> None:
        with self._lock:
            for task in tasks.values():
                if self._progress is not None and task in self._progress.task_ids:
                    self._progress.remove_task(task)
            tasks.clear()


class _StatusBars:
    """The bars of the statuses that are waited for, in the shape bluesky expects."""

    def __init__(self, progress: ScanProgress, statuses: Iterable[Any]) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._done = False
        self._since = time.monotonic()
        for status in statuses:
            if hasattr(status, "watch") and not status.done:
                status.watch(self._update)

    def _update(self, **update: Any) -> None:
        # What is over at once would only flicker.
        if not self._done and time.monotonic() - self._since > 0.2:
            self._progress._show(self._tasks, update)  # pyright: ignore  # one thing in two classes

    def clear(self) -> None:
        """Take the bars away."""
        self._done = True
        self._progress._hide(self._tasks)  # pyright: ignore  # one thing in two classes
