"""Adapters to the stores. Each is the only importer of its client library."""
