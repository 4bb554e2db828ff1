"""The commands that look at runs: ``ls``, ``show``, ``samples``, ``sql``."""

from __future__ import annotations

from typing import Annotated

import typer

from bluesky_beamtime.cli.arguments import (
    INCOMPLETE,
    AsJson,
    File,
    Limit,
    OfPlan,
    OfSample,
    Since,
    Until,
    WithTags,
    WithText,
)


def ls(
    file: File,
    json: AsJson = False,
    limit: Limit = None,
    sample: OfSample = None,
    plan: OfPlan = None,
    since: Since = None,
    until: Until = None,
    text: WithText = None,
    tag: WithTags = None,
    starred: Annotated[
        bool, typer.Option("--starred", help="Only those with a star.")
    ] = False,
    user: Annotated[
        str | None,
        typer.Option("--user", help="Only with this person: name, e-mail or ORCID."),
    ] = None,
    proposal: Annotated[
        str | None, typer.Option("--proposal", help="Only of this proposal.")
    ] = None,
    status: Annotated[
        str | None,
        typer.Option("--status", help="Only: success, abort, fail, interrupted."),
    ] = None,
) -> None:
    """List the runs of a beamtime, the newest first, all or those that you look for.

    The exit status is 3 when a listed run is incomplete: it was cut off, or some of its
    documents could not be stored.
    """
    from bluesky_beamtime.cli.listing import list_runs

    wanted = {
        "sample": sample,
        "plan_name": plan,
        "since": since,
        "until": until,
        "text": text,
        "tags": tag,
        "starred": starred or None,
        "user": user,
        "proposal": proposal,
        "exit_status": status,
    }
    complete = list_runs(file, json=json, limit=limit, wanted=wanted)
    raise typer.Exit(0 if complete else INCOMPLETE)


def show(
    file: File,
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="Scan number, -1 for the newest run, -2 for the one before it, or the "
            "beginning of a uid.",
        ),
    ],
    json: AsJson = False,
) -> None:
    """Show one run: what it was, its streams, and what became of every frame.

    The exit status is 3 when the run is incomplete.
    """
    from bluesky_beamtime.cli.listing import show_run

    raise typer.Exit(0 if show_run(file, run, json=json) else INCOMPLETE)


def samples(
    file: File,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only this one.")
    ] = None,
    json: AsJson = False,
) -> None:
    """List the samples; of a single one, what it was before it was changed."""
    from bluesky_beamtime.cli.questions import list_samples

    list_samples(file, name, json=json)


def sql(
    file: File,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="One SELECT.")],
    json: AsJson = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Ask the database in SQL; it can only be read.

    Begin with the views run_list and event_values.
    """
    from bluesky_beamtime.cli.questions import ask_in_sql

    ask_in_sql(file, query, json=json, csv=csv)
