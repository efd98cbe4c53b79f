"""The host's end of the agent's channel, and what a guest is booted from. Knows bytes and calls, not pods."""
