"""Load tests of a server: rising request rates, a share of faults, and one end for each request."""
