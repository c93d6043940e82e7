"""Evaluation: benchmarks, grading, runs of all arms, statistics, reports."""
