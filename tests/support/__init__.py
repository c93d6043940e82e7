"""Helpers that the tests share, and the rules that pytest applies to all of them."""
