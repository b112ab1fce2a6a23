"""The files that Hugging Face puts beside any model, whatever its weights are: JSON and tokenizers.

Export reads them of checkpoints, the runtime of neighbours' folders.
"""
