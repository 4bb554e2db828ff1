"""A beamline's profile, made from the command line."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bluesky_beamtime.cli import app
from bluesky_beamtime.cli.profile import find_template
from bluesky_beamtime.demo.iocs import IOC_FILE, announced_in, find_iocs
from bluesky_beamtime.errors import DeviceError, ProfileError


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["profile", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def settings(folder: Path) -> dict[str, object]:
    return tomllib.loads((folder / "beamline.toml").read_text())


def test_new_copies_what_ipython_looks_for(tmp_path: Path) -> None:
    folder = tmp_path / "a beamline"
    printed = invoke("new", folder)
    assert f"ipython --ipython-dir '{folder}'" in printed
    startup = folder / "profile_default" / "startup"
    names = [path.name for path in sorted(startup.iterdir())]
    assert names == [
        *("00-beamtime.py", "10-devices.py", "20-plans.py", "90-welcome.py"),
    ]
    for source in [*folder.rglob("*.py")]:
        compile(source.read_text(), str(source), "exec")
    assert (folder / "devices" / "beamline.py").is_file()
    assert (folder / "plans" / "beamline.py").is_file()
    assert (folder / "data").is_dir()
    assert settings(folder)["devices"] == "simulated"
    # Nothing that only we need.
    assert not list(folder.rglob("__pycache__"))


@pytest.mark.parametrize("sample", ['1" wafer', "C:\\new", "Pökkel\n# x", "\\1"])
def test_settings_are_what_was_given(tmp_path: Path, sample: str) -> None:
    path = tmp_path / "elsewhere" / "x.db"
    printed = invoke(
        "new", tmp_path / "b", "--sample", sample, "--path", path, "--epics"
    )
    assert settings(tmp_path / "b") == {
        "path": str(path),
        "sample": sample,
        "devices": "epics",
        "prefix": "BL:",
        "plots": False,
    }
    assert path.parent.is_dir()
    assert "beamtime profile ioc" in printed


def test_new_writes_over_nothing(tmp_path: Path) -> None:
    invoke("new", tmp_path)
    mine = tmp_path / "devices" / "beamline.py"
    mine.write_text("mine = True\n")
    (tmp_path / "data" / "beamtime.db").write_bytes(b"measured")
    (tmp_path / "README.md").unlink()
    with pytest.raises(ProfileError, match=r"is there already.*--force"):
        invoke("new", tmp_path)
    assert mine.read_text() == "mine = True\n"
    assert not (tmp_path / "README.md").exists()
    invoke("new", tmp_path, "--force")
    assert "make_devices" in mine.read_text()
    assert (tmp_path / "data" / "beamtime.db").read_bytes() == b"measured"


def test_ioc_needs_a_profile(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="beamtime profile new"):
        invoke("ioc", tmp_path)
    (tmp_path / "beamline.toml").write_text("path = ")
    with pytest.raises(ProfileError, match=r"beamline\.toml' cannot be read"):
        invoke("ioc", tmp_path)


def test_iocs_are_found_while_they_run(tmp_path: Path) -> None:
    conf = {"EPICS_PVA_NAME_SERVERS": "127.0.0.1:1"}
    assert find_iocs(tmp_path) is None
    with announced_in(tmp_path, conf):
        assert find_iocs(tmp_path) == conf
        with pytest.raises(DeviceError, match="already"), announced_in(tmp_path, {}):
            pass
        assert find_iocs(tmp_path) == conf
    assert find_iocs(tmp_path) is None
    # What a process that was killed leaves behind.
    (tmp_path / IOC_FILE).write_text(json.dumps(conf))
    assert find_iocs(tmp_path) is None
    with announced_in(tmp_path, conf):
        assert find_iocs(tmp_path) == conf


def test_the_template_is_in_the_wheel_or_in_the_clone() -> None:
    template = find_template()
    for part in ("devices/beamline.py", "plans/beamline.py", "startup/beamline.toml"):
        assert (template / part).is_file()
    assert sys.prefix in str(template) or (template / "pyproject.toml").is_file()
