"""One decoding step of AiM in fused kernels: mixing, projections, norms. Needs Triton, but for
``window``.
"""
