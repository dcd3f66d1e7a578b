"""AiM: the readable model, and its step for a GPU, for a CPU and by mamba-ssm's kernels."""
