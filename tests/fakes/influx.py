"""Stands in for the programs `influx` and `curl` of the InfluxDB 2.7 image, which cannot be run here.

What it knows of the server is in $FAKE_STATE, every call is noted in $FAKE_CALLS. It follows
influx-cli 2.7: columns are padded with tabs, `v1 dbrp create` takes `--default` and ignores it,
`v1 dbrp list` shows virtual mappings after the real ones, `auth create` wants bucket ids.
"""

import json
import os
import sys
from pathlib import Path

STATE, CALLS = Path(os.environ["FAKE_STATE"]), Path(os.environ["FAKE_CALLS"])
EMPTY = {"admin": None, "org": None, "buckets": {}, "mappings": {}, "auths": {}, "count": 0}


def fail(sentence):
    sys.exit(f"Error: {sentence}")


def table(rows):
    """As text/tabwriter writes it: every column as wide as its widest cell, filled up with tabs."""
    columns = list(zip(*rows, strict=True)) if rows else []
    wide = [max(len(cell) for cell in column) // 8 + 1 for column in columns]
    for row in rows:
        print("".join(cell + "\t" * max(1, width - len(cell) // 8) for cell, width in zip(row, wide, strict=True)))


def options(words):
    found = {}
    for word in words:
        if word.startswith("--"):
            name = word[2:]
            found.setdefault(name, [])
        else:
            found[name].append(word)
    return found


class Server:
    def __init__(self):
        self.state = json.loads(STATE.read_text()) if STATE.exists() else dict(EMPTY)

    def save(self):
        STATE.write_text(json.dumps(self.state))

    def new_id(self):
        self.state["count"] += 1
        return f"{self.state['count']:016x}"

    def setup(self, request):
        if self.state["admin"]:
            fail("conflict")
        self.state["admin"] = {"name": request["username"], "password": request["password"], "token": request["token"]}
        self.state["org"] = request["org"]
        self.state["buckets"][self.new_id()] = {"name": request["bucket"], "seconds": request["retentionPeriodSeconds"]}
        self.state["auths"][self.new_id()] = {"description": "admin's Token", "token": request["token"], "permissions": ["all"]}

    def authorized(self):
        if not self.state["admin"] or os.environ.get("INFLUX_TOKEN") != self.state["admin"]["token"]:
            fail("401 Unauthorized: unauthorized access")

    def bucket_list(self, given):
        table([[i, b["name"], f"{b['seconds'] // 3600}h0m0s", "24h0m0s", "f" * 16, "implicit"] for i, b in self.state["buckets"].items()])

    def bucket_create(self, given):
        if given["name"][0] in [b["name"] for b in self.state["buckets"].values()]:
            fail("422 Unprocessable Entity: bucket with this name already exists")
        self.state["buckets"][self.new_id()] = {"name": given["name"][0], "seconds": days(given["retention"][0])}

    def bucket_update(self, given):
        self.state["buckets"][given["id"][0]]["seconds"] = days(given["retention"][0])

    def dbrp_list(self, given):
        rows = [
            [i, m["db"], m["bucket"], m["rp"], str(m["default"]).lower(), "false", "f" * 16]
            for i, m in self.state["mappings"].items()
            if m["db"] == given["db"][0]
        ]
        table(rows)
        print("\nVIRTUAL DBRP MAPPINGS (READ-ONLY)\n----------------------------------")
        mapped = {m["bucket"] for m in self.state["mappings"].values()}
        table([[i, b["name"], i, "raw", "true", "true", "f" * 16] for i, b in self.state["buckets"].items() if i not in mapped])

    def dbrp_create(self, given):
        db, rp, bucket = (given[name][0] for name in ("db", "rp", "bucket-id"))
        if bucket not in self.state["buckets"]:
            fail("bucket not found")
        if any((m["db"], m["rp"]) == (db, rp) for m in self.state["mappings"].values()):
            fail("dbrp mapping already exists")
        self.state["mappings"][self.new_id()] = {"db": db, "rp": rp, "bucket": bucket, "default": False}

    def dbrp_update(self, given):
        chosen = self.state["mappings"][given["id"][0]]
        if "default" in given:
            for mapping in self.state["mappings"].values():
                mapping["default"] = mapping["default"] and mapping["db"] != chosen["db"]
            chosen["default"] = True

    def dbrp_delete(self, given):
        del self.state["mappings"][given["id"][0]]

    def auth_list(self, given):
        table([[i, a["description"], a["token"], "admin", "e" * 16, f"[{' '.join(a['permissions'])}]"] for i, a in self.state["auths"].items()])

    def auth_create(self, given):
        if given["user"][0] != self.state["admin"]["name"]:
            fail("could not find user")
        permissions = []
        for right in ("read", "write"):
            for bucket in given.get(f"{right}-bucket", []):
                if bucket not in self.state["buckets"]:
                    fail(f"invalid bucket ID '{bucket}'")
                permissions.append(f"{right}:orgs/{'f' * 16}/buckets/{bucket}")
        made = self.new_id()
        auth = {"description": given["description"][0], "token": f"tok-{made}==", "permissions": permissions}
        self.state["auths"][made] = auth
        print(json.dumps({"id": made, **auth, "status": "active", "userName": "admin", "userID": "e" * 16}, indent="\t"))

    def auth_delete(self, given):
        del self.state["auths"][given["id"][0]]


def days(text):
    if not text.endswith("d"):
        fail(f"failed to parse {text!r}")
    return int(text[:-1]) * 86_400


def curl(server, words):
    if "--data-binary" in words:
        server.setup(json.loads(sys.stdin.read()))
        return
    allowed = "false" if server.state["admin"] else "true"
    print(f'{{\n\t"allowed": {allowed}\n}}')


def influx(server, words):
    server.authorized()
    command = [word for word in words[:3] if not word.startswith("-")]
    name = "_".join(command[1:] if command[0] == "v1" else command[:2])
    given = options(words[len(command) if command[0] == "v1" else 2 :])
    if "org" in given and given["org"][0] != server.state["org"]:
        fail("organization not found")
    getattr(server, name)(given)


def main():
    program, words = Path(sys.argv[0]).name, sys.argv[1:]
    with CALLS.open("a") as file:
        file.write(json.dumps([program, *words]) + "\n")
    server = Server()
    (curl if program == "curl" else influx)(server, words)
    server.save()


main()
