"""Runs sent to a stock server of Tiled, each exactly once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.errors import ServingError
from bluesky_beamtime.serving.push import PushReport, connect, push
from tests.stock_tiled import KEY, stock_tiled
from tests.unit.serving.conftest import Lab

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("push")


@pytest.fixture(scope="module")
def address(shared: Path) -> Iterator[str]:
    (shared / "data").mkdir()
    with stock_tiled(shared / "server", shared / "data") as address:
        yield address


@pytest.fixture
def path(shared: Path, request: pytest.FixtureRequest) -> Path:
    folder = shared / "data" / request.node.name.replace("[", "-").replace("]", "")
    folder.mkdir()
    return folder / "x.db"


@pytest.fixture
def there(address: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Give a client for a container of the server that is empty."""
    client = connect(address)
    name = request.node.name
    client.create_container(name)
    yield client[name]
    client.context.close()


def push_file(path: Path, there: Any) -> PushReport:
    with Beamtime(path, mode="r") as beamtime:
        return push(list(beamtime)[::-1], there)


def test_runs_are_pushed_once(
    lab: Lab, beamtime: Beamtime, path: Path, there: Any
) -> None:
    uids = [lab.run(images=True), lab.run(0), lab.run(exit_status="fail")]
    report = push_file(path, there)
    assert report.ok
    assert report.pushed == uids
    for uid in uids:
        assert dict(there[uid].metadata["start"]) == lab.emitted[uid][0][1]
        assert there[uid].metadata["stop"]["uid"] == lab.emitted[uid][-1][1]["uid"]
    stream = there[uids[0]]["primary"]
    assert stream["x"].read().tolist() == [0, 1, 2]
    np.testing.assert_array_equal(
        stream["image"].read(), beamtime[uids[0]].primary.read()["image"].values
    )
    lab.run()
    again = push_file(path, there)
    assert again.present == uids
    assert len(again.pushed) == 1
    assert len(there) == 4
    assert len(there[uids[0]]["primary"]["x"].read()) == 3


def test_a_run_that_goes_on_waits_for_the_next_time(
    lab: Lab, beamtime: Beamtime, path: Path, there: Any
) -> None:
    ended, live = lab.run(), lab.run(stop=False)
    report = push_file(path, there)
    assert report.pushed == [ended]
    assert report.unfinished == [live]
    assert report.ok
    assert list(there) == [ended]


def test_a_run_that_was_cut_off_is_pushed_as_far_as_it_got(
    path: Path, there: Any
) -> None:
    with Beamtime(path) as beamtime:
        uid = Lab(beamtime).run(stop=False)
    # A writer that let go of the file without a stop document is dead.
    with Beamtime(path, mode="r") as beamtime:
        assert beamtime[uid].exit_status == "interrupted"
    assert push_file(path, there).pushed == [uid]
    metadata = there[uid].metadata
    assert not metadata.get("stop")
    assert metadata["beamtime"]["status"] == "interrupted"
    assert there[uid]["primary"]["x"].read().tolist() == [0, 1, 2]
    assert push_file(path, there).present == [uid]


# Pushes as the command does, and stops for good at a moment that its argument names.
_PUSHER = """
import sys, time
import tiled.client.base
from bluesky_beamtime import Beamtime
from bluesky_beamtime.database.runs import Run
from bluesky_beamtime.serving.push import connect, push

path, url, container, moment = sys.argv[1:]

def stand_still(*args, **kwargs):
    print("here", flush=True)
    time.sleep(600)

if moment == "end":
    tiled.client.base.BaseClient.update_metadata = stand_still
else:
    whole = Run.documents
    def documents(self):
        for number, document in enumerate(whole(self)):
            if number == int(moment):
                stand_still()
            yield document
    Run.documents = documents
with Beamtime(path, mode="r") as beamtime:
    push(list(beamtime)[::-1], connect(url)[container])
"""


@pytest.mark.parametrize("moment", ["1", "2", "4", "end"])
def test_a_push_that_is_killed_is_taken_up_again(
    path: Path, address: str, there: Any, moment: str
) -> None:
    with Beamtime(path) as beamtime:
        lab = Lab(beamtime)
        uids = [lab.run(5, images=True), lab.run(4)]
    name = there.path_parts[-1]
    process = subprocess.Popen(
        [sys.executable, "-c", _PUSHER, str(path), address, name, moment],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    process.kill()
    process.wait()
    process.stdout.close()
    assert list(there) == uids[:1]
    assert not there[uids[0]].metadata.get("stop")
    assert push_file(path, there).pushed == uids
    assert list(there) == uids
    for uid, points in zip(uids, (5, 4), strict=True):
        assert there[uid].metadata["stop"]
        assert list(there[uid]["primary"]["seq_num"].read()) == list(
            range(1, points + 1)
        )


def test_frames_outlive_what_is_taken_away(path: Path, RE: Any, there: Any) -> None:
    from bluesky import plans as bp
    from ophyd_async.core import init_devices

    from bluesky_beamtime.devices import SimCamera

    with Beamtime(path) as beamtime:
        beamtime.attach(RE)
        with init_devices():
            camera = SimCamera(beamtime.frames, shape=(6, 8))
        (uid,) = RE(bp.count([camera], 4))
        frames = beamtime[-1].primary.read()["camera"].values
        assert push_file(path, there).pushed == [uid]
        np.testing.assert_array_equal(there[uid]["primary"]["camera"].read(), frames)
        # As if the push had ended before its end.
        from tiled.client import DELETE_KEY

        there[uid].update_metadata({"stop": DELETE_KEY}, drop_revision=True)
        assert push_file(path, there).pushed == [uid]
        np.testing.assert_array_equal(there[uid]["primary"]["camera"].read(), frames)
        np.testing.assert_array_equal(
            beamtime[-1].primary.read()["camera"].values, frames
        )
        beamtime.detach(RE)


def test_a_wrong_key_is_not_repeated(address: str) -> None:
    url = address.replace(KEY, "wrongsecret")
    with pytest.raises(ServingError, match="key") as caught:
        connect(url)["nothing"]
    assert "wrongsecret" not in str(caught.value)
    with pytest.raises(ServingError) as caught:
        connect(address.partition("?")[0], "othersecret")["nothing"]
    assert "othersecret" not in str(caught.value)


def beamtime_push(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bluesky_beamtime", "push", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TILED_RETRY_ATTEMPTS": "1"},
    )


def test_the_command(lab: Lab, path: Path, address: str, there: Any) -> None:
    uids = [lab.run(), lab.run()]
    bare, _, key = address.partition("?api_key=")
    name = there.path_parts[-1]
    url = f"{bare}/metadata/{name}"
    done = beamtime_push(str(path), url, "1", "--api-key", key)
    assert done.returncode == 0, done.stderr
    assert "1 pushed" in done.stdout
    done = beamtime_push(str(path), url, "--api-key", key)
    assert "1 pushed, 1 were there already" in done.stdout
    assert list(there) == uids


def test_the_command_with_nobody_at_the_address(lab: Lab, path: Path) -> None:
    import socket

    lab.run()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        url = f"http://127.0.0.1:{port}/api/v1?api_key=verysecret"
        done = beamtime_push(str(path), url)
    assert done.returncode != 0
    assert f"127.0.0.1:{port}" in done.stderr
    assert "verysecret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
