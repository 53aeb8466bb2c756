"""What one machine needs when there is no broker, no database and no Grafana."""
