"""A simulated plant and broker, so that the agent can be seen at work without either."""
