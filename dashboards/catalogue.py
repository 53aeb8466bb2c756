"""All dashboards, in the order in which they are offered."""

from dashboards.fleet import FLEET
from dashboards.panel import Dashboard

DASHBOARDS: tuple[Dashboard, ...] = (FLEET,)

DASHBOARD: dict[str, Dashboard] = {dashboard.uid: dashboard for dashboard in DASHBOARDS}
