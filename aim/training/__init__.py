"""Training of both stages: the tokenizer and its loss networks, then the prior on the tokenizer's
codes.
"""
