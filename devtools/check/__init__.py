"""Checks: the test suite, the conformance bench, and what tests are made of."""
