"""A real LLM on the scripted backend: it repeats what it is told, letter by letter.

To "forever" it never stops answering, slowly. Without a chat template it writes dots.
"""

import time
from collections.abc import Sequence

import msgspec
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from sardonyx.runtime.backends.scripted import ScriptedProgram, scripted_manifest
from sardonyx.runtime.chat_template import ChatTemplate
from sardonyx.runtime.llm import LLM, MEMORY
from sardonyx.runtime.manifest import MODEL_NAME, FileRecord, Manifest
from sardonyx.runtime.model import Memory
from sardonyx.runtime.tokenizer import Tokenizer as RuntimeTokenizer

SPECIAL = ["<end>", "<system>", "<user>", "<assistant>"]
VOCABULARY = [*SPECIAL, *map(chr, range(32, 127)), "\n", "é", "🦜"]
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
PACE_S = 0.02
FILES = {MODEL_NAME: FileRecord(bytes=0, sha256="of nothing")}


def script(tokens: Sequence[int]) -> list[float]:
    """All certainty on the next letter of the answer."""
    letters = [VOCABULARY[token] for token in tokens]
    following = "."
    if "<assistant>" in letters:
        start = len(letters) - 1 - letters[::-1].index("<assistant>")
        user = max((i for i in range(start) if letters[i] == "<user>"), default=start)
        said, answered = "".join(letters[user + 1 : start]), len(letters) - start - 1
        following = said[answered] if answered < len(said) else "<end>"
        if said == "forever":
            time.sleep(PACE_S)
            following = "on "[answered % 3]
    return [float(letter == following) for letter in VOCABULARY]


def scripted_llm(*, template: str | None = TEMPLATE, context: int = 256, memory: Memory = MEMORY) -> LLM:
    """Loads in no time, needs no files."""
    inner = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(VOCABULARY)}, unk_token="<end>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    inner.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    return LLM(
        msgspec.structs.replace(scripted_llm_manifest(context), files=FILES),
        RuntimeTokenizer(inner),
        None if template is None else ChatTemplate(template, {}),
        ScriptedProgram(script),
        memory=memory,
    )


def scripted_llm_manifest(context: int = 256, hidden_size: int = 0) -> Manifest:
    manifest = scripted_manifest(len(VOCABULARY), context, eos=[VOCABULARY.index("<end>")])
    return msgspec.structs.replace(manifest, name="parrot", hidden_size=hidden_size)
