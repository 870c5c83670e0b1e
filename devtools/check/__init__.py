"""Checks: the test suite, the conformance bench, and test weights."""
