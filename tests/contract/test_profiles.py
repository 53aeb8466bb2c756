"""Profiles: the five that ship load; a bad one stops the start with its file, key and reason."""

import tomllib
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest

from schemas.applies import coverage
from schemas.export import json_schema
from schemas.profile import Profile, ProfileError, load_profiles
from schemas.topics import Stream
from tests.line import START_MS, Line, deliver, message, pulse

SHIPPED = sorted((Path(str(files("schemas"))) / "profiles").glob("*.toml"))
GOOD = (Path(str(files("schemas"))) / "profiles" / "toneduo-400.toml").read_text("utf-8")


def changed(old: str, new: str) -> bytes:
    assert old in GOOD, f"the sample profile no longer holds {old!r}"
    return GOOD.replace(old, new, 1).encode()


def sentence(directory: Path) -> str:
    """What a person is told; the directory, which differs from run to run, left out."""
    with pytest.raises(ProfileError) as caught:
        load_profiles(directory)
    return str(caught.value).replace(f"{directory}/", "").replace(str(directory), "DIRECTORY")


def test_the_five_shipped_profiles_load() -> None:
    expected = ["gelwave-multi", "lumabar-s15", "toneduo-400", "tonetip-e", "ursa-adapt-10"]
    assert expected == [profile.id for profile in load_profiles().all]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_profile_says_that_it_is_not_for_safety_use(path: Path) -> None:
    profile = Profile.model_validate(tomllib.loads(path.read_text("utf-8")))
    assert (path.stem, "example, not for safety use") == (profile.id, profile.notice)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_profile_agrees_with_the_generated_json_schema(path: Path) -> None:
    jsonschema.Draft202012Validator(json_schema("profile")).validate(tomllib.loads(path.read_text("utf-8")))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_profile_is_found_for_its_own_model(path: Path) -> None:
    profiles = load_profiles()
    own = next(profile for profile in profiles.all if profile.id == path.stem)
    hw = own.applies.hw[0] if own.applies.hw else "A"
    assert own == profiles.find(own.applies.model, hw, "9.9.9")


