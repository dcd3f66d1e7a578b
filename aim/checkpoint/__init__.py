"""Read and write weights: this package's own files, AiM's released layout, and the hub that serves it.

Strict everywhere: a tensor that is missing, surplus or misshapen is named in the error, and so is a configuration that
this package cannot compute. Only safetensors files are read; nothing is unpickled.
"""

from aim.checkpoint.load import Loaded, load_model
from aim.checkpoint.official import export_official
from aim.checkpoint.ours import load_tokenizer, save_model, save_tokenizer

__all__ = ["Loaded", "export_official", "load_model", "load_tokenizer", "save_model", "save_tokenizer"]
