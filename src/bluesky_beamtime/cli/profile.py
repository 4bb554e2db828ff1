"""``beamtime profile``: an IPython profile for a beamline, and IOCs to try it with."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from bluesky_beamtime.errors import ProfileError

profile = typer.Typer(
    name="profile",
    no_args_is_help=True,
    help="Set up a beamline's own IPython profile, with devices and plans.",
)

_PLACES = {
    "devices": "devices",
    "plans": "plans",
    "startup": "profile_default/startup",
}
# What describes the whole folder lies at its top.
_AT_THE_TOP = ("README.md", "beamline.toml")

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the profile.")]


@profile.command()
def new(
    folder: Folder,
    path: Annotated[
        str, typer.Option("--path", metavar="FILE", help="The beamtime, seen from DIR.")
    ] = "data/beamtime.db",
    sample: Annotated[
        str, typer.Option("--sample", metavar="NAME", help="What is in the beam first.")
    ] = "LaB6",
    epics: Annotated[
        bool,
        typer.Option("--epics", help="Motors and a camera over PVAccess as well."),
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Write over the files that are there."),
    ] = False,
) -> None:
    """Copy the example beamline, to be changed into your own.

    What is there already stays, unless --force is given; what was measured stays in any
    case.
    """
    template = find_template()
    wanted = {
        folder / _place(source.relative_to(template)): source
        for part in _PLACES
        for source in sorted((template / part).rglob("*"))
        if source.is_file() and "__pycache__" not in source.parts
    }
    there = [str(target) for target in wanted if target.exists()]
    if there and not force:
        raise ProfileError(
            f"{str(there[0])!r} is there already: choose another folder, or --force to "
            f"write over {len(there)} files"
        )
    database = folder / path
    database.parent.mkdir(parents=True, exist_ok=True)
    for target, source in wanted.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    settings = {
        "path": path,
        "sample": sample,
        "devices": "epics" if epics else "simulated",
    }
    _set(folder / "beamline.toml", settings)
    place = shlex.quote(str(folder))
    print(f"{len(wanted)} files in {folder}; README.md says what they are.\n")
    print("What to type next:")
    if epics:
        print(f"  beamtime profile ioc {place}   # in a terminal of its own")
    print(f"  ipython --ipython-dir {place}")


@profile.command()
def ioc(
    folder: Folder = Path("."),
    shape: Annotated[
        tuple[int, int],
        typer.Option("--shape", metavar="H W", help="Pixels of the camera."),
    ] = (512, 512),
) -> None:
    """Run simulated IOCs for a profile: two motors, and a camera that sees the sample.

    They listen on the loopback interface only, are found by the profile in DIR, and end
    with Ctrl-C.
    """
    from bluesky_beamtime.demo.iocs import announced_in, beamline_iocs

    settings = _settings(folder)
    done = threading.Event()

    def stop(*_: object) -> None:
        done.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    prefix = settings.get("prefix", "BL:")
    with beamline_iocs(prefix, shape) as conf, announced_in(folder, conf):
        print(f"motors  pva://{prefix}x  pva://{prefix}y")
        print(f"camera  pva://{prefix}Pva1:Image, {prefix}cam1:")
        for name, value in conf.items():
            print(f"        {name}={shlex.quote(value)}")
        if settings.get("devices") != "epics":
            print('\nThe profile uses them with devices = "epics" in beamline.toml.')
        print("\nReady; Ctrl-C ends them.", flush=True)
        done.wait()


def find_template() -> Path:
    """Return the folder with the example beamline: in the wheel, or in a clone."""
    package = Path(__file__).parents[1]
    for template in (package / "template", package.parents[1]):
        if (template / "startup" / "beamline.toml").is_file():
            return template
    raise ProfileError(
        f"the example beamline is not in {str(package)!r}; install bluesky-beamtime "
        "from its wheel, or in place from a clone"
    )


def _place(source: Path) -> Path:
    """Return where a file of the template belongs in a profile."""
    part, *rest = source.parts
    if rest == [source.name] and source.name in _AT_THE_TOP:
        return Path(source.name)
    return Path(_PLACES[part], *rest)


def _set(file: Path, settings: dict[str, str]) -> None:
    """Set values in a TOML file, whose comments stay."""
    text = file.read_text(encoding="utf-8")
    for key, value in settings.items():
        # What JSON can say of a string, TOML says with the same characters.
        line = f"{key} = {json.dumps(value, ensure_ascii=False)}"
        text = re.sub(rf"(?m)^{key} = .*$", lambda _, line=line: line, text)
    file.write_text(text, encoding="utf-8")


def _settings(folder: Path) -> dict[str, str]:
    import tomllib

    file = folder / "beamline.toml"
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ProfileError(
            f"{str(folder)!r} has no beamline.toml: make a profile there with "
            f"'beamtime profile new {shlex.quote(str(folder))}'"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{str(file)!r} cannot be read: {error}") from error
