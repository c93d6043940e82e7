"""Capacity planning: from queries per second to replicas and latencies."""
