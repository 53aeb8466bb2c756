"""A Grafana over HTTP. The only importer of grafana-api, of which only calls are used that Grafana 11 to 13 have."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from grafana_api.grafana_api import GrafanaClientError, GrafanaException
from grafana_api.grafana_face import GrafanaFace

Json = dict[str, Any]

SHOWN_MOST = 300


class Refused(Exception):
    """What Grafana, or the way to it, has against what was asked: one sentence with the remedy."""

    def __init__(self, sentence: str, status: int = 0, answer: Any = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.answer = answer


_RIGHTS = {
    "folder": "folders:read and folders:create",
    "data source": "datasources:read, datasources:create and datasources:write (the role Admin)",
    "dashboard": "dashboards:read, dashboards:create and dashboards:write in the folder (the role Editor)",
    "alert rules": "alert.provisioning:read and alert.provisioning:write, or alert.rules:… in the folder (the role Editor)",
    "routing": "alert.provisioning:read and alert.provisioning:write (the role Admin)",
    "query": "datasources:query",
    "health": "datasources:query",
}
"""What a token must be allowed, by what is done with it."""


class Remote:
    """One Grafana, by its address (a path before it is kept) and a service account's token."""

    def __init__(self, url: str, token: str, ca_file: str | None = None, timeout_s: float = 30.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            raise Refused(f"{url}: not an address of a Grafana; give one such as https://grafana.example.org/grafana")
        path = parts.path.strip("/")
        self.url = f"{parts.scheme}://{parts.netloc}/{path}".rstrip("/")
        self._face = GrafanaFace(
            token, host=parts.netloc, url_path_prefix=f"{path}/" if path else "", protocol=parts.scheme,
            verify=ca_file or True, timeout=timeout_s,
        )  # fmt: skip
        self._timeout_s = timeout_s
        self._face.api.s.max_redirects = 0  # Grafana itself never redirects its interface: a login page would answer

    def version(self) -> str:
        found = self._ask("health", lambda: self._face.api.GET("/health"))
        if not isinstance(found, dict) or "version" not in found:
            raise Refused(f"{self.url}: something answers that is not Grafana; is a path missing in the address?")
        return str(found["version"])

    # -- folders, data sources, dashboards -----------------------------------------------------------

    def folder(self, uid: str) -> Json | None:
        return self._found("folder", lambda: self._face.folder.get_folder(uid))

    def create_folder(self, title: str, uid: str) -> Json:
        return self._ask("folder", lambda: self._face.folder.create_folder(title, uid))

    def rename_folder(self, uid: str, title: str) -> Json:
        return self._ask("folder", lambda: self._face.api.PUT(f"/folders/{quote(uid)}", json={"title": title, "overwrite": True}))

    def datasource(self, uid: str) -> Json | None:
        return self._found("data source", lambda: self._face.api.GET(f"/datasources/uid/{quote(uid)}"))

    def create_datasource(self, content: Json) -> Json:
        return self._ask("data source", lambda: self._face.datasource.create_datasource(content))

    def update_datasource(self, uid: str, content: Json) -> Json:
        return self._ask("data source", lambda: self._face.api.PUT(f"/datasources/uid/{quote(uid)}", json=content))

    def datasource_health(self, uid: str) -> tuple[bool, str]:
        """Whether Grafana reaches it, and what it says of it."""
        try:
            found = self._ask("health", lambda: self._face.api.GET(f"/datasources/uid/{quote(uid)}/health"))
        except Refused as refused:
            if isinstance(refused.answer, dict) and "message" in refused.answer and refused.status in (400, 404, 500):
                return False, str(refused.answer["message"])
            raise
        return found.get("status") == "OK", str(found.get("message", ""))

    def dashboard(self, uid: str) -> Json | None:
        """`dashboard` and `meta`."""
        return self._found("dashboard", lambda: self._face.dashboard.get_dashboard(uid))

    def save_dashboard(self, content: Json, folder_uid: str, message: str) -> Json:
        """Save over the version that the content names; a newer one in Grafana is a refusal (412)."""
        body = {"dashboard": content, "folderUid": folder_uid, "message": message, "overwrite": False}
        return self._ask("dashboard", lambda: self._face.api.POST("/dashboards/db", json=body))

    def tagged(self, tag: str) -> list[Json]:
        return self._ask("dashboard", lambda: self._face.search.search_dashboards(tag=tag, type_="dash-db"))

    # -- alerting ------------------------------------------------------------------------------------

    def rule_group(self, folder_uid: str, group: str) -> Json | None:
        return self._found("alert rules", lambda: self._face.api.GET(_group_path(folder_uid, group)))

    def save_rule_group(self, folder_uid: str, content: Json) -> Json:
        return self._ask("alert rules", lambda: self._face.api.PUT(_group_path(folder_uid, content["title"]), json=content))

    def contact_points(self) -> list[Json]:
        return self._ask("routing", lambda: self._face.api.GET("/v1/provisioning/contact-points"))

    def save_contact_point(self, content: Json, exists: bool) -> None:
        path = "/v1/provisioning/contact-points"
        if exists:
            self._ask("routing", lambda: self._face.api.PUT(f"{path}/{quote(content['uid'])}", json=content))
        else:
            self._ask("routing", lambda: self._face.api.POST(path, json=content))

    def policy(self) -> Json:
        return self._ask("routing", lambda: self._face.api.GET("/v1/provisioning/policies"))

    def save_policy(self, content: Json) -> None:
        self._ask("routing", lambda: self._face.api.PUT("/v1/provisioning/policies", json=content))

    # -- questions -----------------------------------------------------------------------------------

    def run(self, queries: list[Json], from_ms: int, to_ms: int) -> dict[str, Json]:
        """What a panel's queries give, by refId: `frames`, or `error`."""
        body = {"queries": queries, "from": str(from_ms), "to": str(to_ms)}
        try:
            return self._ask("query", lambda: self._face.api.POST("/ds/query", json=body))["results"]
        except Refused as refused:
            if isinstance(refused.answer, dict) and isinstance(refused.answer.get("results"), dict):
                return refused.answer["results"]
            raise

    def _found(self, what: str, call: Callable[[], Any]) -> Json | None:
        try:
            return self._ask(what, call)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def _ask(self, what: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except GrafanaException as error:
            raise Refused(f"{self.url}: {_sentence(what, error)}", error.status_code, error.response) from error
        except requests.TooManyRedirects as error:
            raise Refused(f"{self.url}: it sends elsewhere, as to a login; correct the address, or the proxy before it") from error
        except requests.exceptions.SSLError as error:
            raise Refused(f"{self.url}: its certificate is not trusted; give its authority with --ca-file") from error
        except requests.Timeout as error:
            raise Refused(f"{self.url}: no answer within {self._timeout_s:g} s; is it overloaded, or behind a firewall?") from error
        except ValueError as error:
            raise Refused(f"{self.url}: the answer is not Grafana's; is a path missing in the address?") from error
        except requests.RequestException as error:
            raise Refused(f"{self.url}: cannot be reached; is the address right, and Grafana up?") from error


def _group_path(folder_uid: str, group: str) -> str:
    return f"/v1/provisioning/folder/{quote(folder_uid)}/rule-groups/{quote(group)}"


def _sentence(what: str, error: GrafanaException) -> str:
    if error.status_code == 401:
        return "the token is not accepted (401): it is wrong, expired, or of another Grafana"
    if error.status_code == 403:
        return f"the token may not do this with the {what} (403); it needs {_RIGHTS[what]}"
    if error.status_code == 412:
        return "somebody saved it meanwhile (412); publish again"
    told = error.response.get("message", "") if isinstance(error.response, dict) else "" if isinstance(error, GrafanaClientError) else str(error)
    return f"{what}: {error.status_code} {str(told)[:SHOWN_MOST]}".rstrip()
