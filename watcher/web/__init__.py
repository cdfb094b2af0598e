"""The daemon's face to machines and dashboards: `/livez`, `/readyz`, `/metrics`."""
