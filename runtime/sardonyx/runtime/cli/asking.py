"""What a command asks of a model: an answer as it comes, several, the best, or what most come to."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sardonyx.runtime.cli import answers
from sardonyx.runtime.cli.options import Given, refuse_both
from sardonyx.runtime.cli.terminal import write_answer
from sardonyx.runtime.errors import RequestError

if TYPE_CHECKING:
    from sardonyx.runtime.answer import Completion
    from sardonyx.runtime.llm import LLM
    from sardonyx.runtime.params import SamplingParams
    from sardonyx.runtime.prompts import Prompt
    from sardonyx.runtime.selection import Consensus
    from sardonyx.runtime.strategies import Algorithm


@dataclass(frozen=True)
class Ask:
    """The options that say how many answers there are to be, and what becomes of them."""

    n: int
    best_of: int | None
    self_consistency: int | None
    extract: str | None
    as_json: bool

    def check(self, algorithm: Given) -> None:
        """Raises RequestError for options that do not go together, before any model is loaded."""
        selecting = {"--best-of": self.best_of, "--self-consistency": self.self_consistency}
        refuse_both({"-n": self.n > 1, **{flag: value is not None for flag, value in selecting.items()}})
        if self.extract is not None:
            from sardonyx.runtime.selection import last_match

            if self.self_consistency is None:
                raise RequestError("--extract says what --self-consistency votes on, which is not given")
            last_match(self.extract)
        for flag, value in selecting.items():
            if value is not None and algorithm:
                asked = " and ".join(algorithm)
                raise RequestError(f"{flag} draws its answers one token at a time; leave out {asked}")

    def __call__(
        self, llm: "LLM", prompt: "Prompt", params: "SamplingParams", algorithm: "Algorithm"
    ) -> None:
        """Ask, and show what comes."""
        from sardonyx.runtime.strategies.sample import Sample

        count = max(self.n, self.best_of or 0, self.self_consistency or 0)
        if count > 1 and isinstance(algorithm, Sample) and not (params.temperature or params.dynatemp_range):
            raise RequestError(f"at temperature 0 all {count} answers are the same; give a --temperature")
        if not self.as_json and self.n == 1 and self.best_of is None and self.self_consistency is None:
            stream = llm.stream(prompt, params, algorithm)
            write_answer(stream)
            told = drawn = [stream.completion]
        else:
            drawn, consensus = self._drawn(llm, prompt, params, algorithm)
            told = drawn if self.best_of is None else drawn[:1]
            if self.as_json:
                named = {"model": llm.manifest.name, "recipe": llm.manifest.recipe}
                answers.print_json(named | answers.as_json(drawn, llm.tokenizer.decode, consensus))
            elif consensus:
                answers.show_consensus(consensus)
            else:
                answers.show(told)
            if consensus and consensus.value is None:
                raise RequestError(f"none of {len(drawn)} answers has anything in it to vote on")
        if not self.as_json:
            answers.tell_logprobs(told, llm.tokenizer.decode)
            answers.tell_usage(drawn, params.max_tokens)

    def _drawn(
        self, llm: "LLM", prompt: "Prompt", params: "SamplingParams", algorithm: "Algorithm"
    ) -> "tuple[list[Completion], Consensus | None]":
        """All answers, best first if they are ranked, and what they come to if they are voted on."""
        from sardonyx.runtime.selection import last_match, last_number

        consensus = None
        if self.self_consistency is not None:
            extract = last_number if self.extract is None else last_match(self.extract)
            consensus = llm.self_consistency(prompt, self.self_consistency, extract, params)
            found = list(consensus.completions)
        elif self.best_of is not None:
            found = llm.best_of(prompt, self.best_of, params)
        else:
            return llm.generate_n(prompt, self.n, params, algorithm), None
        if params.logprobs is None:  # they were noted to rank by, not asked for
            found = [replace(one, logprobs=None) for one in found]
        return found, consensus
