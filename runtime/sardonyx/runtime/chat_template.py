"""Messages to a prompt, as the model was taught to read them: renders the artifact's Jinja chat template.

Does what Hugging Face's `apply_chat_template` does, in the same environment (template_sandbox), but refuses
what that would silently ignore: tools or documents given to a template that has no place for them, and
unknown variables. It knows nothing of tokens. The text holds its special tokens: encode it with
`add_special_tokens=False`, or BOS is there twice.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sardonyx.runtime.errors import ArtifactError, RequestError
from sardonyx.runtime.manifest import CHAT_TEMPLATE_NAME

if TYPE_CHECKING:
    import jinja2

Message = Mapping[str, Any]
"""`role`, and `content` (text, or a list of parts, each with a `type`); `tool_calls` may stand in for
content."""

GIVEN = ("messages", "tools", "documents", "add_generation_prompt")


class ChatTemplate:
    """A chat template and the special tokens that it may name (`bos_token`, `eos_token`, ...).

    jinja2 is loaded, and the template compiled, when it is first rendered.
    """

    def __init__(self, source: str, texts: Mapping[str, str]) -> None:
        self.source = source
        self.texts = texts

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
        now: datetime | None = None,
    ) -> str:
        """The prompt for these messages; with `add_generation_prompt`, up to where the model begins.

        `variables` are the template's own switches (`enable_thinking`, ...), which may also replace special
        tokens; `now` is what the template's `strftime_now` tells, by default the time of day.

        Raises RequestError for messages that are malformed or that the template refuses or cannot render, and
        for what it would ignore. Raises ArtifactError if the template is broken, breaks out, or makes too
        much text.
        """
        _check(messages, tools, documents)
        variables = variables or {}
        self._check_used(variables, tools=tools is not None, documents=documents is not None)
        given = {
            "messages": messages,
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt,
        }
        return self._run(
            {**self.texts, **variables, **given, "strftime_now": (now or datetime.now()).strftime}
        )

    def _run(self, context: dict[str, Any]) -> str:
        from jinja2.exceptions import SecurityError

        from sardonyx.runtime.template_sandbox import LIMIT, Refusal, weight

        if weight(context["messages"]) > LIMIT:
            raise RequestError(
                f"the messages hold more than the {LIMIT} characters that a chat template may take"
            )
        template = self._template
        try:
            return template.render(context)
        except Refusal as refusal:
            raise RequestError(
                f"the model's chat template refuses these messages: {_line(refusal)}"
            ) from None
        except (SecurityError, MemoryError, RecursionError) as error:
            raise ArtifactError(
                f"{CHAT_TEMPLATE_NAME}: does what a template must not ({_line(error)})"
            ) from None
        except Exception as error:  # whatever an expression in the template can raise
            reason = f"{type(error).__name__}: {_line(error)}"
            raise RequestError(f"the model's chat template cannot render these messages ({reason})") from None

    @cached_property
    def _template(self) -> "jinja2.Template":
        from jinja2.exceptions import TemplateSyntaxError

        from sardonyx.runtime.template_sandbox import Sandbox

        try:
            return Sandbox().from_string(self.source)
        except TemplateSyntaxError as error:
            raise ArtifactError(
                f"{CHAT_TEMPLATE_NAME}: line {error.lineno}: {_line(error)}; export the model again"
            ) from None
        except RecursionError:
            raise ArtifactError(f"{CHAT_TEMPLATE_NAME}: nested too deeply to be a chat template") from None

    @cached_property
    def names(self) -> frozenset[str]:
        """All names that the template takes from outside, those that are always given among them."""
        from jinja2 import meta

        tree = self._template.environment.parse(self.source)
        return frozenset(meta.find_undeclared_variables(tree)) - {"raise_exception", "strftime_now"}

    def _check_used(self, variables: Mapping[str, Any], tools: bool, documents: bool) -> None:
        """Nothing that a caller asks for may be ignored."""
        if reserved := sorted(variables.keys() & {*GIVEN, "raise_exception", "strftime_now"}):
            raise RequestError(
                f"{reserved[0]!r} is not a variable of chat templates; it has an option of its own"
            )
        asked = [*variables, *["tools"] * tools, *["documents"] * documents]
        if asked and (unknown := [name for name in asked if name not in self.names]):
            known = ", ".join(sorted(self.names - {*GIVEN[:1], *GIVEN[3:]})) or "none"
            raise RequestError(f"the model's chat template takes no {unknown[0]!r}; it takes: {known}")


def _check(
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] | None,
    documents: Sequence[Mapping[str, Any]] | None,
) -> None:
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise RequestError("messages must be a list of at least one message")
    for place, message in enumerate(messages):
        if fault := _fault(message):
            raise RequestError(f"messages[{place}]: {fault}")
    for name, things in (("tools", tools), ("documents", documents)):
        for place, thing in enumerate(things or ()):
            if not isinstance(thing, Mapping):
                raise RequestError(f"{name}[{place}]: must be an object, not {type(thing).__name__}")


def _fault(message: object) -> str | None:
    """What is wrong with a message, None if nothing is."""
    if not isinstance(message, Mapping):
        return f"must be an object with role and content, not {type(message).__name__}"
    if not isinstance(message.get("role"), str):
        return "role must be text (system, user, assistant, ...)"
    content = message.get("content")
    if isinstance(content, str) or (content is None and message.get("tool_calls")):
        return None
    if not isinstance(content, list):
        return "content must be text or a list of parts"
    for place, part in enumerate(content):
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            return f"content[{place}] must be an object with a type"
    return None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
