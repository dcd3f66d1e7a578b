"""Tensors in, tensors out. The only place that may import triton, mamba_ssm or causal_conv1d."""
