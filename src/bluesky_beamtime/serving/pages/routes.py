"""The addresses below ``/beamtime/``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import anyio.to_thread
from fastapi import APIRouter, FastAPI, HTTPException, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.journaled import JournalIndex
from bluesky_beamtime.errors import BeamtimeError, RunNotFoundError
from bluesky_beamtime.pages import frame_png, plot_svg, thumbnail_png, url_part
from bluesky_beamtime.serving.pages import html
from bluesky_beamtime.serving.pages.run_page import run_facts
from bluesky_beamtime.serving.run import RunNode
from bluesky_beamtime.serving.run_rows import as_int64, fetch_runs
from bluesky_beamtime.serving.shelf import Shelf, catalog_name

T = TypeVar("T")

_PAGE = 50


def add_pages(app: FastAPI, shelf: Shelf) -> None:
    """Add the pages to an application; they ask for no key, the guard does."""
    router = APIRouter(prefix="/beamtime", include_in_schema=False)
    pages = _Pages(shelf)
    get: Any = router.get
    get("/", response_class=HTMLResponse)(pages.index)
    get("/{name}/", response_class=HTMLResponse)(pages.runs)
    get("/{name}/rows", response_class=HTMLResponse)(pages.rows)
    get("/{name}/{uid}/", response_class=HTMLResponse)(pages.run)
    get("/{name}/{uid}/thumbnail.png")(pages.thumbnail)
    get("/{name}/{uid}/{stream}/curve.svg")(pages.curve)
    get("/{name}/{uid}/{stream}/frame.png")(pages.frame)
    app.include_router(router)


class _Pages:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    # ------------------------------------------------------------------ documents

    async def index(self) -> Response:
        if self._shelf.only is not None:
            name = catalog_name(self._shelf.only.path)
            return RedirectResponse(f"{url_part(name)}/", status_code=303)
        contents = await _thread(self._shelf.contents)
        return HTMLResponse(html.render("index.html", contents=contents))

    async def runs(self, name: str, before: int | None = None) -> Response:
        database = await self._database(name)
        rows = await _thread(lambda: self._rows(database, before))
        return HTMLResponse(
            html.render(
                "runs.html",
                name=name,
                rows=rows,
                live=before is None,
                older=rows[-1]["row_id"] if len(rows) == _PAGE else None,
                file=database.path.name,
            )
        )

    async def rows(self, name: str) -> Response:
        database = await self._database(name)
        rows = await _thread(lambda: self._rows(database, None))
        return HTMLResponse(html.render("rows.html", name=name, rows=rows))

    async def run(self, name: str, uid: str) -> Response:
        node = await self._node(name, uid)
        facts = await _thread(lambda: run_facts(node))
        return HTMLResponse(html.render("run.html", name=name, uid=uid, **facts))

    # ------------------------------------------------------------------- pictures

    async def thumbnail(self, name: str, uid: str) -> Response:
        node = await self._node(name, uid)
        return await self._picture(
            lambda: thumbnail_png(node.run), "image/png", final=_final(node)
        )

    async def curve(
        self, name: str, uid: str, stream: str, field: str, x: str = ""
    ) -> Response:
        node = await self._node(name, uid)
        return await self._picture(
            lambda: plot_svg(node.run[stream], field, x).encode(),
            "image/svg+xml",
            final=_final(node),
        )

    async def frame(
        self, name: str, uid: str, stream: str, field: str, row: int = -1
    ) -> Response:
        node = await self._node(name, uid)
        return await self._picture(
            lambda: frame_png(node.run[stream], field, row),
            "image/png",
            final=_final(node),
        )

    async def _picture(
        self, draw: Callable[[], bytes], media_type: str, *, final: bool
    ) -> Response:
        try:
            content = await _thread(draw)
        except (RunNotFoundError, IndexError) as error:
            raise HTTPException(404, str(error)) from error
        except BeamtimeError as error:
            raise HTTPException(410, str(error)) from error
        cache = "private, max-age=86400" if final else "no-store"
        headers = {"Cache-Control": cache}
        return Response(content, media_type=media_type, headers=headers)

    # ------------------------------------------------------------------ what is there

    async def _database(self, name: str) -> Database:
        contents = await _thread(self._shelf.contents)
        database = contents.available.get(name)
        if database is not None:
            return database
        if name in contents.absent:
            raise HTTPException(410, contents.absent[name].reason)
        raise HTTPException(404, f"no beamtime called {name!r} is served here")

    def _rows(self, database: Database, before: int | None) -> list[dict[str, Any]]:
        id_ = schema.runs.c.id
        conditions = [] if before is None else [id_ < as_int64(before)]
        rows = fetch_runs(database, conditions, [id_.desc()], limit=_PAGE)
        journal = JournalIndex(database.journal)
        return [html.run_line(RunNode(database, journal, row)) for row in rows]

    async def _node(self, name: str, uid: str) -> RunNode:
        database = await self._database(name)
        found = await _thread(
            lambda: fetch_runs(database, [schema.runs.c.uid == uid], [])
        )
        if not found:
            raise HTTPException(404, f"there is no run {uid!r} in {name!r}")
        return RunNode(database, JournalIndex(database.journal), found[0])


def _final(node: RunNode) -> bool:
    return node.row.stop is not None


async def _thread(work: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(work)
