"""The networks: AiM and its VQ tokenizer."""
