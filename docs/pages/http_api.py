"""The OpenAPI document of the server, as one page."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from service.app import create_app
from service.lifecycle import FolderSource
from service.settings import Settings

Schema = dict[str, Any]
WITH_KEYS = {"api_keys": "0" * 16}  # the document then describes how a key is sent


def document() -> str:
    return json.dumps(_openapi(), indent=2) + "\n"


def page() -> str:
    openapi = _openapi()
    lines = [
        "# HTTP API",
        "",
        f"{openapi['info']['summary']}. For programs: [openapi.json](openapi.json), on a running "
        "server `/openapi.json`; to try the routes, `/docs`. [Use other clients]"
        "(../how-to/clients.md) lists the routes of other protocols.",
        "",
    ]
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            lines += [f"## {method.upper()} {path}", "", *_operation(operation), ""]
    lines += ["## Bodies", ""]
    for name, schema in openapi["components"]["schemas"].items():
        lines += [f"### {name}", "", *_fields(schema), ""]
    return "\n".join(lines)


def _openapi() -> Schema:
    settings = Settings.model_validate(WITH_KEYS)
    return create_app(settings, FolderSource(Path())).openapi()


def _operation(operation: Schema) -> Iterator[str]:
    yield from (operation["description"], "")
    if parameters := operation.get("parameters"):
        yield from ("| parameter | in | type | meaning |", "|---|---|---|---|")
        for each in parameters:
            meaning = each.get("description", "")
            yield f"| `{each['name']}` | {each['in']} | {_type(each['schema'])} | {meaning} |"
        yield ""
    if body := operation.get("requestBody"):
        kinds = ", ".join(f"`{kind}`" for kind in body["content"])
        yield from (f"Body: {body['description']}: {kinds}.", "")
    yield from ("| status | answer | as |", "|---|---|---|")
    for status, answer in sorted(operation["responses"].items()):
        content = answer.get("content", {})
        kinds = ", ".join(f"`{kind}`" for kind in content)
        yield f"| {status} | {answer['description']}{_reference(content)} | {kinds} |"


def _reference(content: Schema) -> str:
    schema = content.get("application/json", {}).get("schema", {})
    name = schema.get("$ref", "").rpartition("/")[2]
    return f": [{name}](#{name.lower()})" if name else ""


def _fields(schema: Schema) -> Iterator[str]:
    yield from (schema.get("description", ""), "")
    required = schema.get("required", ())
    yield from ("| field | type | |", "|---|---|---|")
    for name, field in schema.get("properties", {}).items():
        optional = "" if name in required else "may be absent"
        meaning = "; ".join(part for part in (field.get("description"), optional) if part)
        yield f"| `{name}` | {_type(field)} | {meaning} |"


def _type(schema: Schema) -> str:
    match schema:
        case {"$ref": ref}:
            name = ref.rpartition("/")[2]
            return f"[{name}](#{name.lower()})"
        case {"anyOf": [*options]}:
            return " or ".join(_type(each) for each in options)
        case {"const": value}:
            return f"`{json.dumps(value)}`"
        case {"enum": [*values]}:
            return ", ".join(f"`{value}`" for value in values)
        case {"type": "array", "prefixItems": [first, *_]}:
            return f"{schema['minItems']} of {_type(first)}"
        case {"type": "array", "items": items}:
            return f"list of {_type(items)}"
        case {"type": "object", "additionalProperties": dict(values)}:
            return f"object of {_type(values)}"
    return schema.get("type", "any") + _bounds(schema)


def _bounds(schema: Schema) -> str:
    wording = {
        "minimum": "from {}",
        "exclusiveMinimum": "above {}",
        "maximum": "to {}",
        "exclusiveMaximum": "below {}",
    }
    bounds = [text.format(schema[key]) for key, text in wording.items() if key in schema]
    return f", {' '.join(bounds)}" if bounds else ""
