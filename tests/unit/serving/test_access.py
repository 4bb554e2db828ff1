"""Users who see their own runs, with the configuration file that the docs show."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.errors import ServingError
from bluesky_beamtime.serving.server import app_from_config
from tests.unit.serving.conftest import Lab

pytestmark = pytest.mark.filterwarnings("default")

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "tiled-users.yml"


@pytest.fixture(scope="module")
def runs() -> dict[str, str]:
    return {}


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, runs: dict[str, str]
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("access")
    with Beamtime(folder / "2026-11-LaB6.db") as beamtime:
        lab = Lab(beamtime)
        runs["ada"] = lab.run(tiled_access_tags=["proposal-4711", "staff"], images=True)
        runs["other"] = lab.run(tiled_access_tags=["proposal-1"], comment="secret")
        runs["untagged"] = lab.run()
    config = folder / "config.yml"
    text = EXAMPLE.read_text().replace("/data/", f"{folder}/")
    config.write_text(text.replace("replace-me", "0123456789abcdef" * 4))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "uvicorn", "--factory", "--log-level", "error"),
            *("--port", str(port), "bluesky_beamtime.serving.server:app_from_config"),
        ],
        env={**os.environ, "TILED_CONFIG": str(config)},
    )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 100
        while True:
            try:
                if httpx.get(f"{address}/healthz", timeout=30).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def log_in(server: str, user: str) -> httpx.Client:
    answer = httpx.post(
        f"{server}/api/v1/auth/provider/beamline/token",
        data={"username": user, "password": f"{user}s-password"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    token = answer.json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=f"{server}/api/v1", headers=headers, timeout=60)


def listed(client: httpx.Client) -> list[str]:
    answer: Any = client.get("/search/").json()
    return [each["id"] for each in answer["data"]]


ROUTES = (
    "/metadata/{uid}",
    "/metadata/{uid}/primary",
    "/table/full/{uid}/primary/internal",
    "/array/full/{uid}/primary/image",
    "/container/full/{uid}?format=application/json-seq",
    "/search/{uid}",
)


def test_one_user_sees_the_runs_of_the_proposal(
    server: str, runs: dict[str, str]
) -> None:
    with log_in(server, "ada") as ada:
        assert listed(ada) == [runs["ada"]]
        for route in ROUTES:
            assert ada.get(route.format(uid=runs["ada"])).status_code == 200, route
        for hidden in (runs["other"], runs["untagged"]):
            for route in ROUTES:
                answer = ada.get(route.format(uid=hidden))
                assert answer.status_code == 404, route
                assert "secret" not in answer.text
        found = ada.get(
            "/search/", params={"filter[fulltext][condition][text]": "scan"}
        )
        assert [each["id"] for each in found.json()["data"]] == [runs["ada"]]
        assert ada.delete(f"/metadata/{runs['ada']}").status_code == 405


def test_another_does_not(server: str, runs: dict[str, str]) -> None:
    with log_in(server, "eve") as eve:
        assert listed(eve) == []
        for uid in runs.values():
            assert eve.get(f"/metadata/{uid}").status_code == 404


def test_a_third_sees_everything(server: str, runs: dict[str, str]) -> None:
    with log_in(server, "grace") as grace:
        assert listed(grace) == list(runs.values())


def test_nobody_without_a_name(server: str, runs: dict[str, str]) -> None:
    for route in ("/search/", *ROUTES):
        path = route.format(uid=runs["ada"])
        answer = httpx.get(f"{server}/api/v1{path}", timeout=60)
        assert answer.status_code in (401, 403, 404), route
        assert runs["other"] not in answer.text
    for file in ("zarr.json", "primary/image/zarr.json", "primary/image/c/0/0/0"):
        answer = httpx.get(f"{server}/zarr/v3/{runs['ada']}/{file}", timeout=60)
        assert answer.status_code >= 400, file
    assert httpx.get(f"{server}/ui//etc/passwd", timeout=60).status_code == 400


def test_a_file_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TILED_CONFIG", raising=False)
    with pytest.raises(ServingError, match="TILED_CONFIG"):
        app_from_config()
