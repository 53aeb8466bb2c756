"""The production stack, read: it is valid, hardened, complete, and has no secret and no default password in it."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from ingest.settings import PREFIX, Settings
from tests.stack import COMPOSE_FILE, DEPLOY, ROOT, VARIABLE, by_default, compose, docker_compose, load, make_secrets, services, texts

VARIANTS = [DEPLOY / name for name in ("tls.yml", "certificates.yml", "plain.yml")]
SCHEMA = json.loads((Path(__file__).parent / "schemas" / "compose-spec.json").read_text())
SERVICES = services()
LONG_RUNNING = [name for name, service in SERVICES.items() if service["restart"] == "unless-stopped"]
ONE_SHOT = sorted(set(SERVICES) - set(LONG_RUNNING))
OF_THE_WORKER = ("ingest", "simulator")
PROVISIONING = sorted((ROOT / "dashboards" / "provisioning").rglob("*.yaml"))


def every(cases: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", cases)


# -- valid ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [COMPOSE_FILE, *VARIANTS], ids=lambda path: path.name)
def test_a_compose_file_is_valid_by_the_published_schema(path: Path) -> None:
    assert [] == [f"{'/'.join(map(str, e.path))}: {e.message}" for e in Draft7Validator(SCHEMA).iter_errors(load(path))]


def test_the_schema_finds_a_misspelt_key() -> None:
    document = compose()
    document["services"]["ingest"]["read_onyl"] = True
    assert not Draft7Validator(SCHEMA).is_valid(document)


def test_there_is_a_service_for_each_part_and_they_are_what_runs() -> None:
    assert ["grafana", "influxdb", "influxdb-init", "ingest", "mosquitto", "simulator"] == sorted(SERVICES)
    assert ["influxdb-init"] == ONE_SHOT
    assert {"simulator": ["demo"]} == {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is in git, linked, so that secrets can be made beside it and not in it."""
    root = tmp_path_factory.mktemp("repository")
    for name in ("docker-compose.yml", "ingest", "dashboards", "schemas", "pyproject.toml"):
        (root / name).symlink_to(ROOT / name)
    return root


def test_without_secrets_compose_refuses_and_names_the_command_that_makes_them(repository: Path, tmp_path: Path) -> None:
    done = docker_compose(repository, "--env-file", "/dev/null", "config", "--quiet")
    assert done.returncode != 0
    assert "run 'make secrets' first" in done.stderr


