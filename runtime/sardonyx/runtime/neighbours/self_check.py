"""Whether a tokenizer that others wrote does what it is for. A wrong one makes nonsense without an error.

Programs have lost a vocabulary's merges or the spelling of its bytes on the way: the model then answers, but
to letters instead of words. So a text is taken apart and put together again before anything else is.
"""

from pathlib import Path

from sardonyx.runtime.errors import ArtifactError
from sardonyx.runtime.manifest import TOKENIZER_NAME
from sardonyx.runtime.tokenizer import Tokenizer

SAMPLE = "the people of this city have been waiting for a good time to see their house in the new light"
"""Of words that any vocabulary of words has whole, in letters that no normalization changes."""

OF_WORDS = 4096
"""Vocabularies at least this large hold words, or parts of them."""


def check_tokenizer(folder: Path, tokenizer: Tokenizer, vocab_size: int) -> None:
    """Raises ArtifactError when a text does not come back, comes out in single letters, or in tokens that the
    model does not have.
    """
    path = folder / TOKENIZER_NAME
    ids = tokenizer.encode(SAMPLE, add_special_tokens=False)
    cure = "get the tokenizer of the model that the graph was made of"
    if beyond := [i for i in ids if i >= vocab_size]:
        raise ArtifactError(f"{path}: makes token {beyond[0]}, but the model has {vocab_size}; {cure}")
    back = tokenizer.decode(ids)
    if "".join(back.split()).lower() != SAMPLE.replace(" ", ""):
        raise ArtifactError(f"{path}: makes {back[:40]!r}... of {SAMPLE[:40]!r}...; {cure}")
    if tokenizer.vocab_size >= OF_WORDS and len(ids) > len(SAMPLE) / 2:
        made = f"{len(ids)} tokens of {len(SAMPLE.split())} words"
        raise ArtifactError(f"{path}: makes {made}, so its merges are not read; {cure}")
