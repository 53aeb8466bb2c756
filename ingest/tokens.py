"""What commands show to the worker of this user, and how it proves to be that worker."""

import hashlib
import hmac
from pathlib import Path

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
