"""Turnout: a traffic-splitting reverse proxy for zero-downtime deployments."""

__version__ = "0.1.0"
