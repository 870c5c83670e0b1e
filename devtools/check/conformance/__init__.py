"""The conformance bench: one Stable Diffusion file, loaded by the host, and this pack's video MODELs of it.

`python3 dev.py python -m devtools.check.conformance` applies every node of the host that acts on a MODEL or on sampling
to both, and well-known combinations of nodes. It samples with both, compares, and writes RESULTS.md. The video MODELs
are inflated, or made with motion weights that do not move yet.
"""
