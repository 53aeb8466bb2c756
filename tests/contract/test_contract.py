"""The contract holds: its examples, its generated files, and the promises its models make."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import hypothesis.strategies as st
import jsonschema
import pytest
from hypothesis import given
from pydantic import Field, TypeAdapter, ValidationError

import schemas
from ingest.decode import Decoded, decode
from ingest.errors import InvalidMessage
from schemas import topics
from schemas.export import DOWNLINK, MODELS, export, json_schema, stale
from schemas.messages import MAX_SAMPLES, MESSAGES, SAMPLES, VERSION, ContactMessage
from schemas.rejections import EXPLAINED, Reason
from schemas.topics import Stream

DEVICE = "example-1"
CONTRACT = Path(schemas.__file__).parent
GENERATED = CONTRACT / "generated"
EXAMPLES = sorted((CONTRACT / "examples").iterdir())
ASYNCAPI = Path(__file__).with_name("asyncapi-3.0.0.schema.json")

NAME = re.compile(rf"(?P<name>[a-z]+)\.v{VERSION}\.(?P<why>[A-Za-z0-9_.-]+)\.(?P<verdict>pass|fail)\.json")
"""`<stream>.v1.<why>.{pass,fail}.json`; in a fail, `<why>` begins with the expected reason and a dash."""

NOT_SAID_BY_JSON_SCHEMA = {
    "current.v1.schema-dt_ms-repeated.fail.json": "order within a list",
    "current.v1.schema-dt_ms-descending.fail.json": "order within a list",
    "current.v1.schema-float-for-an-integer.fail.json": "1.0 is an integer there",
    "current.v1.schema-version-1.0.fail.json": "1.0 is an integer there",
    "current.v1.schema-exponent-for-an-integer.fail.json": "4e2 is an integer there",
    "contact.v1.schema-mask-float.fail.json": "3.0 is an integer there",
    "runtime.v1.schema-elapsed-float.fail.json": "95.0 is an integer there",
    "runtime.v1.schema-end_reason-while-fault.fail.json": "one value depending on another",
    "runtime.v1.schema-end_reason-while-idle.fail.json": "one value depending on another",
    "runtime.v1.schema-end_reason-while-paused.fail.json": "one value depending on another",
    "runtime.v1.schema-end_reason-while-running.fail.json": "one value depending on another",
    "identity.v1.schema-model-disagrees.fail.json": "one value equal to another",
    "identity.v1.schema-hardware-disagrees.fail.json": "one value equal to another",
    "identity.v1.schema-firmware-disagrees.fail.json": "one value equal to another",
    "identity.v1.schema-serial-trailing-newline.fail.json": "`$` means before a last newline in Python",
    "current.v1.schema-session_id-trailing-newline.fail.json": "`$` means before a last newline in Python",
    "contact.v1.oversize-by-one-byte.fail.json": "the size of the payload",
}
"""Examples that the models refuse and JSON Schema, as checked in Python, cannot."""

NOT_ABOUT_ONE_DOCUMENT = {Reason.JSON_SYNTAX, Reason.ENCODING, Reason.DEPTH, Reason.DUP_KEYS, Reason.NONFINITE}
"""Reasons that lie in the text; there is no value yet that a JSON Schema could look at."""


def read_name(path: Path) -> re.Match[str]:
    found = NAME.fullmatch(path.name)
    assert found, f"{path.name}: expected <stream>.v{VERSION}.<why>.pass.json or .fail.json"
    return found


def expected_of(path: Path) -> str:
    """`pass`, or the reason which a fail's name begins with."""
    found = read_name(path)
    return "pass" if found["verdict"] == "pass" else Reason(found["why"].split("-")[0]).value


def of(*names: str) -> list[Any]:
    return [pytest.param(p, id=p.name.removesuffix(".json")) for p in EXAMPLES if read_name(p)["name"] in names]


def verdict_of_decode(stream: str, payload: bytes) -> tuple[str, str]:
    try:
        decode(topics.uplink(DEVICE, Stream(stream)), payload)
    except InvalidMessage as refused:
        return str(refused.reason), refused.detail
    return "pass", ""


def verdict_of_model(name: str, payload: bytes) -> bool:
    try:
        MODELS[name].model_validate_json(payload)
    except ValidationError:
        return False
    return True


# ---- examples


@pytest.mark.parametrize("stream", Stream)
def test_every_stream_has_examples_that_pass_and_examples_that_fail(stream: Stream) -> None:
    verdicts = {found["verdict"] for found in map(read_name, EXAMPLES) if found["name"] == stream}
    assert {"pass", "fail"} == verdicts


@pytest.mark.parametrize("path", of(*Stream))
def test_an_example_is_decoded_or_refused_for_the_reason_in_its_name(path: Path) -> None:
    actual, detail = verdict_of_decode(read_name(path)["name"], path.read_bytes())
    assert expected_of(path) == actual, detail


