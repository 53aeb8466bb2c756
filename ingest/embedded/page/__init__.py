"""The local page of the embedded mode: static files, served at the root beside `/api/`."""

from pathlib import Path

STATIC = Path(__file__).parent / "static"
"""Holds index.html and all that it loads. Every reference in it is relative to the page."""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""What the page needs, and no more: nothing inline, nothing from elsewhere, no HTML made of data."""
