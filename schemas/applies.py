"""To which devices a profile applies, and whether the profiles of a model leave none out between them."""

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.messages import Identifier, Version


class ProfileTable(BaseModel):
    """A table of a profile's file: nothing unknown, nothing converted."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class Applies(ProfileTable):
    """A model, its hardware revisions (all of them without a list), and firmware from one version to below another."""

    model: Identifier
    hw: Annotated[list[Version], Field(min_length=1)] | None = None
    fw_from: Version = "0"
    fw_below: Version | None = None

    @model_validator(mode="after")
    def holds_firmware(self) -> Self:
        if self.fw_below is not None and version_key(self.fw_below) <= version_key(self.fw_from):
            raise ValueError(f"fw_below {self.fw_below} does not lie above fw_from {self.fw_from}, so no firmware is between them")
        return self

    def covers(self, hw: str, fw: str) -> bool:
        if self.hw is not None and hw not in self.hw:
            return False
        if version_key(fw) < version_key(self.fw_from):
            return False
        return self.fw_below is None or version_key(fw) < version_key(self.fw_below)

    def overlaps(self, other: "Applies") -> bool:
        if self.model != other.model:
            return False
        if self.hw is not None and other.hw is not None and not set(self.hw) & set(other.hw):
            return False
        below_self = self.fw_below is None or version_key(other.fw_from) < version_key(self.fw_below)
        below_other = other.fw_below is None or version_key(self.fw_from) < version_key(other.fw_below)
        return below_self and below_other


Named = tuple[str, Applies]
"""The file that a profile is in, and to what it applies."""


def hole(profiles: Sequence[Named]) -> str | None:
    """The first firmware of a model that lies between two of its profiles and has none, as a sentence."""
    for model in sorted({applies.model for _, applies in profiles}):
        for hardware, ranges in _by_hardware(profiles, model):
            for (before_file, before), (file, after) in zip(ranges, ranges[1:], strict=False):
                if before.fw_below is not None and version_key(before.fw_below) < version_key(after.fw_from):
                    return (
                        f"{file}: applies.fw_from: firmware {before.fw_below} to {after.fw_from} of model '{model}'"
                        f"{f' ({hardware})' if hardware else ''} has no profile; {before_file} ends at {before.fw_below} "
                        f"and this one begins at {after.fw_from}; make the two meet"
                    )
    return None


def coverage(applies: Iterable[Applies]) -> list[str]:
    """For each model of which not every device has a profile, which have: one sentence each. Supposes no holes."""
    profiles = [("", each) for each in applies]
    found = []
    for model in sorted({each.model for _, each in profiles}):
        of_hardware = _by_hardware(profiles, model)
        spans = [(hardware, _span([each for _, each in ranges])) for hardware, ranges in of_hardware]
        everywhere = any(each.hw is None for _, each in profiles if each.model == model)
        if everywhere and all(span == "all firmware" for _, span in spans):
            continue
        said = ", ".join(f"{hardware}: {span}" if hardware else span for hardware, span in spans)
        found.append(f"{model}: {said}" + ("" if everywhere else "; no other hardware"))
    return found


def _span(ranges: list[Applies]) -> str:
    first, last = ranges[0], ranges[-1]
    from_the_first = version_key(first.fw_from) <= version_key("0")
    if last.fw_below is None:
        return "all firmware" if from_the_first else f"firmware from {first.fw_from}"
    return f"firmware {'' if from_the_first else f'from {first.fw_from} '}below {last.fw_below}"


def _by_hardware(profiles: Iterable[Named], model: str) -> list[tuple[str, list[Named]]]:
    """The ranges of a model in order, for each hardware that is named, and for all that is not."""
    own = sorted(
        ((file, applies) for file, applies in profiles if applies.model == model), key=lambda each: version_key(each[1].fw_from)
    )
    named = sorted({hw for _, applies in own for hw in applies.hw or ()})
    found = [(f"hw {hw}", [each for each in own if each[1].hw is None or hw in each[1].hw]) for hw in named]
    unnamed = [each for each in own if each[1].hw is None]
    if unnamed:
        found.append(("any other hardware" if named else "", unnamed))
    return found


_PARTS = re.compile(r"\d+|[A-Za-z]+")


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Order versions as people read them: 2.10 after 2.9, 2.0-rc1 before 2.0, 2.0 equal to 2."""
    release, _, pre = version.partition("+")[0].partition("-")
    key = [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in _PARTS.findall(release)]
    while key and key[-1] == (1, 0, ""):
        key.pop()
    if pre:
        key.append((-1, 0, ""))
        key.extend((1, int(part), "") if part.isdigit() else (0, 0, part) for part in _PARTS.findall(pre))
    else:
        key.append((-1, 1, ""))
    return tuple(key)
