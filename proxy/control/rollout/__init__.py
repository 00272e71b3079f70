"""Rollouts: the plan as it was when one began, and the machine that runs it. Pure."""
