"""The VQ tokenizer: the readable model, and its decoder for a GPU."""
