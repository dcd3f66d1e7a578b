"""LlamaGen's Transformer: the readable model, and its step for a GPU and for a CPU."""
