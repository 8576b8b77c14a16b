"""The OpenAPI document as a page for people: no script, no other address."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

STYLE = b"""
:root { color-scheme: light dark; --line: #8884; --dim: #777; --mono: ui-monospace, monospace }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { margin-top: 2.5rem } code, pre { font-family: var(--mono) }
section { border-top: 1px solid var(--line); padding: .75rem 0 }
h3 { font-size: 1rem; margin: 0; overflow-wrap: anywhere }
h3 b { display: inline-block; min-width: 4rem } .role { color: var(--dim); font-weight: normal }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 }
td { border-top: 1px solid var(--line); padding: .2rem .5rem; vertical-align: top }
td:first-child { white-space: nowrap; width: 12rem; font-family: var(--mono) }
pre { overflow-x: auto; background: #8881; padding: .5rem; border-radius: 6px; font-size: 13px }
"""


def as_page(openapi: Mapping[str, Any]) -> str:
    """Give an OpenAPI document as HTML."""
    info = openapi["info"]
    schemas = openapi.get("components", {}).get("schemas", {})
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(info['title'])}: API</title>",
        '<link rel="stylesheet" href="docs.css"></head><body><main>',
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        f"<p>{escape(info.get('description', ''))}</p>",
        '<p>For programs: <a href="openapi.json">openapi.json</a>.</p>',
    ]
    for tag, calls in _by_tag(openapi).items():
        parts.append(f"<h2>{escape(tag)}</h2>")
        for method, path, call in calls:
            parts += _call(method, path, call, schemas)
    return "".join([*parts, "</main></body></html>"])


def _by_tag(openapi: Mapping[str, Any]) -> dict[str, list[tuple[str, str, Mapping[str, Any]]]]:
    found: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for path, methods in openapi["paths"].items():
        for method, call in methods.items():
            for tag in call.get("tags", ["other"])[:1]:
                found.setdefault(tag, []).append((method.upper(), path, call))
    return found


def _call(
    method: str, path: str, call: Mapping[str, Any], schemas: Mapping[str, Any]
) -> Iterator[str]:
    role = call.get("x-role", "")
    yield f"<section><h3><b>{method}</b> <code>{escape(path)}</code>"
    yield f' <span class="role">{escape(role)}</span></h3>'
    yield f"<p>{escape(call.get('description') or call.get('summary', ''))}</p><table>"
    for each in call.get("parameters", ()):
        yield _row(f"{each['name']} ({each['in']})", each.get("description", ""))
    for media_type, content in call.get("requestBody", {}).get("content", {}).items():
        yield _row(media_type, _example(content, schemas), is_code=True)
    for status, response in call.get("responses", {}).items():
        yield _row(status, response.get("description", ""))
    yield "</table>"
    for content in call.get("responses", {}).get("200", {}).get("content", {}).values():
        if example := _example(content, schemas):
            yield f"<pre>{escape(example)}</pre>"
    yield "</section>"


def _row(name: str, text: str, *, is_code: bool = False) -> str:
    shown = f"<code>{escape(text)}</code>" if is_code else escape(text)
    return f"<tr><td>{escape(name)}</td><td>{shown}</td></tr>"


def _example(content: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    found = content.get("example")
    if found is None:
        found = example_of(content.get("schema", {}), schemas)
    if found is None or isinstance(found, str):
        return found or ""
    return json.dumps(found, indent=2)


def example_of(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Any:
    """Give an example of a schema, put together from those of its parts."""
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    given = [schema[name] for name in ("example", "const") if name in schema]
    if given := given + schema.get("examples", []):
        return given[0]
    if schema.get("type") == "array":
        inner = example_of(schema.get("items", {}), schemas)
        return [] if inner is None else [inner]
    if "properties" in schema:
        parts = schema["properties"].items()
        return {name: example_of(part, schemas) for name, part in parts}
    return None
