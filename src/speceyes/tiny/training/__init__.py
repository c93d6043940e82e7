"""Training of the bundled models; imported by nothing outside."""
