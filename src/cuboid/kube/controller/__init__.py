"""The frame that controllers run in: what they see, what they ask for, and the loop that does it."""
