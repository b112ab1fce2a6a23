"""The Jinja environment of chat templates: Hugging Face's, and bounded in what a template can allocate.

A template comes with a model from anywhere. Jinja's sandbox keeps it from Python's internals and from
changing what it is given, but `'a' * 10**9` is within its rules. So no value that a template makes may weigh
more than LIMIT, and operations that could overshoot by far are estimated before they run. Time is not
bounded: nested loops over long ranges can take long. Knows nothing of messages.

Kept apart from chat_template so that jinja2 is loaded only when something is rendered.
"""

import json
import re
from collections.abc import Callable, Iterable
from functools import update_wrapper
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

LIMIT = 1 << 24
"""The most that any value made by a template, and the prompt itself, may weigh (about: characters)."""

ENTRY = 64
"""Characters that an entry of a list or an object counts for: about the bytes it takes."""

SLACK = 16
"""Products of sizes are upper bounds, seldom near the result (a replacement is not made at each letter)."""

# fmt: off
STRUCTURAL = frozenset({
    "attr", "batch", "count", "d", "default", "dictsort", "first", "groupby", "items", "last", "length",
    "list", "map", "max", "min", "random", "reject", "rejectattr", "reverse", "select", "selectattr", "slice",
    "sort", "sum", "unique",
})
# fmt: on
"""Filters that hand on the entries of what they are given, without making text of them."""


class Refusal(TemplateError):  # noqa: N818  (a noun, as in sardonyx.runtime.errors)
    """The template called `raise_exception`: it does not take these messages."""


class Generation(Extension):
    """The `{% generation %}` block that marks the assistant's words for training: here, just its contents."""

    tags = {"generation"}  # noqa: RUF012  (declared so by jinja2)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_contents"), [], [], body).set_lineno(line)

    def _contents(self, caller: Macro) -> str:
        return caller()


class BoundedCode(CodeGenerator):
    """Compiles `a ~ b` to a call of the environment, as Jinja does other operators in a sandbox."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.concat(str(part) for part in environment.weighed((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write(")))")


class Sandbox(ImmutableSandboxedEnvironment):
    """As `transformers.utils.chat_template_utils` has it, with bounds. Raises SecurityError beyond them."""

    code_generator_class = BoundedCode
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        # Unoptimised: folding constants would run filters before they are bounded.
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols], optimized=False
        )
        self.finalize = self.weighed
        self.filters["tojson"] = tojson
        self.filters = {name: _bounded(name, filter_) for name, filter_ in self.filters.items()}
        self.globals["raise_exception"] = raise_exception
        del self.globals["lipsum"]  # text at random, any amount of it

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Joins the output of the template and of its macros and blocks; Jinja's is `''.join`."""
        taken, total = [], 0
        for part in parts:
            total += len(part)
            _allow(total)
            taken.append(part)
        return "".join(taken)

    @staticmethod
    def weighed(value: Any) -> Any:
        """The value itself, if its text would not be too large."""
        _allow(weight(value))
        return value

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _allow(_estimate(operator, left, right))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        method = getattr(__obj, "__wrapped__", __obj)  # str.format comes wrapped by Jinja
        subject = getattr(method, "__self__", None)
        if isinstance(subject, str):
            _allow_text_call(getattr(method, "__name__", ""), subject, [*args, *kwargs.values()])
        result = super().call(__context, __obj, *args, **kwargs)
        _allow(size(result))
        return result


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as Hugging Face writes it: neither escaped for HTML nor sorted, as Jinja's own filter would."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def raise_exception(message: str) -> None:
    """What templates call to refuse messages that they cannot render."""
    raise Refusal(message)


def size(value: Any) -> int:
    """What a value holds itself: characters, or entries; a number counts by what arithmetic on it costs."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, int):
        return _number(value.bit_length())
    return ENTRY * len(value) if isinstance(value, CONTAINERS) else 1


CONTAINERS = (dict, list, tuple, set, frozenset)


def weight(value: Any) -> int:
    """What the text of a value holds: what is nested counts as often as it occurs. Stops beyond LIMIT."""
    total, waiting = 0, [value]
    while waiting and total <= LIMIT:
        value = waiting.pop()
        total += size(value)
        if isinstance(value, CONTAINERS):
            waiting.extend(value)
            waiting.extend(value.values() if isinstance(value, dict) else ())
    return total


def _allow(amount: float) -> None:
    if amount > LIMIT:
        raise SecurityError(f"it makes a value of more than {LIMIT} characters")


def _estimate(operator: str, left: Any, right: Any) -> float:
    """At most this is the size of what a binary operator gives."""
    if operator == "%" and isinstance(left, str):
        return _formatted(left) + weight(right)
    if isinstance(left, int) and isinstance(right, int) and operator in ("*", "**"):
        bits = left.bit_length()
        return _number(bits + right.bit_length() if operator == "*" else bits * max(right, 0))
    if operator == "*" and isinstance(left, int) != isinstance(right, int):
        times, value = (left, right) if isinstance(left, int) else (right, left)
        return 0 if isinstance(value, float) else max(times, 0) * size(value)
    return size(left) + size(right)


def _number(bits: int) -> int:
    """By the square of its length, as goes the time of arithmetic; up to 64 bits, that is hardly anything."""
    return bits * bits // 64


def _formatted(pattern: str) -> float:
    """At most so much do the widths in a format (% or braces) ask for; computed ones are not allowed."""
    if re.search(r"%[^%a-zA-Z]*\*|:[^{}]*\{", pattern):
        raise SecurityError("it computes the width of a format")
    return len(pattern) + sum(int(digits[:9]) for digits in re.findall(r"\d+", pattern))


def _allow_text_call(name: str, subject: str, options: list[Any]) -> None:
    """A method of a text gives at most its length times the largest option (a width, a replacement)."""
    if name in ("format", "format_map"):
        _allow(_formatted(subject) + (1 + subject.count("{")) * weight(options))
    elif name == "join":
        _allow((1 + len(subject)) * weight(options))
    else:
        _allow_product(len(subject), options)


def _allow_product(held: int, options: list[Any]) -> None:
    largest = max((abs(option) if isinstance(option, int) else size(option) for option in options), default=0)
    _allow(max(held, largest * (1 + held) / SLACK))


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is refused too large a subject, product of subject and options, or result."""
    passed = 1 if hasattr(function, "jinja_pass_arg") else 0  # Jinja's context comes first
    held = size if name in STRUCTURAL else weight

    def call(*args: Any, **kwargs: Any) -> Any:
        subject, *options = args[passed:]
        options += kwargs.values()
        if name == "format":
            _allow_text_call("format", str(subject), options)
        else:
            _allow_product(held(subject), options)
        result = function(*args, **kwargs)
        _allow(size(result))
        return result

    return update_wrapper(call, function)
