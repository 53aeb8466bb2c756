"""Questions in InfluxQL to an InfluxDB, of any version, to see whether it takes them."""

import json
import urllib.error
import urllib.request
from urllib.parse import urlencode

from ingest.errors import Mistake

TIMEOUT_S = 60.0


class InfluxQL:
    """An InfluxDB's database. One that cannot be reached, or lets nobody in, is a Mistake."""

    def __init__(self, url: str, database: str, token: str | None) -> None:
        self.url = f"{url.rstrip('/')}/query"
        self._database = database
        self._headers = {"Authorization": f"Token {token}"} if token else {}

    def refusal(self, text: str) -> str | None:
        """What it has against a question, if anything."""
        status, answer = self._ask(text)
        if status in (401, 403):
            raise Mistake(f"{self.url}: {status}, no access to '{self._database}'; give --token-file a token that may read it")
        try:
            content = json.loads(answer)
            problems = [content.get("error"), *(result.get("error") for result in content.get("results", ()))]
        except (ValueError, AttributeError) as error:
            raise Mistake(f"{self.url}: {status}, and the answer is not InfluxDB's; correct the address") from error
        problem = next(filter(None, problems), None)
        if status == 404 or str(problem).startswith("database not found"):
            raise Mistake(f"{self.url}: no database '{self._database}'; give --database, or in InfluxDB 2 map it to the bucket (DBRP)")
        if problem is None and status != 200:
            return f"{status} {content.get('message', '')}".rstrip()
        return problem

    def _ask(self, text: str) -> tuple[int, bytes]:
        asked = urlencode({"db": self._database, "q": text, "epoch": "ms"}).encode()
        request = urllib.request.Request(self.url, asked, self._headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except (OSError, ValueError) as error:
            raise Mistake(f"{self.url}: cannot be asked ({getattr(error, 'reason', error)})") from error
