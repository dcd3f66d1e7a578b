"""One decoding step of AiM in fused kernels: mixing, projections, norms. Needs Triton; only ``models.fast`` imports it."""
