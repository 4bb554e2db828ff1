"""A directive that lists the tables of the database, with their columns."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class SchemaTables(SphinxDirective):
    """``.. schema-tables::``, made from the tables themselves."""

    def run(self) -> list[nodes.Node]:
        from bluesky_beamtime.database import schema

        self.env.note_dependency(schema.__file__)
        lines: list[str] = []
        for table in schema.metadata.tables.values():
            lines += [f".. rubric:: {table.name}", ""]
            lines += [
                ".. list-table::",
                "   :header-rows: 1",
                "   :widths: 25 15 60",
                "",
            ]
            lines += ["   * - column", "     - type", "     -"]
            for column in table.columns:
                lines += [f"   * - ``{column.name}``"]
                lines += [f"     - {column.type}", f"     - {_remarks(column)}"]
            lines.append("")
        section = nodes.section()
        section.document = self.state.document
        self.state.nested_parse(StringList(lines, "schema"), 0, section)
        return section.children


def _remarks(column: Any) -> str:
    remarks = []
    if column.primary_key:
        remarks.append("primary key")
    elif column.unique:
        remarks.append("unique")
    remarks += [f"refers to ``{key.target_fullname}``" for key in column.foreign_keys]
    if not column.nullable and not column.primary_key:
        remarks.append("not null")
    if column.comment:
        remarks.append(column.comment)
    return "; ".join(remarks)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("schema-tables", SchemaTables)
    return {"parallel_read_safe": True, "version": "1"}
