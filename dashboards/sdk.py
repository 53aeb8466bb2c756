"""The Foundation SDK of Grafana, in one place: the classic model of dashboards and of the panels that are used here."""

import warnings

with warnings.catch_warnings():
    # The SDK prefers the second version of the dashboard model, which files and Grafana 11 do not take.
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.cog.variants import Dataquery
    from grafana_foundation_sdk.models import bargauge, common, stat, statetimeline, table
    from grafana_foundation_sdk.models import dashboard as model
    from grafana_foundation_sdk.models import timeseries as series

__all__ = ["JSONEncoder", "Dataquery", "bargauge", "common", "model", "register_default_plugins", "series", "stat", "statetimeline", "table"]