@pytest.mark.parametrize("files", [("docker-compose.yml",), *(("docker-compose.yml", f"ingest/deploy/{name}.yml") for name in ("tls", "certificates"))], ids=len)
def test_with_secrets_the_real_compose_takes_the_files(repository: Path, files: tuple[str, ...]) -> None:
    assert make_secrets(repository, "--demo").returncode == 0
    named = [word for name in files for word in ("-f", name)]
    done = docker_compose(repository, *named, "--profile", "demo", "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert "" == done.stderr
    seen = json.loads(done.stdout)["services"]
    published = {name: [(p["host_ip"], p["published"], p["target"]) for p in s["ports"]] for name, s in seen.items() if "ports" in s}
    mqtt = ("127.0.0.1", "1883", 1883) if len(files) == 1 else ("127.0.0.1", "8883", 8883)
    assert {"mosquitto": [mqtt], "ingest": [("127.0.0.1", "8480", 8480)], "grafana": [("127.0.0.1", "3000", 3000)]} == published


def test_plain_mqtt_beyond_this_machine_must_be_asked_for_in_words(repository: Path) -> None:
    make_secrets(repository)
    words = ("-f", "docker-compose.yml", "-f", "ingest/deploy/plain.yml", "config", "--format", "json")
    refused = docker_compose(repository, *words)
    assert refused.returncode != 0 and "say which address" in refused.stderr
    seen = json.loads(docker_compose(repository, *words, STACK_MQTT_BIND="192.0.2.7").stdout)["services"]["mosquitto"]["ports"]
    assert [("192.0.2.7", "1883", 1883)] == [(p["host_ip"], p["published"], p["target"]) for p in seen]
    alone = json.loads(docker_compose(repository, "config", "--format", "json", STACK_MQTT_BIND="0.0.0.0").stdout)
    assert ["127.0.0.1"] == [p["host_ip"] for p in alone["services"]["mosquitto"]["ports"]]


def test_one_variable_moves_the_retention_of_worker_and_buckets(repository: Path) -> None:
    make_secrets(repository)
    done = docker_compose(
        repository, "config", "--format", "json", MICROCURRENT_RETENTION_DAYS="7", MICROCURRENT_SUMMARY_RETENTION_DAYS="365"
    )
    seen = json.loads(done.stdout)["services"]
    worker, init = seen["ingest"]["environment"], seen["influxdb-init"]["environment"]
    assert ("7", "365") == (worker["MICROCURRENT_RETENTION_DAYS"], worker["MICROCURRENT_SUMMARY_RETENTION_DAYS"])
    assert ("7", "365") == (init["RAW_DAYS"], init["LONG_DAYS"])


def test_what_is_kept_by_default_is_what_the_settings_say() -> None:
    given = SERVICES["ingest"]["environment"]
    for name in ("retention_days", "summary_retention_days", "raw_retention_days", "log_level", "influx_org", "influx_bucket", "influx_long_bucket"):
        assert str(Settings.model_fields[name].default) == by_default(given[PREFIX + name.upper()])


# -- hardened ---------------------------------------------------------------------------------------


@every(SERVICES)
def test_a_service_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert (True, ["ALL"], ["no-new-privileges:true"], True) == (
        service["read_only"], service["cap_drop"], service["security_opt"], service["init"],
    )  # fmt: skip
    user, group = service["user"].split(":")
    assert int(user) > 0 and int(group) > 0
    assert set() == set(service) & {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc", "userns_mode", "env_file"}
    assert [] == [text for text in texts(service) if "docker.sock" in text]


@every(SERVICES)
def test_a_service_has_limits_and_its_log_does_not_grow_for_ever(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"]) and 0 < service["cpus"] <= 2 and 0 < service["pids_limit"] <= 512
    assert {"max-size", "max-file"} == set(service["logging"]["options"])
    assert "60s" == service["stop_grace_period"]


@every(SERVICES)
def test_an_image_is_pinned_to_one_version_and_names_no_registry(name: str) -> None:
    image, _, version = SERVICES[name]["image"].partition(":")
    assert re.fullmatch(r"[a-z0-9-]+(/[a-z0-9-]+)?", image)
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)


def test_the_image_of_the_worker_is_of_this_version() -> None:
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    assert {f"microcurrent-telemetry:{version}"} == {SERVICES[name]["image"] for name in OF_THE_WORKER}


@every(SERVICES)
def test_nothing_is_published_beyond_this_machine_by_default(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", by_default(port)), port


@every(SERVICES)
def test_no_secret_stands_in_the_environment(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        if re.search(r"PASSWORD|TOKEN|SECRET|KEY", variable) and variable != "TOKENS":
            assert variable.endswith("_FILE") and value.startswith(("/run/secrets/", "/run/tokens/")), variable
    assert [] == [text for text in texts(SERVICES[name]) if re.search(r"[A-Za-z0-9_+/-]{32,}=*$", text) and "/" not in text]


def test_no_variable_of_a_password_has_a_default() -> None:
    found = [m[0] for m in VARIABLE.finditer(COMPOSE_FILE.read_text()) if re.search("PASSWORD|TOKEN|SECRET|KEY", m["name"] or m["bare"])]
    assert found and {"STACK_SECRETS_GID"} == {VARIABLE.fullmatch(text)["name"] for text in found}
    assert all(VARIABLE.fullmatch(text)["how"] == ":?" for text in found)


@every([name for name, service in SERVICES.items() if service.get("secrets")])
def test_whoever_is_given_a_secret_can_read_it(name: str) -> None:
    assert any("STACK_SECRETS_GID" in group for group in SERVICES[name]["group_add"])


def test_the_broker_keeps_its_accounts_its_queue_and_its_limits_on_every_listener() -> None:
    lines = [line for line in (DEPLOY / "mosquitto.conf").read_text().splitlines() if line and not line.startswith("#")]
    assert {"per_listener_settings false", "allow_anonymous false", "retain_available false", "persistence true", "autosave_interval 5"} <= set(lines)
    tls, certificates = ((DEPLOY / place / "tls.conf").read_text() for place in ("conf.d-tls", "conf.d-certificates"))
    assert all("tls_version tlsv1.3" in text.splitlines() for text in (tls, certificates))
    assert {"require_certificate true", "use_identity_as_username true", "use_username_as_clientid true", "max_qos 1"} <= set(certificates.splitlines())
    assert "crlfile" in certificates
    listeners = [part.splitlines() for part in re.split(r"^listener ", "\n".join(lines) + "\n" + tls, flags=re.M)[1:]]
    assert ["1883", "1884", "8883"] == [part[0] for part in listeners]
    for part in listeners:
        assert {"use_username_as_clientid true", "max_qos 1"} <= set(part), part[0]
    queued = int(next(line.split()[1] for line in lines if line.startswith("max_queued_bytes")))
    assert queued < int(SERVICES["mosquitto"]["mem_limit"].removesuffix("g")) * 2**30


def test_only_the_neighbours_on_the_line_reach_each_other() -> None:
    reach = {name: set(service["networks"]) for name, service in SERVICES.items()}
    networks = compose()["networks"]
    assert {"line", "store", "view"} == {name for name, network in networks.items() if network.get("internal")}
    assert networks["front"]["driver_opts"] == {"com.docker.network.bridge.enable_icc": "false"}
    meet = {frozenset((a, b)) for a in reach for b in reach if a < b and (reach[a] & reach[b]) - {"front"}}
    assert meet == {
        frozenset(pair)
        for pair in (("simulator", "mosquitto"), ("mosquitto", "ingest"), ("ingest", "influxdb"), ("influxdb", "influxdb-init"),
                     ("ingest", "influxdb-init"), ("influxdb", "grafana"))
    }  # fmt: skip


# -- complete ---------------------------------------------------------------------------------------


@every(LONG_RUNNING)
def test_a_service_that_stays_has_a_health_check(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL") and {"interval", "timeout", "start_period", "retries"} <= set(check)


@every(SERVICES)
def test_a_service_waits_for_what_it_needs_to_be_healthy_or_done(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        wanted = "service_completed_successfully" if needed in ONE_SHOT else "service_healthy"
        assert {"condition": wanted} == how


def test_every_variable_of_the_compose_files_has_a_default_or_says_what_to_do() -> None:
    for path in (COMPOSE_FILE, *VARIANTS):
        for text in texts(load(path)):
            for found in VARIABLE.finditer(text.replace("$$", "")):
                assert found["how"] in (":-", ":?") and (found["how"] == ":-" or found["value"]), found[0]


def test_every_variable_of_the_provisioning_is_given_to_grafana() -> None:
    given = SERVICES["grafana"]["environment"]
    for path in PROVISIONING:
        for text in texts(yaml.safe_load(path.read_text())):
            for found in VARIABLE.finditer(re.sub(r"\$__\w+\{[^}]*\}", "", text)):
                assert (found["name"] or found["bare"]) in given, f"{path.name}: {found[0]}"


def test_every_variable_of_the_initialisation_is_given_to_it() -> None:
    needed = set(re.findall(r"\$\{(\w+):\?\}", (DEPLOY / "influxdb.sh").read_text()))
    assert needed and set() == needed - set(SERVICES["influxdb-init"]["environment"])


@every(OF_THE_WORKER)
def test_every_setting_given_to_a_worker_is_one(name: str) -> None:
    given = {variable.removeprefix(PREFIX).lower() for variable in SERVICES[name]["environment"] if variable.startswith(PREFIX)}
    assert set() == given - set(Settings.model_fields)


def test_every_file_that_is_mounted_is_in_the_repository() -> None:
    for path in (COMPOSE_FILE, *VARIANTS):
        for service in load(path)["services"].values():
            for volume in service.get("volumes", []):
                if isinstance(volume, dict):
                    assert volume["read_only"] and volume["bind"] == {"create_host_path": False}
                    assert (ROOT / volume["source"]).exists(), volume["source"]


def test_every_named_volume_and_secret_is_declared_and_every_one_declared_is_used() -> None:
    document = compose()
    volumes = {v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", []) if isinstance(v, str)}
    secrets = {s if isinstance(s, str) else s["source"] for service in SERVICES.values() for s in service.get("secrets", [])}
    assert (set(document["volumes"]), set(document["secrets"])) == (volumes, secrets)


def test_every_secret_is_made_by_the_generator(tmp_path: Path) -> None:
    made = make_secrets(tmp_path, "--demo")
    assert made.returncode == 0, made.stderr
    wanted = {Path(secret["file"]) for secret in compose()["secrets"].values()} | {Path("secrets/devices.json")}
    assert wanted == {path.relative_to(tmp_path) for path in (tmp_path / "secrets").iterdir()}


def test_a_path_that_a_service_is_told_of_is_one_that_it_is_given() -> None:
    for name, service in SERVICES.items():
        given = {f"/run/secrets/{s if isinstance(s, str) else s['target']}" for s in service.get("secrets", [])}
        told = {path for text in texts(service) for path in re.findall(r"/run/secrets/[\w.]+", text)}
        assert set() == told - given, name


def test_the_data_source_is_the_one_that_the_dashboards_name() -> None:
    (source,) = yaml.safe_load((ROOT / "dashboards/provisioning/datasources/microcurrent.yaml").read_text())["datasources"]
    assert ("microcurrent", "Microcurrent", "influxdb", False) == (source["uid"], source["name"], source["type"], source["editable"])
    assert ("telemetry", "GET", "Authorization") == tuple(source["jsonData"][key] for key in ("dbName", "httpMode", "httpHeaderName1"))
    assert "Token $__file{/run/tokens/grafana}" == source["secureJsonData"]["httpHeaderValue1"]
    assert SERVICES["influxdb-init"]["environment"]["RAW_BUCKET"] == source["jsonData"]["dbName"]


def test_the_dashboards_come_from_the_directory_that_is_mounted_and_alert_rules_are_kept_from_it() -> None:
    (provider,) = yaml.safe_load((ROOT / "dashboards/provisioning/dashboards/microcurrent.yaml").read_text())["providers"]
    mounted = {v["target"]: v["source"] for v in SERVICES["grafana"]["volumes"] if isinstance(v, dict)}
    assert ("microcurrent", False) == (provider["folderUid"], provider["allowUiUpdates"])
    assert "./dashboards/generated" == mounted[provider["options"]["path"]]
    assert "./dashboards/generated/alerting" == mounted["/etc/grafana/provisioning/alerting"]
    assert any(mount.startswith(f"{provider['options']['path']}/alerting:") for mount in SERVICES["grafana"]["tmpfs"])


def test_the_image_and_the_service_ask_for_health_in_the_same_way() -> None:
    written = (DEPLOY / "Dockerfile").read_text()
    (command,) = re.findall(r"^ +CMD (\[.*\])$", written, re.M)
    assert ["CMD", *json.loads(command)] == SERVICES["ingest"]["healthcheck"]["test"]


def test_secrets_and_settings_stay_out_of_git_and_out_of_the_image() -> None:
    for path in ("secrets/influxdb_admin_token", "secrets/tls/server.key", ".env"):
        assert subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False).returncode == 0, path
    kept = [line for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert "*" == kept[0] and not any("secrets" in line or ".env" in line for line in kept if line.startswith("!"))


def test_the_scripts_are_ones_that_any_shell_reads() -> None:
    for script in DEPLOY.glob("*.sh"):
        assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0, script


# -- without containers -----------------------------------------------------------------------------

UNIT, DROP_IN = DEPLOY / "systemd" / "microcurrent.service", DEPLOY / "systemd" / "external.conf"


def test_the_unit_is_confined_and_starts_again_except_after_a_persons_mistake() -> None:
    said = dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.M))
    wanted = {
        "DynamicUser": "yes", "StateDirectory": "microcurrent", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes",
        "PrivateTmp": "yes", "CapabilityBoundingSet": "", "MemoryMax": "1G", "Restart": "always", "RestartPreventExitStatus": "2 73",
    }  # fmt: skip
    assert wanted == {name: said[name] for name in wanted}


def test_the_unit_names_settings_that_exist_and_reads_secrets_as_credentials() -> None:
    text = UNIT.read_text() + DROP_IN.read_text()
    named = {name.lower() for name in re.findall(rf"{PREFIX}([A-Z_]+)=", text)}
    assert named and set() == named - set(Settings.model_fields)
    loaded = set(re.findall(r"^LoadCredential=([\w-]+):", text, re.M))
    assert loaded == set(re.findall(r"=%d/([\w-]+)$", text, re.M))


def test_systemd_takes_the_unit_and_what_is_added_to_it(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed; this test needs the real one")
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={shutil.which('true')}", UNIT.read_text(), flags=re.M))
    added = tmp_path / f"{UNIT.name}.d"
    added.mkdir()
    shutil.copy(DROP_IN, added)
    done = subprocess.run([program, "--man=no", "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False)
    assert (0, "") == (done.returncode, done.stderr)
