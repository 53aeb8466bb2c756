"""The secrets that this product and its stack make, which no common pattern knows."""

import math
import re
from collections import Counter
from collections.abc import Generator
from typing import Any

from detect_secrets.plugins.base import RegexBasedDetector

KIND = "Secret of this product"
LEAST_ENTROPY_BITS = 4.0
"""Per character. Of 200,000 passwords of ours none had less than 4.2; the words of a long name have less than 4."""


def entropy_bits(text: str) -> float:
    """Shannon's, per character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


class ProductSecretDetector(RegexBasedDetector):
    secret_type = KIND

    denylist = [
        # secrets.token_urlsafe(32): passwords of devices and of the worker, tokens, keys of `make secrets`
        re.compile(r"(?<![\w/+=.-])(?=[\w-]*[A-Z])(?=[\w-]*[a-z])([\w-]{43})(?![\w/+=.-])", re.ASCII),
        # a token that InfluxDB made
        re.compile(r"(?<![\w/+-])([\w-]{86}==)", re.ASCII),
        # what Mosquitto keeps of a password
        re.compile(r"\$([67]\$(?:\d+\$)?[A-Za-z0-9+/]{12,}={0,2}\$[A-Za-z0-9+/]{40,}={0,2})"),
        # a service account of Grafana
        re.compile(r"(gl(?:sa|c)_[A-Za-z0-9]{32}_[0-9a-f]{8})"),
    ]

    def analyze_string(self, string: str, **kwargs: Any) -> Generator[str, None, None]:
        for found in super().analyze_string(string, **kwargs):
            if entropy_bits(found) >= LEAST_ENTROPY_BITS:
                yield found
