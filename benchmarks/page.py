"""The Markdown of the figures: text that explains, tables that are measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Figures = dict[str, Any]

TEMPLATE = Path(__file__).with_name("page.md")


def page(figures: Figures) -> str:
    """Return the page: the template, with what was measured in its places."""
    parts = {f"{name}_machine": _machine(part) for name, part in figures.items()}
    return TEMPLATE.read_text(encoding="utf-8").format(
        **figures,
        **parts,
        gates=_gates(figures["frames"]),
        cameras=_cameras(figures["acquisition"]),
        engines=_engines(figures["frames"]),
        kilohertz_table=_kilohertz(figures["kilohertz"]),
        kills_table=_kills(figures["kills"]),
        exports_table=_versus(figures["exports"]),
        sinks_table=_versus(figures["sinks"]),
        retrieval_table=_retrieval(figures["retrieval"]),
        retrieval_stack=_stack(figures["retrieval"]),
        retrieval_many=_many(figures["retrieval"]),
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """Return a table whose first ``words`` columns are words, the others numbers."""
    rule = ["---" if number < words else "---:" for number in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def _machine(figures: Figures) -> str:
    machine = figures["machine"]
    versions = ", ".join(
        f"{name} {number}"
        for name, number in machine["versions"].items()
        if number != "absent"
    )
    busy = " (**the machine was busy**)" if machine["load_before"] > 0.5 else ""
    return (
        f"Measured {machine['date']}: {machine['cores']} cores "
        f"({machine['processor']}), {machine['memory_gib']} GiB, {machine['system']}, "
        f"Python {machine['python']}, {versions}. "
        f"Load before: {machine['load_before']:g}{busy}; after: "
        f"{machine['load_after']:g}, which includes our own."
    )


def _gates(figures: Figures) -> str:
    rows = [
        (
            gate["gate"],
            gate["place"],
            gate["work"],
            f"{gate['ratio']:.2f}",
            f"{gate['lowest']:.2f}–{gate['highest']:.2f}",
            *_reached(gate["ratio"], gate["at_least"]),
        )
        for gate in figures["gates"]
    ]
    head = ("gate", "place", "work", "ratio", "spread", "asked for", "reached")
    return table(head, rows, words=3)


def _engines(figures: Figures) -> str:
    groups: dict[tuple[str, ...], list[Figures]] = {}
    for line in figures["lines"]:
        key = (line["place"], line["shape"], line["data"], line["peer"])
        groups.setdefault(key, []).append(line)
    parts = [
        f"### {place}, {shape} uint16, {data}, beside {peer}\n\n{_lines(lines)}"
        for (place, shape, data, peer), lines in groups.items()
    ]
    return "\n\n".join(parts)


def _lines(lines: list[Figures]) -> str:
    head = (
        *("engine", "MiB/s", "to", "p50 ms", "p99 ms", "max ms"),
        *("CPU s/GiB", "disk", "memory MiB"),
    )
    rows = [
        (
            line["engine"],
            f"{line['mib_per_s']:.0f}",
            f"{line['to_peer']:.2f}",
            f"{line['p50_ms']:.2f}",
            f"{line['p99_ms']:.2f}",
            f"{line['max_ms']:.1f}",
            f"{line['cpu_s_per_gib']:.2f}",
            f"{line['disk_per_byte']:.2f}",
            f"{line['peak_mib']:.0f}",
        )
        for line in lines
    ]
    return table(head, rows)


def _cameras(figures: Figures) -> str:
    """Return the section about cameras."""
    section = TEMPLATE.with_name("cameras.md").read_text(encoding="utf-8")
    return section.format(
        **figures,
        described=_machine(figures),
        scans_table=_gates(figures),
        streams_table=_streams(figures),
    )


def _streams(figures: Figures) -> str:
    head = (
        *("frames", "place", "posted", "client"),
        *("posted/s", "received/s", "to the bare monitor", "lost %"),
    )
    rows = [
        (
            *(line["frames"], line["place"], line["pace"], line["client"]),
            f"{line['offered']:.0f}",
            f"{line['received']:.0f}",
            f"{line['to_bare']:.2f}",
            f"{line['lost_percent']:.2f}",
        )
        for line in figures["streams"]
    ]
    return table(head, rows, words=4)


def _kilohertz(figures: Figures) -> str:
    head = (
        *("frames", "place", "format", "call", "free/s", "asked for/s", "safe/s"),
        *("delay p50 ms", "p99 ms", "max ms", "keeps up"),
    )
    rows = [
        (
            line["frames"],
            line["place"],
            line["format"],
            f"`{line['call']}`",
            f"{line['free']:.0f}",
            f"{line['rate']}",
            f"{line['achieved']:.0f}",
            f"{line['p50_ms']:.3f}",
            f"{line['p99_ms']:.2f}",
            f"{line['max_ms']:.1f}",
            "yes" if line["keeps_up"] else "**no**",
        )
        for line in figures["lines"]
    ]
    return table(head, rows, words=4)


def _kills(figures: Figures) -> str:
    names = ("kills", "within", "acknowledged", "more", "lost", "wrong")
    counts: dict[tuple[str, ...], dict[str, int]] = {}
    for row in figures["rows"]:
        kind = {"application/x-zarr": "Zarr", "application/x-hdf5": "HDF5"}
        key = (
            kind[row["mimetype"]],
            row["compression"] + (", in chunks" if row.get("chunks") else ""),
            "crc32c" if row["checksum"] else "none",
        )
        count = counts.setdefault(key, dict.fromkeys(names, 0))
        for name in names:
            count[name] += row[name]
    total = ("**all**", "", ""), figures["total"]
    rows = [
        (*key, *(f"{count[name]}" for name in names))
        for key, count in (*sorted(counts.items()), total)
    ]
    head = (
        *("format", "codec", "checksum", "kills", "within write"),
        *("acknowledged", "more", "lost", "wrong"),
    )
    return table(head, rows, words=3)


def _versus(figures: Figures) -> str:
    lines = figures["lines"]
    memory = any(line["memory_mib"] is not None for line in lines)
    head = (
        *("", "", "ours", "bare library", "ratio", "spread", "of CPU time"),
        *("asked for", "reached"),
        *(("memory MiB", "4 × as much") if memory else ()),
    )
    rows = [
        (
            line["name"],
            line["unit"],
            _rate(line["ours"]),
            _rate(line["theirs"]),
            f"{line['ratio']:.2f}",
            f"{line['lowest']:.2f}–{line['highest']:.2f}",
            f"{line['cpu_ratio']:.2f}",
            *_reached(line["ratio"], line["at_least"]),
            *((_mib(line, "memory_mib"), _mib(line, "large_mib")) if memory else ()),
        )
        for line in lines
    ]
    return table(head, rows, words=2)


def _reached(ratio: float, at_least: float) -> tuple[str, str]:
    if not at_least:
        return "", ""
    return f"{at_least:.2f}", "yes" if ratio >= at_least else "**no**"


def _rate(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.1f}"


def _mib(line: Figures, name: str) -> str:
    return "" if line[name] is None else f"{line[name]:.0f}"


def _retrieval(figures: Figures) -> str:
    head = (
        *("question", "ours ms", "p95", "Tiled's ms", "p95", "ratio", "spread"),
        *("asked for", "reached"),
    )
    rows = [
        (
            line["question"],
            f"{line['ours_ms']:.1f}",
            f"{line['ours_p95_ms']:.1f}",
            f"{line['tiled_ms']:.1f}",
            f"{line['tiled_p95_ms']:.1f}",
            f"{line['ratio']:.2f}",
            f"{line['lowest']:.2f}–{line['highest']:.2f}",
            *_reached(line["ratio"], 1.0),
        )
        for line in figures["lines"]
    ]
    return table(head, rows)


def _stack(figures: Figures) -> str:
    rows = [
        (each["reader"], f"{each['ms']:.0f}", f"{each['ratio']:.2f}")
        for each in figures["stack"]
    ]
    return table(("reader", "ms", "to zarr-python"), rows)


def _many(figures: Figures) -> str:
    rows = [
        (each["question"], f"{each['ms']:.1f}", f"{each['p95_ms']:.1f}")
        for each in figures["many"]
    ]
    return table(("question", "ms", "p95"), rows)
