"""The judge on simulated traffic: what it turns back, how soon, and what it must not turn back."""
