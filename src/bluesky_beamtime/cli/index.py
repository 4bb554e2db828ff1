"""``beamtime index``: the runs of many beamtimes, one search."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bluesky_beamtime.cli.arguments import (
    AsJson,
    Limit,
    OfPlan,
    OfSample,
    Since,
    Until,
    WithTags,
    WithText,
)

if TYPE_CHECKING:
    from bluesky_beamtime.database import IndexedRun

index = typer.Typer(
    name="index",
    no_args_is_help=True,
    help="Find the runs of many beamtimes, also of those whose disk is absent.",
)

_TABLE_LIMIT = 25

IndexFile = Annotated[
    Path, typer.Argument(metavar="INDEX", help="File of the index; made if need be.")
]


@index.command()
def add(
    index_file: IndexFile,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The database of a beamtime.")
    ],
    researcher: Annotated[
        str | None, typer.Option("--researcher", help="Whose beamtime it is.")
    ] = None,
    orcid: Annotated[
        str | None, typer.Option("--orcid", help="ORCID iD of the researcher.")
    ] = None,
    email: Annotated[
        str | None, typer.Option("--email", help="Address of the researcher.")
    ] = None,
    affiliation: Annotated[
        str | None, typer.Option("--affiliation", help="Where the researcher works.")
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", help="How to call the beamtime.")
    ] = None,
) -> None:
    """Add a beamtime and its runs, and say whose it is."""
    from bluesky_beamtime.database import Index, IndexWriter

    number: int | None = None
    if researcher is not None:
        number = IndexWriter(index_file).register_researcher(
            researcher,
            file.resolve().parent,
            email=email,
            orcid=orcid,
            affiliation=affiliation,
        )
    elif orcid or email or affiliation:
        raise typer.BadParameter("--orcid, --email, --affiliation need --researcher")
    Index(index_file).refresh(file, researcher=number, label=label)
    typer.echo(f"{file.name}: {_count(len(Index(index_file).search(beamtime=file)))}")


@index.command()
def refresh(
    index_file: IndexFile,
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A beamtime, or a folder of them.")
    ],
) -> None:
    """Bring an index up to date with a beamtime, or with all below a folder.

    The exit status is 1 when one of them could not be read.
    """
    from bluesky_beamtime.database import Index

    found = Index(index_file).refresh(path)
    for file, outcome in found.items():
        if isinstance(outcome, int):
            typer.echo(f"{file}: {_count(outcome)}")
        else:
            typer.echo(f"{file}: {outcome}", err=True)
    if not found:
        typer.echo(f"no beamtime below {path}")
    if not all(isinstance(outcome, int) for outcome in found.values()):
        raise typer.Exit(1)


@index.command()
def search(
    index_file: IndexFile,
    text: WithText = None,
    sample: OfSample = None,
    plan: OfPlan = None,
    tag: WithTags = None,
    since: Since = None,
    until: Until = None,
    researcher: Annotated[
        str | None,
        typer.Option("--researcher", help="Name, email or ORCID iD."),
    ] = None,
    beamtime: Annotated[
        str | None, typer.Option("--beamtime", help="Label or file of the beamtime.")
    ] = None,
    json: AsJson = False,
    limit: Limit = None,
) -> None:
    """List the runs of all beamtimes that fulfil every condition, the newest first."""
    from bluesky_beamtime.database import Index, encode

    try:
        found = Index(index_file).search(
            text=text,
            sample=sample,
            plan_name=plan,
            tags=tag,
            since=since,
            until=until,
            researcher=researcher,
            beamtime=beamtime,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if limit is None:
        limit = 0 if json else _TABLE_LIMIT
    rows = list(islice(found, limit or None))
    if json:
        print(encode([row.summary() for row in rows]))
        return
    from bluesky_beamtime.cli import tables

    console = tables.console()
    if not rows:
        console.print("no run")
        return
    console.print(tables.plain_table(_COLUMNS, [_cells(row) for row in rows]))
    more = len(found) - len(rows)
    if more > 0:
        console.print(f"and {more} older; --limit 0 lists all", style="dim")


_COLUMNS = ("beamtime", "scan", "time", "plan", "sample", "status", "file")


def _cells(row: IndexedRun) -> tuple[object, ...]:
    from bluesky_beamtime.cli import tables

    return (
        row.beamtime,
        row.scan_id,
        tables.moment(row.time),
        row.plan_name,
        row.sample,
        row.exit_status or "running",
        str(row.path) if row.available else f"{row.path} (absent)",
    )


def _count(number: int) -> str:
    return f"{number} run{'' if number == 1 else 's'}"