@pytest.mark.parametrize("path", [p for p in of(*Stream) if p.id.endswith(".pass")])
def test_a_decoded_example_says_what_its_payload_says(path: Path) -> None:
    stream, payload = Stream(read_name(path)["name"]), path.read_bytes()
    message = MESSAGES[stream].model_validate_json(payload)
    assert Decoded(DEVICE, stream, message) == decode(topics.uplink(DEVICE, stream), payload)
    assert json.loads(payload) == json.loads(message.model_dump_json(exclude_unset=True))


@pytest.mark.parametrize("path", of(*DOWNLINK))
def test_an_example_of_what_the_fleet_sends_agrees_with_its_model(path: Path) -> None:
    found = read_name(path)
    assert (found["verdict"] == "pass") == verdict_of_model(found["name"], path.read_bytes())


def test_the_examples_reach_every_reason_that_decoding_can_give() -> None:
    """The other reasons need a topic, a registry, a clock, a store or a broker."""
    decoding = {
        Reason.IDENTITY_MISMATCH, Reason.OVERSIZE, Reason.ENCODING, Reason.JSON_SYNTAX, Reason.DEPTH,
        Reason.DUP_KEYS, Reason.SCHEMA, Reason.NONFINITE, Reason.RANGE, Reason.VERSION_UNSUPPORTED,
    }  # fmt: skip
    assert {"pass", *decoding} == {expected_of(path) for path in EXAMPLES}


def test_every_reason_is_explained() -> None:
    assert set(Reason) == set(EXPLAINED)


@pytest.mark.parametrize(("count", "expected"), [(1, True), (MAX_SAMPLES, True), (MAX_SAMPLES + 1, False)])
def test_a_message_holds_at_most_256_samples(count: int, expected: bool) -> None:
    whole = json.loads((CONTRACT / "examples" / "contact.v1.typical.pass.json").read_bytes())
    whole["samples"] = [{**whole["samples"][0], "dt_ms": index} for index in range(count)]
    try:
        ContactMessage.model_validate_json(json.dumps(whole))
    except ValidationError:
        actual = False
    else:
        actual = True
    assert expected == actual


# ---- generated files


def test_the_generated_files_are_what_the_models_say() -> None:
    assert [] == stale(GENERATED), "run `microcurrent schemas export` to write them again"


def test_an_export_is_reproducible_and_its_faults_are_named(tmp_path: Path) -> None:
    written = export(tmp_path)
    assert [] == stale(tmp_path)
    assert sorted(p.name for p in GENERATED.iterdir()) == sorted(p.name for p in written)
    assert {p.name: (GENERATED / p.name).read_bytes() for p in written} == {p.name: p.read_bytes() for p in written}
    (tmp_path / "ack.schema.json").unlink()
    (tmp_path / "asyncapi.json").write_text("{}\n")
    (tmp_path / "old.schema.json").write_text("{}\n")
    assert [
        "ack.schema.json: missing",
        "asyncapi.json: differs from the models",
        "old.schema.json: nothing generates it; remove it",
    ] == stale(tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_a_generated_schema_is_a_valid_json_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema(name))
    jsonschema.Draft7Validator.check_schema(json_schema(name))


def test_the_asyncapi_document_is_valid_by_the_official_schema() -> None:
    official = jsonschema.Draft7Validator(json.loads(ASYNCAPI.read_bytes()))
    document = json.loads((GENERATED / "asyncapi.json").read_bytes())
    assert [] == [f"{error.json_path}: {error.message[:200]}" for error in official.iter_errors(document)]


@pytest.mark.parametrize(
    "break_it",
    [
        lambda d: d.pop("info"),
        lambda d: d["operations"]["receiveCurrent"].update(action="publish"),
        lambda d: d["operations"]["receiveCurrent"]["bindings"]["mqtt"].update(qos=7),
        lambda d: d["channels"]["current"]["parameters"]["deviceId"].update({"$ref": 5}),
        lambda d: d["components"]["schemas"]["CurrentSample"].update(required="dt_ms"),
        lambda d: d["components"]["messages"]["ack"].update(qos=1),
    ],
    ids=["no-info", "action", "qos", "parameter", "schema", "unknown-key"],
)
def test_the_official_asyncapi_schema_notices_a_broken_document(break_it: Any) -> None:
    document = json.loads((GENERATED / "asyncapi.json").read_bytes())
    break_it(document)
    assert not jsonschema.Draft7Validator(json.loads(ASYNCAPI.read_bytes())).is_valid(document)


def test_the_asyncapi_document_has_the_topics_directions_and_delivery_of_the_contract() -> None:
    document = json.loads((GENERATED / "asyncapi.json").read_bytes())
    actual = {
        document["channels"][operation["channel"]["$ref"].removeprefix("#/channels/")]["address"]: (
            operation["action"],
            operation["bindings"]["mqtt"]["qos"],
            operation["bindings"]["mqtt"]["retain"],
        )
        for operation in document["operations"].values()
    }
    uplinks = {topics.uplink("{deviceId}", stream): ("receive", 1, False) for stream in Stream}
    downlinks = {f("{deviceId}"): ("send", 1, False) for f in (topics.durable_ack, topics.alert)}
    assert {**uplinks, **downlinks} == actual


