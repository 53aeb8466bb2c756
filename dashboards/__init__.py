"""Dashboards as code: each panel is written once, and compiled for Grafana and for the local page."""
