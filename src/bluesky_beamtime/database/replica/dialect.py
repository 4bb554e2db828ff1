"""The questions of the reading side, in PostgreSQL's words.

They are asked with SQLAlchemy, and with a few functions of SQLite. What those are in
PostgreSQL stands here, as parts of the statement and as functions on the server.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import DDL, Engine
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression
from sqlalchemy.sql.functions import Function

from bluesky_beamtime.database import schema

# PostgreSQL cannot take apart a document with a NUL in a text, which becomes ␀; what it
# cannot take apart for another reason is not found, and does not make a search fail.
# Paths are SQLite's: $."optics"."energy"
FUNCTIONS = (
    DDL(
        "CREATE OR REPLACE FUNCTION beamtime_json(document text, path text) "
        "RETURNS json LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $body$ "
        "DECLARE keys text[] := "
        "string_to_array(substr(path, 4, length(path) - 4), '\".\"'); "
        "BEGIN RETURN document::json #> keys; EXCEPTION WHEN others THEN BEGIN "
        "RETURN replace(document, '\\u0000', '\\u2400')::json #> keys; "
        "EXCEPTION WHEN others THEN RETURN NULL; END; END $body$"
    ),
    DDL(
        "CREATE OR REPLACE FUNCTION json_extract(document text, path text) "
        "RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS "
        "$body$ SELECT beamtime_json(document, path)::jsonb $body$"
    ),
    DDL(
        "CREATE OR REPLACE FUNCTION json_type(document text, path text) "
        "RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $body$ "
        "DECLARE found json := beamtime_json(document, path); BEGIN "
        "RETURN CASE json_typeof(found) "
        "WHEN 'string' THEN 'text' WHEN 'boolean' THEN found::text "
        "WHEN 'number' THEN CASE WHEN found::text ~ '[.eE]' THEN 'real' "
        "ELSE 'integer' END ELSE json_typeof(found) END; END $body$"
    ),
    # What full text is asked of: see the compiler below, and the index run_texts_words.
    DDL(
        "CREATE OR REPLACE FUNCTION beamtime_patterns(phrases text) "
        "RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $body$ "
        "SELECT array_agg('%%' || regexp_replace(replace(phrase[1], '\"\"', '\"'), "
        "'([\\\\%%_])', '\\\\\\1', 'g') || '%%') FROM regexp_matches(phrases, "
        '\'"((?:[^"]|"")*)"\', \'g\') AS phrase $body$'
    ),
    DDL(
        "CREATE OR REPLACE VIEW run_texts_fts AS "
        'SELECT run_id AS rowid, text COLLATE "default" AS text FROM run_texts'
    ),
)


def speak_postgresql(engine: Engine) -> Engine:
    """Make an engine translate what the reading side asks."""
    usual: type[Any] = engine.dialect.statement_compiler

    class Compiler(usual):
        """PostgreSQL's compiler, which knows SQLite's functions too."""

        def visit_json_func(self, fn: Function[Any], **kw: Any) -> str:
            (text,) = fn.clauses
            return f"CAST({self.process(text, **kw)} AS JSONB)"

        def visit_binary(
            self, binary: BinaryExpression[Any], *args: Any, **kw: Any
        ) -> str:
            left, right = binary.left, binary.right
            operator: Any = binary.operator
            name = getattr(operator, "opstring", None)
            if name == "->":
                path = self.process(right, **kw)
                return f"CAST(json_extract({self.process(left, **kw)}, {path}) AS TEXT)"
            if name == "MATCH":
                return self._matches(right, **kw)
            is_value = operator is operators.eq and _is_call(left, "json_extract")
            if is_value and not _is_call(right, "json"):
                value = self.process(right, **kw)
                return f"{self.process(left, **kw)} = to_jsonb({value})"
            usually: Any = usual.visit_binary
            said: str = usually(self, binary, *args, **kw)
            if left is schema.run_texts.c.text:
                # SQLite's LIKE ignores the case of ASCII letters.
                said = said.replace(" LIKE ", " ILIKE ", 1)
            return said

        def _matches(self, phrases: Any, **kw: Any) -> str:
            """Return "each phrase stands in the text", upper or lower case."""
            patterns = f"beamtime_patterns({self.process(phrases, **kw)})"
            # The index helps with one pattern; with all of them it does not.
            return (
                f"(run_texts_fts.text ILIKE ({patterns})[1] "
                f"AND run_texts_fts.text ILIKE ALL ({patterns}))"
            )

    engine.dialect.statement_compiler = Compiler
    return engine


def _is_call(element: Any, name: str) -> bool:
    return isinstance(element, Function) and element.name == name