def test_the_alert_channel_carries_events_and_digests_told_apart_by_their_event() -> None:
    document = json.loads((GENERATED / "asyncapi.json").read_bytes())
    channel, operation = document["channels"]["alert"], document["operations"]["sendAlert"]
    assert ["alert", "digest"] == sorted(channel["messages"])
    assert ["#/channels/alert/messages/alert", "#/channels/alert/messages/digest"] == [each["$ref"] for each in operation["messages"]]
    parts = document["components"]["schemas"]
    assert parts["AlertDigest"]["properties"]["event"]["const"] not in parts["AlertEventKind"]["enum"]


@pytest.mark.parametrize("path", of("alert", "digest"))
def test_what_is_on_the_alert_channel_is_an_event_or_a_digest_and_never_both(path: Path) -> None:
    taken = [name for name in ("alert", "digest") if verdict_of_model(name, path.read_bytes())]
    assert taken in ([], [read_name(path)["name"]])


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    document = json.loads((GENERATED / "asyncapi.json").read_bytes())

    def references(node: Any) -> set[str]:
        if isinstance(node, list):
            return set().union(*map(references, node))
        if isinstance(node, dict):
            own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return own.union(*map(references, node.values()))
        return set()

    def leads_somewhere(reference: str) -> bool:
        node = document
        for part in reference.removeprefix("#/").split("/"):
            if part not in node:
                return False
            node = node[part]
        return True

    assert set() == {r for r in references(document) if not leads_somewhere(r)}


@pytest.mark.parametrize("path", [p for p in of(*MODELS) if expected_of(*p.values) not in NOT_ABOUT_ONE_DOCUMENT])
def test_json_schema_and_models_agree_on_an_example(path: Path) -> None:
    found, payload = read_name(path), path.read_bytes()
    accepted = jsonschema.Draft202012Validator(json_schema(found["name"])).is_valid(json.loads(payload))
    expected = found["verdict"] == "pass" or path.name in NOT_SAID_BY_JSON_SCHEMA
    assert expected == accepted, NOT_SAID_BY_JSON_SCHEMA.get(path.name, "")


def test_the_list_of_what_json_schema_cannot_say_names_real_examples() -> None:
    assert set() == set(NOT_SAID_BY_JSON_SCHEMA) - {path.name for path in EXAMPLES}


# ---- strings


def string_schemas(node: Any, where: str = "") -> dict[str, dict[str, Any]]:
    """Every schema of type string below a JSON Schema node, by its place."""
    if isinstance(node, list):
        return {k: v for i, item in enumerate(node) for k, v in string_schemas(item, f"{where}.{i}").items()}
    if not isinstance(node, dict):
        return {}
    own = {where: node} if node.get("type") == "string" else {}
    return own | {k: v for key, item in node.items() for k, v in string_schemas(item, f"{where}.{key}").items()}


STRINGS = {
    f"{stream}{where}": found
    for stream in Stream
    for where, found in string_schemas(json_schema(stream.value)).items()
}
PATTERNS = sorted({found["pattern"] for found in STRINGS.values() if "pattern" in found})


def test_every_string_a_device_may_send_is_bounded_by_a_pattern_or_a_list() -> None:
    assert {} == {k: v for k, v in STRINGS.items() if not {"pattern", "enum", "const"} & set(v)}


def test_no_listed_string_and_no_field_name_holds_a_colon() -> None:
    listed = [value for found in STRINGS.values() for value in found.get("enum", [])]
    names = [n for s in Stream for model in (MESSAGES[s], SAMPLES[s]) for n in model.model_fields]
    assert [] == [text for text in (*listed, *names) if ":" in text]


def matching(pattern: str) -> TypeAdapter[str]:
    """What the models make of a pattern: pydantic's own engine, not Python's."""
    return TypeAdapter(Annotated[str, Field(strict=True, pattern=pattern)])


@pytest.mark.parametrize("pattern", PATTERNS)
@given(data=st.data())
def test_no_string_of_a_pattern_can_hold_a_colon(pattern: str, data: st.DataObject) -> None:
    """Decoding counts colons to find duplicate keys. A colon anywhere in a fitting string is refused."""
    text = data.draw(st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True).filter(lambda t: "\n" not in t))
    at = data.draw(st.integers(0, len(text)))
    accepts = matching(pattern)
    assert text == accepts.validate_python(text)
    for spoilt in (text[:at] + ":" + text[at:], text[:at] + ":" + text[at + 1 :]):
        with pytest.raises(ValidationError):
            accepts.validate_python(spoilt)


@pytest.mark.parametrize("pattern", PATTERNS)
@given(data=st.data())
def test_a_pattern_refuses_digits_and_letters_of_other_scripts(pattern: str, data: st.DataObject) -> None:
    text = data.draw(st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True).filter(lambda t: "\n" not in t))
    at = data.draw(st.integers(0, len(text) - 1))
    foreign = data.draw(st.sampled_from("٣३３аеоА𝟙é\u200b\x00\n\r\x1b\u2028"))
    with pytest.raises(ValidationError):
        matching(pattern).validate_python(text[:at] + foreign + text[at + 1 :])
