"""Look for input that nobody thought of: `make fuzz MINUTES=10`.

Half the time atheris (libFuzzer) changes bytes and keeps what reaches code that nothing before it reached; half the
time what was kept is changed by chance alone, which is ten times as fast. It goes on in build/fuzz/ at the next run;
what breaks a target is written into build/fuzz/findings/, and belongs into tests/fuzz/cases/ under the target's name
once it is mended. Ends with 1 if something was found.
"""

import argparse
import os
import random
import re
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

KEPT = ROOT / "build" / "fuzz"
CASES = Path(__file__).parent / "cases"
EXAMPLES = ROOT / "schemas" / "examples"
PROFILES = ROOT / "schemas" / "profiles"
SHARE = {"message": 40, "rest": 20, "topic": 5, "profile": 10, "setting": 3, "env": 2, "filter": 5, "board": 10, "registry": 5}
"""Of the time, in per cent."""

LONGEST = {"message": 20_000, "rest": 70_000}
SLOW_S = 5
MEMORY_MB = 2_000
WORDS = ("i_peak_ua", "i_rms_ua", "z_ohm", "temp_head_c", "dt_ms", "ts_ms", "boot_id", "session_id", "samples", "1e999", "NaN", "-0.0", "true", "null", "\\u0000", "mc/v1/", "device_id", "from_ms", "2h")


def seeds(target: str) -> list[bytes]:
    """Bytes to begin with: what the repository has of the kind."""
    streams = ["current", "contact", "runtime", "health", "identity", "status"]
    examples = [(path.name.split(".")[0], path.read_bytes()) for path in sorted(EXAMPLES.glob("*.json"))]
    found = {
        "message": [bytes([streams.index(name)]) + text for name, text in examples if name in streams],
        "rest": [text for _, text in examples],
        "topic": [f"mc/v1/tone-1/{stream}".encode() for stream in streams],
        "profile": [path.read_bytes() for path in sorted(PROFILES.glob("*.toml"))],
        "filter": [b"\x00open\x00\x08-1", b"\x082h\x00\x092026-11-20T08:00", b"\x02warning"],
        "board": [b"\x00\x0012\x00\x01tone-1"],
        "env": [b"MICROCURRENT_STORE=duckdb\nexport MICROCURRENT_RETENTION_DAYS='90'\n", b"MICROCURRENT_DATA_DIR=\xff\n"],
        "registry": [b"a-1\nb-2\n", b'{"a-1": {"revoked_ms": 1}}'],
    }.get(target, [b"\x007"])
    return found + [path.read_bytes() for path in sorted(CASES.glob(f"{target}-*"))]


def fuzz(target: str, seconds: float) -> None:
    """In a process of its own: until the time is over, or something is found. Does not return."""
    import atheris

    with atheris.instrument_imports(include=["ingest", "schemas", "dashboards"], enable_loader_override=False):
        from tests.fuzz.targets import TARGETS
    corpus, findings = KEPT / target, KEPT / "findings"
    for directory in (corpus, findings):
        directory.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(target)):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = KEPT / "words"
    words.write_text("".join('"' + word.replace("\\", "\\\\") + '"\n' for word in WORDS))
    options = [
        f"-max_total_time={max(1, round(seconds))}", f"-max_len={LONGEST.get(target, 4_000)}", f"-timeout={SLOW_S}", f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={findings}/{target}-", f"-dict={words}", "-print_final_stats=1",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], TARGETS[target])
    atheris.Fuzz()


def blind(target: str, seconds: float) -> None:
    """Change what is known at random, without looking at what it reaches; tell how many were tried, and keep what breaks."""
    from tests.fuzz.targets import TARGETS

    chance, work, tried = random.Random(), TARGETS[target], 0
    known = seeds(target) + [path.read_bytes() for path in sorted((KEPT / target).glob("*"))]
    pieces = [word.encode() for word in WORDS] + [bytes([byte]) for byte in b'"{}[]:,\\\x00\xff-0e.\r\n\x1b']
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for _ in range(200):
            text = bytearray(chance.choice(known))
            for _ in range(chance.randint(1, 6)):
                at, kind = chance.randint(0, len(text)), chance.randrange(5)
                if kind == 0:
                    text[at : at + 1] = chance.randbytes(1)
                elif kind == 1:
                    text[at : at + chance.randint(0, 4)] = chance.choice(pieces)
                elif kind == 2:
                    del text[at : at + chance.randint(1, 30)]
                elif kind == 3:
                    text[at:at] = text[chance.randint(0, len(text)) :][: chance.randint(1, 60)]
                else:
                    text[at:] = chance.choice(known)[at:]
            tried += 1
            try:
                work(bytes(text))
            except Exception as error:
                name = KEPT / "findings" / f"{target}-{sha256(text).hexdigest()[:16]}"
                name.parent.mkdir(parents=True, exist_ok=True)
                name.write_bytes(text)
                print(f"stat::number_of_executed_units: {tried}\n{name}: {error!r}")
                raise
    print(f"stat::number_of_executed_units: {tried}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--targets", default=",".join(SHARE), help="some of: " + ", ".join(SHARE))
    parser.add_argument("--ways", default="guided,blind", help="some of: guided, blind")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        target, way = asked.one
        (fuzz if way == "guided" else blind)(target, asked.seconds)
        return 0
    chosen, ways = asked.targets.split(","), asked.ways.split(",")
    if unknown := set(chosen) - SHARE.keys():
        parser.error(f"--targets {', '.join(sorted(unknown))}: known are {', '.join(SHARE)}")
    whole = sum(SHARE[target] for target in chosen)
    print(f"{'target':10} {'way':7} {'cases':>12} {'cases/s':>9} {'coverage':>9} {'kept':>6}  findings")
    cases = found = 0
    for target, way in ((target, way) for target in chosen for way in ways):
        seconds = asked.minutes * 60 * SHARE[target] / whole / len(ways)
        before = set((KEPT / "findings").glob("*"))
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, __file__, "--one", target, way, "--seconds", str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=env, cwd=ROOT, check=False)
        told = done.stderr + done.stdout
        tried = int((re.findall(r"stat::number_of_executed_units:\s*(\d+)", told) or re.findall(r"^#(\d+)", told, re.M) or ["0"])[-1])
        coverage, kept = (re.findall(r"cov: (\d+) ft: \d+ corp: (\d+)", told) or [("", "")])[-1]
        new = sorted(set((KEPT / "findings").glob("*")) - before)
        cases, found = cases + tried, found + len(new) + (not tried)
        shown = ", ".join(path.name for path in new) or ("none" if tried else "it did not run")
        print(f"{target:10} {way:7} {tried:>12,} {tried / seconds:>9,.0f} {coverage:>9} {kept:>6}  {shown}", flush=True)
        if new or not tried:
            print(told[-3_000:])
    print(f"{cases:,} cases, {found} findings; coverage counts edges of Python code; what was kept is in {KEPT}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
