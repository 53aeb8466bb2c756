"""What the page asks for where it is closed; what commands show to the worker of this user, and how it proves to be that."""

import hashlib
import hmac
from pathlib import Path

from ingest.errors import Mistake
from ingest.network import is_loopback
from ingest.settings import Settings, read_secret

LEAST_PASSWORD, LEAST_TOKEN = 12, 20
TOKEN_FILE = "command-token"


def command_token(data_dir: Path) -> str | None:
    """What the commands of this user show; None if it is not there or not theirs to read."""
    try:
        return (data_dir / "credentials" / TOKEN_FILE).read_text().strip()
    except OSError:
        return None


def proof(token: str, challenge: str) -> str:
    """That a worker knows the token, which is not said to whoever else may sit at its address."""
    return hmac.new(token.encode(), b"healthz:" + challenge.encode(), hashlib.sha256).hexdigest()


def check_access(settings: Settings) -> None:
    """A page that a network may reach needs a password or a token; anything less is a Mistake."""
    if settings.http_password_file is None and settings.http_token_file is None and not is_loopback(settings.http_host):
        raise Mistake(
            f"MICROCURRENT_HTTP_HOST={settings.http_host} opens page, interface and metrics to your network; "
            "set MICROCURRENT_HTTP_PASSWORD_FILE (and …_TOKEN_FILE for programs), or stay on 127.0.0.1"
        )
    for path, what, least in (
        (settings.http_password_file, "the page's password", LEAST_PASSWORD),
        (settings.http_token_file, "the token of programs", LEAST_TOKEN),
    ):
        secret = read_secret(path, what)
        if secret is not None and len(secret) < least:
            raise Mistake(f"{path}: {what} has {len(secret)} characters; use {least} or more")
