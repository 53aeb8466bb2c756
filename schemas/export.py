"""The contract for other languages: JSON Schema for each payload, AsyncAPI for the whole.

The pydantic models are the source. What is written here is derived, sorted and reproducible:
the same models give the same bytes. `microcurrent schemas export` writes the files, a test
compares them.
"""

import json
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from schemas import topics
from schemas.alerts import AlertDigest, AlertEvent
from schemas.messages import MAX_PAYLOAD_BYTES, MESSAGES, SAMPLES, VERSION, DurableAck
from schemas.profile import Profile

DIALECT = GenerateJsonSchema.schema_dialect
MAX_EXAMPLE_BYTES = 4096
"""Longer examples test limits; they would only make the document hard to read."""

UPLINK: dict[str, type[BaseModel]] = {stream.value: model for stream, model in MESSAGES.items()}
DOWNLINK: dict[str, type[BaseModel]] = {"ack": DurableAck, "alert": AlertEvent, "digest": AlertDigest}
MODELS: dict[str, type[BaseModel]] = {**UPLINK, **DOWNLINK, "profile": Profile}
"""One JSON Schema file each, `<name>.schema.json`."""

CHANNELS: dict[str, tuple[str, ...]] = {**{name: (name,) for name in UPLINK}, "ack": ("ack",), "alert": ("alert", "digest")}
"""Topic level → the messages on it; those of one channel are told apart by their `event`."""


class _Portable(GenerateJsonSchema):
    """JSON Schema that means the same in draft-07, which AsyncAPI reads, and in 2020-12."""

    def tuple_schema(self, schema: Any) -> JsonSchemaValue:
        """A pair of like things is an array of two: draft-07 does not know `prefixItems`."""
        told = super().tuple_schema(schema)
        members = told.pop("prefixItems", [])
        if not members or any(member != members[0] for member in members):
            raise TypeError("only tuples whose members are all alike can be exported")
        return {**told, "items": members[0]}


def export(directory: Path) -> list[Path]:
    """Write every generated file; return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in _generated().items():
        path = directory / name
        path.write_bytes(text.encode("utf-8"))
        written.append(path)
    return written


def stale(directory: Path) -> list[str]:
    """What in the directory is not what the models say: one line for each file; empty if all is well."""
    expected = _generated()
    found = {path.name for path in directory.glob("*.json")} if directory.is_dir() else set()
    complaints = [f"{name}: nothing generates it; remove it" for name in found - set(expected)]
    for name, text in expected.items():
        if name not in found:
            complaints.append(f"{name}: missing")
        elif (directory / name).read_bytes() != text.encode("utf-8"):
            complaints.append(f"{name}: differs from the models")
    return sorted(complaints)


def json_schema(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of one payload, by its name in MODELS."""
    schema = MODELS[name].model_json_schema(schema_generator=_Portable)
    return {"$schema": DIALECT, "$id": f"urn:microcurrent:mc:v{VERSION}:{name}", **schema}


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document, told from the fleet's side: it receives six streams and sends two."""
    names = [*UPLINK, *DOWNLINK]
    return {
        "asyncapi": "3.0.0",
        "id": f"urn:microcurrent:mc:v{VERSION}",
        "info": {
            "title": "Telemetry of microcurrent devices",
            "version": f"{VERSION}.0.0",
            "description": (
                "What a device publishes about the current it delivers, its contact with the skin, its "
                "running and its condition, and what the fleet answers. Payloads are UTF-8 JSON of at most "
                f"{MAX_PAYLOAD_BYTES} bytes; no unknown keys, no duplicate keys, no NaN. A broker's PUBACK "
                "does not say that a message is on disk: a device keeps it until the durable ack names it."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {name: _channel(name) for name in CHANNELS},
        "operations": {_operation_id(name): _operation(name) for name in CHANNELS},
        "components": {
            "messages": {name: _message(name) for name in names},
            "parameters": {"deviceId": _device_id()},
            "schemas": _components(names),
        },
    }


def _generated() -> dict[str, str]:
    documents: dict[str, dict[str, Any]] = {f"{name}.schema.json": json_schema(name) for name in MODELS}
    documents["asyncapi.json"] = asyncapi()
    return {name: _text(documents[name]) for name in sorted(documents)}


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _device_id() -> dict[str, Any]:
    """AsyncAPI 3.0 gives a parameter no schema, so its pattern is an extension and a sentence."""
    return {
        "description": f"Matches {topics.IDENTIFIER}; equal to the device's MQTT user name and client id.",
        "examples": ["example-1"],
        "x-pattern": topics.IDENTIFIER,
    }


def _channel(name: str) -> dict[str, Any]:
    return {
        "address": f"{topics.ROOT}/{{deviceId}}/{name}",
        "description": _description(name),
        "messages": {each: {"$ref": f"#/components/messages/{each}"} for each in CHANNELS[name]},
        "parameters": {"deviceId": {"$ref": "#/components/parameters/deviceId"}},
    }


def _operation_id(name: str) -> str:
    return ("receive" if name in UPLINK else "send") + name.capitalize()


def _operation(name: str) -> dict[str, Any]:
    return {
        "action": "receive" if name in UPLINK else "send",
        "bindings": {"mqtt": {"bindingVersion": "0.2.0", "qos": 1, "retain": False}},
        "channel": {"$ref": f"#/channels/{name}"},
        "messages": [{"$ref": f"#/channels/{name}/messages/{each}"} for each in CHANNELS[name]],
        "summary": _description(name),
    }


def _message(name: str) -> dict[str, Any]:
    return {
        "contentType": "application/json",
        "examples": _examples(name),
        "name": MODELS[name].__name__,
        "payload": {"$ref": f"#/components/schemas/{MODELS[name].__name__}"},
        "summary": _description(name),
        "title": name,
    }


def _components(names: list[str]) -> dict[str, Any]:
    components: dict[str, Any] = {}
    for name in names:
        schema = MODELS[name].model_json_schema(
            schema_generator=_Portable, ref_template="#/components/schemas/{model}"
        )
        for key, part in {**schema.pop("$defs", {}), MODELS[name].__name__: schema}.items():
            if components.setdefault(key, part) != part:
                raise TypeError(f"two different models are called {key}")
    return components


def _description(name: str) -> str:
    """The first paragraph of the model's docstring; for a stream, of its samples'."""
    model = SAMPLES[topics.Stream(name)] if name in UPLINK else MODELS[name]
    return " ".join((model.__doc__ or "").strip().split("\n\n")[0].split())


def _examples(name: str) -> list[dict[str, Any]]:
    """The short examples that pass, by name."""
    prefix, suffix = f"{name}.v{VERSION}.", ".pass.json"
    found: list[Traversable] = [
        entry
        for entry in (files("schemas") / "examples").iterdir()
        if entry.name.startswith(prefix) and entry.name.endswith(suffix)
    ]
    return [
        {"name": entry.name.removeprefix(prefix).removesuffix(suffix), "payload": json.loads(raw)}
        for entry in sorted(found, key=lambda entry: entry.name)
        if len(raw := entry.read_bytes()) <= MAX_EXAMPLE_BYTES
    ]
