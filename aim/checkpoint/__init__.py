"""Read and write weights: this package's own files, AiM's and LlamaGen's official layouts, and the
hub that serves them.

Strict everywhere: a tensor that is missing, surplus or misshapen is named in the error, and so is a
configuration that this package cannot compute. Files are safetensors, but for LlamaGen's, of which
only tensors and plain values are read: no code runs.
"""

from aim.checkpoint.export import export
from aim.checkpoint.load import Loaded, is_tokenizer, load_model, load_tokenizer_of
from aim.checkpoint.official import export_official
from aim.checkpoint.ours import (
    copy_tokenizer,
    load_tokenizer,
    save_model,
    save_tokenizer,
    stored_dtype,
)
from aim.checkpoint.push import push
from aim.checkpoint.torch_file import Told

__all__ = [
    "Loaded",
    "Told",
    "copy_tokenizer",
    "export",
    "export_official",
    "is_tokenizer",
    "load_model",
    "load_tokenizer",
    "load_tokenizer_of",
    "push",
    "save_model",
    "save_tokenizer",
    "stored_dtype",
]
