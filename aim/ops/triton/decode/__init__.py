"""One decoding step of either prior in fused kernels. Needs Triton, but for ``rows``."""
