"""All dashboards, in the order in which they are offered."""

from dashboards.device import DEVICE
from dashboards.fleet import FLEET
from dashboards.panel import Dashboard
from dashboards.pipeline import PIPELINE
from dashboards.safety import SAFETY
from dashboards.usage import USAGE

DASHBOARDS: tuple[Dashboard, ...] = (SAFETY, FLEET, DEVICE, USAGE, PIPELINE)

DASHBOARD: dict[str, Dashboard] = {dashboard.uid: dashboard for dashboard in DASHBOARDS}
