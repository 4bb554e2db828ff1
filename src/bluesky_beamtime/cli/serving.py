"""``beamtime serve`` and ``beamtime push``."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from bluesky_beamtime.cli import tables
from bluesky_beamtime.errors import MissingExtraError


def serve(
    files: Sequence[Path],
    *,
    host: str,
    port: int,
    api_key: str | None,
    public: bool,
    readable: Sequence[Path],
) -> None:
    """Serve beamtimes until the process is told to stop."""
    try:
        from bluesky_beamtime.serving.server import BeamtimeServer
    except ImportError as error:
        package = error.name or "tiled"
        raise MissingExtraError("beamtime serve", package, "serve") from error

    server = BeamtimeServer(
        files,
        host=host,
        port=port,
        api_key=api_key,
        public=public,
        readable=readable,
    )
    console = tables.console()
    if public:
        console.print(
            "Warning: --public lets everybody read who can reach this address.",
            style="bold yellow",
        )
    if not server.loopback:
        console.print(
            f"Warning: {host} can be reached from other machines, and what is sent is "
            "not encrypted: put a proxy with TLS in front, or use a tunnel (ssh -L).",
            style="yellow",
        )
    # Each on a line of its own, whole, so that terminals make links of them.
    console.print("browser:", soft_wrap=True)
    console.print(f"  {server.url}", soft_wrap=True)
    console.print("Python:")
    console.print(f'  tiled.client.from_uri("{server.api_url}")', soft_wrap=True)
    console.print("Ctrl-C ends it.", style="dim")
    signal.signal(signal.SIGTERM, lambda _signal, _frame: server.stop())
    server.run()


def push(file: Path, url: str, *, runs: Sequence[str], api_key: str | None) -> bool:
    """Replay runs into a server of Tiled; returns whether all of them are there."""
    try:
        import bluesky_tiled_plugins  # noqa: F401  # pyright: ignore[reportUnusedImport]  # asked for by name

        from bluesky_beamtime.serving import push as pushing
    except ImportError as error:
        package = error.name or "tiled"
        raise MissingExtraError("beamtime push", package, "serve") from error

    from bluesky_beamtime.beamtime import Beamtime
    from bluesky_beamtime.cli.listing import find_run

    with Beamtime(file, mode="r") as beamtime:
        chosen = [find_run(beamtime, name) for name in runs] or list(beamtime)[::-1]
        client = pushing.connect(url, api_key)
        with tables.progress("pushing", len(chosen)) as advance:
            report = pushing.push(chosen, client, progress=lambda _: advance())
    console = tables.console()
    console.print(
        f"{len(report.pushed)} pushed, {len(report.present)} were there already"
        + (f", {len(report.unfinished)} still going on" if report.unfinished else "")
    )
    for uid, reason in report.failed.items():
        console.print(f"{uid[:8]} failed: {reason}", style="red")
    return report.ok
