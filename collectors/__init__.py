"""Collectors read devices; they know nothing of the agent that runs them."""
