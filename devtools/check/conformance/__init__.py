"""The conformance bench: one Stable Diffusion file, loaded by the host and inflated by this pack.

`python3 dev.py python -m devtools.check.conformance` applies every node of the host that acts on a MODEL or on sampling
to both models, and well-known combinations of nodes. It samples with both, compares, and writes RESULTS.md.
"""
