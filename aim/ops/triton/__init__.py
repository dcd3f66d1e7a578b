"""This package's Triton kernels, each beside a readable twin in ``aim.ops``."""