BAD = {
    "bad-toml": (b"[output\n", "bad.toml: not valid TOML: "),
    "not-utf-8": (b'name = "caf\xe9"\n', "bad.toml: not UTF-8 text (byte 11)"),
    "empty-file": (b"", "bad.toml: id: Field required (and 9 more)"),
    "unknown-key": (
        changed("[output]", "[output]\ni_peak_max_ma = 0.4"),
        "bad.toml: output.i_peak_max_ma: Extra inputs are not permitted",
    ),
    "unknown-table": (GOOD.encode() + b"\n[extra]\n", "bad.toml: extra: Extra inputs are not permitted"),
    "text-for-a-number": (
        changed("i_peak_max_ua = ", 'i_peak_max_ua = "400" # '),
        "bad.toml: output.i_peak_max_ua: Input should be a valid number",
    ),
    "infinite": (
        changed("i_peak_max_ua = ", "i_peak_max_ua = inf # "),
        "bad.toml: output.i_peak_max_ua: Input should be a finite number",
    ),
    "min-above-max": (
        changed("i_peak_min_ua = ", "i_peak_min_ua = 999.0 # "),
        "bad.toml: the profile: output.i_peak_min_ua is above output.i_peak_max_ua",
    ),
    "more-than-microcurrent": (
        changed("i_peak_max_ua = ", "i_peak_max_ua = 1000.0 # "),
        "bad.toml: output.i_peak_max_ua: Input should be less than 1000",
    ),
    "nominal-above-max": (
        changed("nominal_s = ", "nominal_s = 86400.0 # "),
        "bad.toml: the profile: session.nominal_s is above session.max_s",
    ),
    "session-above-day": (
        changed("daily_max_s = ", "daily_max_s = 1.0 # "),
        "bad.toml: the profile: session.max_s is above session.daily_max_s",
    ),
    "good-contact-above-open": (
        changed("z_off_ohm = ", "z_off_ohm = 10.0 # "),
        "bad.toml: the profile: electrodes.z_good_max_ohm must lie below electrodes.z_off_ohm",
    ),
    "zone-unknown": (changed("forbidden = [", 'forbidden = ["nose", '), "bad.toml: zones: 'nose' is no zone; known are "),
    "mode-unknown": (
        changed("modes = [", 'modes = ["sine", '),
        "bad.toml: output.modes.0: Input should be 'biphasic', 'alt_burst', 'dc' or 'off'",
    ),
    "no-firmware-between": (
        changed('model = "toneduo-400"', 'model = "toneduo-400"\nfw_from = "2.2"\nfw_below = "2.2.0"'),
        "bad.toml: applies: fw_below 2.2.0 does not lie above fw_from 2.2, so no firmware is between them",
    ),
    "version-zero": (
        changed("version = 1", "version = 0"),
        "bad.toml: version: Input should be greater than or equal to 1",
    ),
    "model-with-a-space": (
        changed('model = "toneduo-400"', 'model = "tone duo"'),
        "bad.toml: applies.model: String should match pattern '^[A-Za-z0-9_-]{1,64}$'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_profile_is_refused_in_one_sentence_with_file_key_and_reason(case: str, tmp_path: Path) -> None:
    raw, expected = BAD[case]
    (tmp_path / "bad.toml").write_bytes(raw)
    actual = sentence(tmp_path)
    assert expected == actual[: len(expected)]
    assert "\n" not in actual


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("no profile")
    assert "DIRECTORY: holds no profile; add at least one *.toml" == sentence(tmp_path)


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError) as caught:
        load_profiles(tmp_path / "nowhere")
    assert f"{tmp_path / 'nowhere'}: no such directory of profiles" == str(caught.value)


def test_two_profiles_for_the_same_device_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text(GOOD, "utf-8")
    (tmp_path / "two.toml").write_bytes(changed('id = "toneduo-400"', 'id = "toneduo-401"'))
    assert (
        "two.toml: applies: overlaps one.toml for model 'toneduo-400'; "
        "give the two disjoint hw lists or firmware ranges"
    ) == sentence(tmp_path)


def test_one_profile_version_in_two_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text(GOOD, "utf-8")
    (tmp_path / "two.toml").write_bytes(changed('model = "toneduo-400"', 'model = "toneduo-500"'))
    assert "two.toml: version: 'toneduo-400' version 1 is already in one.toml" == sentence(tmp_path)


def test_profiles_of_neighbouring_firmware_are_not_an_overlap(tmp_path: Path) -> None:
    (tmp_path / "old.toml").write_bytes(changed('model = "toneduo-400"', 'model = "toneduo-400"\nfw_below = "2.10"'))
    (tmp_path / "new.toml").write_bytes(
        changed('model = "toneduo-400"', 'model = "toneduo-400"\nfw_from = "2.10"').replace(b"version = 1", b"version = 2", 1)
    )
    profiles = load_profiles(tmp_path)
    found = [profiles.find("toneduo-400", "B", fw) for fw in ("2.9.9", "2.10-rc1", "2.10", "2.10.1")]
    assert [1, 1, 2, 2] == [profile.version for profile in found if profile]


Range = tuple[str | None, str | None, list[str] | None]
"""fw_from, fw_below, hw; None where the file does not say it."""


def written(directory: Path, **ranges: Range) -> Path:
    """A directory of profiles of one model, which differ in what they apply to; versions count from 1."""
    for at, (name, (fw_from, fw_below, hw)) in enumerate(ranges.items(), start=1):
        said = 'model = "toneduo-400"'
        said += f'\nfw_from = "{fw_from}"' if fw_from else ""
        said += f'\nfw_below = "{fw_below}"' if fw_below else ""
        said += f"\nhw = {hw}".replace("'", '"') if hw else ""
        raw = changed('model = "toneduo-400"', said).replace(b"version = 1", f"version = {at}".encode(), 1)
        (directory / f"{name}.toml").write_bytes(raw)
    return directory


HOLES: dict[str, tuple[dict[str, Range], str]] = {
    "any hardware": (
        {"a": (None, "2.0", None), "b": ("2.2", None, None)},
        "b.toml: applies.fw_from: firmware 2.0 to 2.2 of model 'toneduo-400' has no profile; "
        "a.toml ends at 2.0 and this one begins at 2.2; make the two meet",
    ),
    "a hardware that is named": (
        {"a": (None, "2.0", ["B", "C"]), "b": ("2.2", None, ["B"]), "c": ("2.0", None, ["C"])},
        "b.toml: applies.fw_from: firmware 2.0 to 2.2 of model 'toneduo-400' (hw B) has no profile; "
        "a.toml ends at 2.0 and this one begins at 2.2; make the two meet",
    ),
    "filled for a hardware that is named, and for no other": (
        {"a": (None, "2.0", None), "b": ("2.0", "2.2", ["B"]), "c": ("2.2", None, None)},
        "c.toml: applies.fw_from: firmware 2.0 to 2.2 of model 'toneduo-400' (any other hardware) has no profile; "
        "a.toml ends at 2.0 and this one begins at 2.2; make the two meet",
    ),
    "files not in the order of firmware": (
        {"a": ("3.0", None, None), "b": (None, "2.9", None)},
        "a.toml: applies.fw_from: firmware 2.9 to 3.0 of model 'toneduo-400' has no profile; "
        "b.toml ends at 2.9 and this one begins at 3.0; make the two meet",
    ),
    "up to a release, from the next pre-release": (
        {"a": (None, "2.0-rc1", None), "b": ("2.0", None, None)},
        "b.toml: applies.fw_from: firmware 2.0-rc1 to 2.0 of model 'toneduo-400' has no profile; "
        "a.toml ends at 2.0-rc1 and this one begins at 2.0; make the two meet",
    ),
}


@pytest.mark.parametrize("case", HOLES)
def test_firmware_between_two_profiles_that_none_covers_is_refused(case: str, tmp_path: Path) -> None:
    ranges, expected = HOLES[case]
    assert expected == sentence(written(tmp_path, **ranges))


MEETING: dict[str, tuple[dict[str, Range], list[str]]] = {
    "everything": ({"a": (None, None, None)}, []),
    "everything, in two": ({"a": (None, "2.0", None), "b": ("2", None, None)}, []),
    "not the first firmware": ({"a": ("1.4", None, None)}, ["toneduo-400: firmware from 1.4"]),
    "not the last firmware": ({"a": (None, "2.0", None)}, ["toneduo-400: firmware below 2.0"]),
    "neither": (
        {"a": ("1.4", "2.0", None), "b": ("2.0", "3.1", None)},
        ["toneduo-400: firmware from 1.4 below 3.1"],
    ),
    "one hardware": ({"a": (None, None, ["B"])}, ["toneduo-400: hw B: all firmware; no other hardware"]),
    "each hardware its own": (
        {"a": (None, "2.0", ["B"]), "b": ("2.0", None, ["B", "C"]), "c": (None, "5.0", ["A"])},
        ["toneduo-400: hw A: firmware below 5.0, hw B: all firmware, hw C: firmware from 2.0; no other hardware"],
    ),
    "all firmware of one hardware, the latest of all others": (
        {"a": (None, "2.0", ["B"]), "b": ("2.0", None, None)},
        ["toneduo-400: hw B: all firmware, any other hardware: firmware from 2.0"],
    ),
}


@pytest.mark.parametrize("case", MEETING)
def test_what_lies_before_the_first_profile_and_after_the_last_is_no_hole_and_is_told(case: str, tmp_path: Path) -> None:
    ranges, expected = MEETING[case]
    profiles = load_profiles(written(tmp_path, **ranges))
    assert expected == coverage(profile.applies for profile in profiles.all)


@pytest.mark.parametrize(("fw", "version", "limit"), [("2.1.9", 1, 600.0), ("2.2-rc1", 1, 600.0), ("2.2", 2, 450.0), ("10.0", 2, 450.0)])
def test_the_profile_of_the_firmware_judges_on_either_side_of_the_boundary_and_the_alert_names_it(
    tmp_path: Path, fw: str, version: int, limit: float
) -> None:
    directory = written(tmp_path, old=(None, "2.2", None), new=("2.2", None, None))
    newer = directory / "new.toml"
    newer.write_text(newer.read_text("utf-8").replace("i_peak_max_ua = 400.0", "i_peak_max_ua = 300.0"), "utf-8")
    spike = message(Stream.CURRENT, 0, i_peak_ua=700.0, envelope_={"fw": fw})
    with Line(tmp_path / "data", load_profiles(directory)) as line:
        (alert,) = line.run(deliver(Stream.CURRENT, spike), pulse(START_MS + 60_000)).alerts()
    names = ("rule", "fw", "profile_id", "profile_version", "limit")
    assert ("overcurrent-peak", fw, "toneduo-400", version, limit) == tuple(alert[name] for name in names)


@pytest.mark.parametrize("case", [c for c in BAD if c not in {"bad-toml", "not-utf-8"}])
def test_the_generated_json_schema_refuses_what_it_can_of_a_bad_profile(case: str) -> None:
    not_said = {
        "min-above-max", "nominal-above-max", "session-above-day", "good-contact-above-open", "zone-unknown", "no-firmware-between",
    }  # fmt: skip
    table = tomllib.loads(BAD[case][0].decode())
    assert (case in not_said) == jsonschema.Draft202012Validator(json_schema("profile")).is_valid(table)
