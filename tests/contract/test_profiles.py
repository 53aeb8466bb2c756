"""Profiles: the five that ship load; a bad one stops the start with its file, key and reason."""

import tomllib
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest

from schemas.export import json_schema
from schemas.profile import Profile, ProfileError, load_profiles

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


@pytest.mark.parametrize("case", [c for c in BAD if c not in {"bad-toml", "not-utf-8"}])
def test_the_generated_json_schema_refuses_what_it_can_of_a_bad_profile(case: str) -> None:
    not_said = {"min-above-max", "nominal-above-max", "session-above-day", "good-contact-above-open", "zone-unknown"}
    table = tomllib.loads(BAD[case][0].decode())
    assert (case in not_said) == jsonschema.Draft202012Validator(json_schema("profile")).is_valid(table)
