"""A Hugging Face checkpoint to a float32 graph by optimum, which traces what transformers computes.

The way for architectures of which there is no description. optimum, torch and transformers are loaded here,
and only when this is used.
"""

import logging
import warnings
from pathlib import Path

from sardonyx.runtime.errors import MissingExtra, SardonyxError, SourceError
from sardonyx.runtime.neighbours import read
from sardonyx.runtime.neighbours.folder import Neighbour

TASK = "text-generation-with-past"


def trace(source: Path, folder: Path) -> Neighbour:
    """Write the graph of a checkpoint into a folder, and look at it. Raises MissingExtra, or SourceError with
    what optimum says when it cannot.
    """
    if not (source / "config.json").is_file():
        raise SourceError(f"{source}: optimum takes a Hugging Face folder, with config.json and weights")
    try:
        from optimum.exporters.onnx import main_export
    except ImportError:
        raise MissingExtra("optimum-onnx", "optimum") from None
    logging.getLogger("optimum").setLevel(logging.ERROR)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a tracer warns of every shape it fixes; what it made is measured
        try:
            main_export(
                str(source),
                folder,
                task=TASK,
                device="cpu",
                dtype="fp32",
                do_validation=False,
                local_files_only=True,
            )
        except Exception as error:  # of any kind, from any of three packages
            said = str(error).strip().partition("\n")[0] or type(error).__name__
            raise SourceError(f"{source}: optimum cannot export it: {said}") from error
    try:
        neighbour = read(folder)
    except SardonyxError as error:
        raise SourceError(f"{source}: what optimum made of it cannot be run: {error}") from None
    if neighbour is None:
        raise SourceError(f"{source}: optimum wrote no decoder of text")
    return neighbour
