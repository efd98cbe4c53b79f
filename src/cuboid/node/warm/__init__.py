"""Machines that wait for pods: templates, clones of them made ahead of demand, and how many of those wait."""
