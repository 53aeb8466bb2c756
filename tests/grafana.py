"""A server that answers like Grafana 11 and 12 where `microcurrent dashboards publish` asks, and writes down what is asked.

It keeps folders, data sources, dashboards with versions, rule groups, contact points and the policy, as Grafana's
handlers and its OpenAPI document say; queries of panels run in a real InfluxDB. It renders nothing.
"""

import copy
import http.client
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.servers import LOOPBACK, InfluxDB

Json = dict[str, Any]

NOBODY = {"message": "Unauthorized", "messageId": "api-key.invalid", "statusCode": 401}
MAY_NOT = {"accessErrorId": "ACE0123456789", "message": "You'll need additional permissions to perform this action.", "title": "Access denied"}


class Grafana(ThreadingHTTPServer):
    """`url` is its address, with `prefix` as `root_url` gives it. `forbidden` are beginnings of paths the token may not use."""

    daemon_threads = True
    token = "glsa_right"

    def __init__(self, influxdb: InfluxDB | None = None, prefix: str = "", version: str = "12.1.0") -> None:
        super().__init__((LOOPBACK, 0), _Answering)
        self.influxdb, self.prefix, self.version = influxdb, prefix, version
        self.url = f"http://{LOOPBACK}:{self.server_port}{prefix}"
        self.forbidden: tuple[str, ...] = ()
        self.login_at: str | None = None
        self.asked: list[tuple[str, str]] = []
        self.folders: dict[str, Json] = {}
        self.datasources: dict[str, Json] = {}
        self.dashboards: dict[str, Json] = {}
        self.groups: dict[tuple[str, str], Json] = {}
        self.contact_points: dict[str, Json] = {}
        self.policy: Json = {"receiver": "grafana-default-email", "group_by": ["grafana_folder", "alertname"]}
        self.before_save = lambda uid: None
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def writes(self) -> list[tuple[str, str]]:
        """What was asked that changes something; a query is a POST, and does not."""
        return [(method, path) for method, path in self.asked if method != "GET" and path != "/ds/query"]

    # -- what it does --------------------------------------------------------------------------------

    def answer(self, method: str, path: str, asked: dict[str, str], body: Json) -> tuple[int, Any]:
        for pattern, act in self._routes():
            if found := re.fullmatch(pattern, f"{method} {path}"):
                return act(body, asked, *found.groups())
        return 404, {"message": "Not found"}

    def _routes(self) -> Iterator[tuple[str, Any]]:
        yield r"GET /health", lambda *_: (200, {"commit": "", "database": "ok", "version": self.version})
        yield r"GET /folders/([\w-]+)", lambda b, a, uid: self._kept(self.folders, uid, "folder not found")
        yield r"POST /folders", self._create_folder
        yield r"PUT /folders/([\w-]+)", self._rename_folder
        yield r"GET /datasources/uid/([\w-]+)", lambda b, a, uid: self._kept(self.datasources, uid, "Data source not found")
        yield r"POST /datasources", self._create_datasource
        yield r"PUT /datasources/uid/([\w-]+)", self._update_datasource
        yield r"GET /datasources/uid/([\w-]+)/health", self._health
        yield r"GET /dashboards/uid/([\w-]+)", lambda b, a, uid: self._kept(self.dashboards, uid, "Dashboard not found")
        yield r"POST /dashboards/db", self._save_dashboard
        yield r"GET /search", self._search
        yield r"GET /v1/provisioning/folder/([\w-]+)/rule-groups/([\w-]+)", lambda b, a, f, g: self._kept(self.groups, (f, g), "rule group not found")
        yield r"PUT /v1/provisioning/folder/([\w-]+)/rule-groups/([\w-]+)", self._save_group
        yield r"GET /v1/provisioning/contact-points", lambda *_: (200, list(self.contact_points.values()))
        yield r"POST /v1/provisioning/contact-points", lambda b, a: self._save_point(b, b["uid"])
        yield r"PUT /v1/provisioning/contact-points/([\w-]+)", lambda b, a, uid: self._save_point(b, uid)
        yield r"GET /v1/provisioning/policies", lambda *_: (200, self.policy)
        yield r"PUT /v1/provisioning/policies", self._save_policy
        yield r"POST /ds/query", self._query

    @staticmethod
    def _kept(where: dict, key: Any, absent: str) -> tuple[int, Json]:
        return (200, where[key]) if key in where else (404, {"message": absent})

    def _create_folder(self, body: Json, asked: dict[str, str]) -> tuple[int, Json]:
        if body["uid"] in self.folders:
            return 412, {"message": "The folder has been changed by someone else", "status": "version-mismatch"}
        self.folders[body["uid"]] = {"id": 1, "uid": body["uid"], "title": body["title"], "version": 1}
        return 200, self.folders[body["uid"]]

    def _rename_folder(self, body: Json, asked: dict[str, str], uid: str) -> tuple[int, Json]:
        self.folders[uid] |= {"title": body["title"]}
        return 200, self.folders[uid]

    def _create_datasource(self, body: Json, asked: dict[str, str]) -> tuple[int, Json]:
        if any(body["name"] == kept["name"] for kept in self.datasources.values()):
            return 409, {"message": "data source with the same name already exists"}
        return self._keep_datasource(body, body["uid"], {"id": len(self.datasources) + 1, "readOnly": False})

    def _update_datasource(self, body: Json, asked: dict[str, str], uid: str) -> tuple[int, Json]:
        if self.datasources[uid]["readOnly"]:
            return 403, {"message": "Cannot update read-only data source"}
        return self._keep_datasource(body, uid, {})

    def _keep_datasource(self, body: Json, uid: str, more: Json) -> tuple[int, Json]:
        secrets = body.pop("secureJsonData", {})
        before = self.datasources.get(uid, {"secureJsonFields": {}})
        fields = before["secureJsonFields"] | dict.fromkeys(secrets, True)
        self.datasources[uid] = {"basicAuth": False, "isDefault": False, **before, **body, **more, "secureJsonFields": fields}
        return 200, {"datasource": self.datasources[uid], "message": "Datasource added"}

    def _health(self, body: Json, asked: dict[str, str], uid: str) -> tuple[int, Json]:
        if uid not in self.datasources:
            return 404, {"message": "Data source not found"}
        status, answer = self._influx("SHOW MEASUREMENTS LIMIT 1", self.datasources[uid])
        if status != 200:
            return 400, {"message": "error performing influxQL query", "status": "ERROR"}
        return 200, {"message": f"datasource is working. {len(answer['results'])} measurements found", "status": "OK"}

    def _save_dashboard(self, body: Json, asked: dict[str, str]) -> tuple[int, Json]:
        content = copy.deepcopy(body["dashboard"])
        uid = content["uid"]
        self.before_save(uid)
        kept = self.dashboards.get(uid)
        if body["folderUid"] not in self.folders:
            return 400, {"message": "folder not found"}
        if kept is not None and kept["meta"]["provisioned"]:
            return 400, {"message": "Cannot save provisioned dashboard"}
        if kept is not None and not body["overwrite"] and content.get("version") != kept["dashboard"]["version"]:
            return 412, {"message": "The dashboard has been changed by someone else", "status": "version-mismatch"}
        content |= {"id": len(self.dashboards) + 1, "version": 1} if kept is None else {
            "id": kept["dashboard"]["id"], "version": kept["dashboard"]["version"] + 1}  # fmt: skip
        meta = {"provisioned": False, "folderUid": body["folderUid"], "version": content["version"]}
        self.dashboards[uid] = {"dashboard": content, "meta": meta}
        return 200, {"id": content["id"], "uid": uid, "status": "success", "version": content["version"]}

    def _search(self, body: Json, asked: dict[str, str]) -> tuple[int, list[Json]]:
        return 200, [
            {"uid": uid, "title": kept["dashboard"]["title"], "folderUid": kept["meta"]["folderUid"], "type": "dash-db"}
            for uid, kept in self.dashboards.items()
            if asked.get("tag") in kept["dashboard"].get("tags", ())
        ]

    def _save_group(self, body: Json, asked: dict[str, str], folder: str, group: str) -> tuple[int, Json]:
        for rule in body["rules"]:
            if {"dashboardUid", "panelId"} & set(rule) or not all(isinstance(v, str) for v in rule["annotations"].values()):
                return 400, {"message": "invalid alert rule"}
        rules = [
            {"id": number, "keep_firing_for": "0s", "notification_settings": None, "provenance": "api", "record": None, **rule,
             "data": [{"queryType": "", **part, "model": {"intervalMs": 1000, "maxDataPoints": 43200, **part["model"]}} for part in rule["data"]]}
            for number, rule in enumerate(body["rules"], 1)
        ]  # fmt: skip
        self.groups[folder, group] = {**body, "folderUid": folder, "title": group, "rules": rules}
        return 200, self.groups[folder, group]

    def _save_point(self, body: Json, uid: str) -> tuple[int, Json]:
        if not body["settings"].get("url") and not body["settings"].get("addresses"):
            return 400, {"message": "required field 'url' is not specified"}
        self.contact_points[uid] = {**body, "provenance": "api"}
        return 202, {"message": "contactpoint updated"}

    def _save_policy(self, body: Json, asked: dict[str, str]) -> tuple[int, Json]:
        if body["receiver"] not in {point["name"] for point in self.contact_points.values()}:
            return 400, {"message": "receiver does not exist"}
        self.policy = {**body, "provenance": "api"}
        return 202, {"message": "policies updated"}

    def _query(self, body: Json, asked: dict[str, str]) -> tuple[int, Json]:
        """As its InfluxDB data source does: a frame for each series, or a table; 400 if a query fails."""
        results: Json = {}
        for query in body["queries"]:
            source = self.datasources.get(query["datasource"]["uid"])
            if source is None:
                return 404, {"message": "data source not found"}
            status, answer = self._influx(query["query"], source)
            error = answer.get("error") or next((r["error"] for r in answer.get("results", []) if "error" in r), None)
            if error is not None or status != 200:
                results[query["refId"]] = {"error": f"InfluxDB returned error: {error}", "status": 400, "frames": []}
            else:
                series = [s for result in answer["results"] for s in result.get("series", ())]
                frames = [{"schema": {"refId": query["refId"]}, "data": {"values": list(zip(*s["values"], strict=True))}} for s in series]
                results[query["refId"]] = {"status": 200, "frames": frames}
        return (400 if any("error" in result for result in results.values()) else 200), {"results": results}

    def _influx(self, text: str, source: Json) -> tuple[int, Json]:
        assert self.influxdb is not None
        connection = http.client.HTTPConnection(LOOPBACK, urlsplit(source["url"]).port or 80, timeout=120)
        try:
            form = urlencode({"db": source["jsonData"]["dbName"], "epoch": "ms", "q": text})
            connection.request("POST", "/query", form, {"Content-Type": "application/x-www-form-urlencoded"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        except OSError:
            return 503, {"error": "connection refused"}
        finally:
            connection.close()


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Grafana

    def do_GET(self) -> None:
        self._act()

    def do_POST(self) -> None:
        self._act()

    def do_PUT(self) -> None:
        self._act()

    def do_DELETE(self) -> None:
        self._act()

    def _act(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        root = f"{self.server.prefix}/api"
        if self.server.login_at is not None or not parts.path.startswith(f"{root}/"):
            self._say(302, {}, {"Location": self.server.login_at or f"{self.server.prefix}/login"})
            return
        path = parts.path.removeprefix(root)
        self.server.asked.append((self.command, path))
        if path != "/health" and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self._say(401, NOBODY)
        elif self.server.forbidden and path.startswith(self.server.forbidden):
            self._say(403, MAY_NOT)
        else:
            asked = {key: values[0] for key, values in parse_qs(parts.query).items()}
            self._say(*self.server.answer(self.command, path, asked, json.loads(raw) if raw else {}))

    def _say(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """The tests' output is for the tests."""
