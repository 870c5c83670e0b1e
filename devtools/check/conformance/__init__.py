"""The conformance bench: one Stable Diffusion file, once as the host loads it and once inflated by this pack.

`python3 dev.py python -m devtools.check.conformance` puts every node of the host that has to do with a MODEL, and every
combination that people use by name, between both models and the sampler, compares, and writes docs/compatibility.md.
"""
