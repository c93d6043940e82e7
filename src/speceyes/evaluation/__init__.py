"""What the funnel is worth: grading, statistics, the demo and its report."""
