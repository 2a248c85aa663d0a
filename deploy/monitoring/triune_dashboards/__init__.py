"""Grafana's dashboards of Triune, made with Grafana's own typed SDK. Knows names of metrics; imports nothing of Triune."""
