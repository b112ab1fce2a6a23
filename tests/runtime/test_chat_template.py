"""Chat templates: what they render, what they refuse, and what a hostile one cannot do."""

import subprocess
import sys
import tracemalloc
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sardonyx.runtime.chat_template import ChatTemplate
from sardonyx.runtime.errors import ArtifactError, RequestError
from sardonyx.runtime.template_sandbox import LIMIT, weight

SMOL = """{% for message in messages %}{% if loop.first and message.role != 'system' %}{{ '<|im_start|>system
You are a helpful assistant<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""
HELLO = [{"role": "user", "content": "Hello <b>&</b> 世界"}]


def render(source: str, messages: Any = HELLO, **options: Any) -> str:
    texts = {"bos_token": "<s>", "eos_token": "</s>"}
    return ChatTemplate(source, texts).render(messages, **options)


def test_a_conversation() -> None:
    system = "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n"
    user = "<|im_start|>user\nHello <b>&</b> 世界<|im_end|>\n"
    assert render(SMOL) == system + user + "<|im_start|>assistant\n"
    assert render(SMOL, add_generation_prompt=False) == system + user


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ bos_token }}{{ missing_token }}{{ eos_token }}", "<s></s>"),
        ("  {% if true %}\nx\n  {% endif %}\ny\n", "x\ny"),  # lstrip_blocks and trim_blocks
        ("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "012"),
        ("{% for i in range(4) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "023"),
        ("a{% generation %}{{ messages[0].role }}{% endgeneration %}b", "auserb"),
        ("{{ {'b': '<é>', 'a': [1, none, true]} | tojson }}", '{"b": "<é>", "a": [1, null, true]}'),
        ("{{ {'b': 1, 'a': 2} | tojson(indent=2, sort_keys=true) }}", '{\n  "a": 2,\n  "b": 1\n}'),
        ("{{ {'b': 'é'} | tojson(ensure_ascii=true, separators=(',', ':')) }}", '{"b":"\\u00e9"}'),
        ("{{ messages[0].content | upper }}", "HELLO <B>&</B> 世界"),
        ("{{ 'a' ~ 1 ~ none ~ missing ~ [2] }}", "a1None[2]"),
        ("{{ 'x' * 3 + '%03d' % 7 + '{:>4}'.format('y') + '%s-%s' | format(1, 2) }}", "xxx007   y1-2"),
        (
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = 1 %}{% endfor %}{{ ns.n }}",
            "1",
        ),
        ("{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}{{ twice('ab') }}", "abab"),
        ("{% set block %}{{ 'in' }} a block{% endset %}{{ block }}", "in a block"),
        ("{{ 2 ** 10 }} {{ 7 % 4 }} {{ 3 * 1.5 }} {{ [0] * 3 }} {{ 2 * 'ab' }}", "1024 3 4.5 [0, 0, 0] abab"),
        ("{{ ' pad '.strip().center(7) | replace('p', 'P') }}", "  Pad  "),
        ("{{ ['a', 'b'] | join(', ') }}{{ '-'.join(['c', 'd']) }}", "a, bc-d"),
        ("{{ 1700000000 | string }}{{ '{}'.format(1700000000) }}", "17000000001700000000"),
    ],
)
def test_the_language_is_that_of_hugging_face(source: str, text: str) -> None:
    assert render(source) == text


def test_the_clock_can_be_set() -> None:
    source = "{{ strftime_now('%d %b %Y') }}"
    assert render(source, now=datetime(2024, 7, 26)) == "26 Jul 2024"
    assert render(source)[-4:] == str(datetime.now().year)


def test_tools_documents_and_variables_reach_the_template() -> None:
    source = (
        "{% if tools %}{{ tools | length }}{% endif %}{{ documents[0].title }}{{ thinking }}{{ bos_token }}"
    )
    options = {"tools": [{"name": "f"}], "documents": [{"title": "T"}], "variables": {"thinking": True}}
    assert render(source, **options) == "1TTrue<s>"
    assert render(source, **options | {"variables": {"bos_token": "!"}}) == "1T!"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tools": [{"name": "f"}]}, "takes no 'tools'; it takes: bos_token, mood$"),
        ({"documents": []}, "takes no 'documents'"),
        ({"variables": {"moood": 1}}, "takes no 'moood'; it takes: bos_token, mood"),
        ({"variables": {"messages": []}}, "'messages' is not a variable"),
        ({"variables": {"strftime_now": 1}}, "'strftime_now' is not a variable"),
    ],
)
def test_what_the_template_would_ignore_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        render("{{ bos_token }}{{ mood }}{{ messages }}", **options)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "at least one"),
        ("text", "must be a list"),
        ({"role": "user"}, "must be a list"),
        ([*HELLO, "text"], r"messages\[1\]: must be an object"),
        ([{"content": "x"}], r"messages\[0\]: role"),
        ([{"role": 1, "content": "x"}], r"messages\[0\]: role"),
        ([*HELLO, *HELLO, {"role": "user"}], r"messages\[2\]: content"),
        ([{"role": "user", "content": None, "tool_calls": []}], r"messages\[0\]: content"),
        ([{"role": "user", "content": 3}], r"messages\[0\]: content"),
        ([{"role": "user", "content": [{"type": "text"}, "x"]}], r"messages\[0\]: content\[1\]"),
        ([{"role": "user", "content": [{"text": "x"}]}], r"messages\[0\]: content\[0\]"),
    ],
)
def test_a_malformed_message_is_named_by_its_place(messages: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        render(SMOL, messages)


def test_malformed_tools_are_named_by_their_place() -> None:
    with pytest.raises(RequestError, match=r"tools\[1\]: must be an object, not str"):
        render("{{ tools }}", tools=[{}, "f"])


def test_parts_and_tool_calls_are_content() -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]},
    ]
    assert (
        render("{{ messages[0].content[0].text }}{{ messages[1].tool_calls[0].function.name }}", messages)
        == "hif"
    )


def test_a_refusal_is_passed_on_in_its_own_words() -> None:
    with pytest.raises(RequestError, match=r"refuses these messages: System role not supported!$"):
        render("{{ raise_exception('System role\n  not supported!') }}")


@pytest.mark.parametrize(
    "source", ["{{ messages[0].a.b }}", "{{ 1 / 0 }}", "{{ messages[0].content + none }}"]
)
def test_a_failure_inside_is_about_these_messages(source: str) -> None:
    with pytest.raises(RequestError, match="cannot render these messages"):
        render(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("ok\n{% if %}", "line 2"),
        ("{{ 'x' | no_such_filter }}", "no_such_filter"),
        ("{% for x in messages %}", "line 1"),
        ("{{ " + "(" * 400 + ")" * 400 + " }}", "too deeply"),
    ],
)
def test_a_broken_template_is_the_artifacts_fault(source: str, message: str) -> None:
    with pytest.raises(ArtifactError, match=rf"chat_template\.jinja: .*{message}"):
        render(source)


DOUBLE = (
    "{{%set ns = namespace(x={}) %}}{{% for i in range(60) %}}{{% set ns.x = {} %}}{{%endfor%}}{{{{ns.x}}}}"
)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ 'a' * 10**9 }}",
        "{{ [1] * 10**9 }}",
        "{{ 10**9 * 'a' }}",
        "{{ 10**(10**9) }}",
        "{{ 'a' | center(10**9) }}",
        "{{ 'a'.ljust(10**10) }}",
        "{{ ['a'] | map('center', 10**9) | list }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (10**9, 1) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 10**9) }}",
        "{{ '{0:9999999}{0:9999999}'.format(1) }}",
        "{% set x = 'a' * 2**23 %}{{ x.replace('a', x) }}",
        "{% set x = 'a' * 2**23 %}{{ x | replace('a', x) }}",
        "{% set x = 'a' * 2**20 %}{{ x.join(x) }}",
        "{% set x = '\n' * 2**22 %}{{ x | indent(10000, true) }}",
        "{% for i in range(100000) %}{{ 'a' * 1000 }}{% endfor %}",
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        DOUBLE.format("'aa'", "ns.x ~ ns.x"),
        DOUBLE.format("'aa'", "ns.x + ns.x"),
        DOUBLE.format("'aa'", "'%s%s' % (ns.x, ns.x)"),
        DOUBLE.format("'aa'", "'{0}{0}'.format(ns.x)"),
        DOUBLE.format("'aa'", "[ns.x, ns.x] | join"),
        DOUBLE.format("3", "ns.x * ns.x"),
        "{% set ns = namespace(x='aa') %}{% for i in range(60) %}"
        "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
    ],
)
def test_a_hostile_template_is_stopped_early(source: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError, match="does what a template must not"):
            render(source)
        assert tracemalloc.get_traced_memory()[1] < 16 * LIMIT  # bytes at the peak
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("nested", ["[ns.x, ns.x]", "{1: ns.x, 2: ns.x}"])
@pytest.mark.parametrize("text", ["ns.x", "ns.x | tojson", "ns.x ~ ''", "'%s' % ns.x", "ns.x | string"])
def test_a_value_that_holds_itself_often_is_never_written_out(nested: str, text: str) -> None:
    with pytest.raises(ArtifactError, match="does what a template must not"):
        render(DOUBLE.format("[1]", nested).replace("ns.x}}", text + "}}"))


def test_messages_beyond_the_limit_are_the_callers_fault() -> None:
    with pytest.raises(RequestError, match="the messages hold more than"):
        render("{{ messages | length }}", [{"role": "user", "content": "x" * (LIMIT + 1)}])


def test_a_long_document_passes() -> None:
    text = "word " * 500_000
    assert render(
        "{{ messages[0].content.replace('word', 'term') | trim }}", [{"role": "user", "content": text}]
    ) == (text.replace("word", "term").strip())


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(json_like)
def test_the_weight_of_a_value_bounds_its_text(value: Any) -> None:
    assert len(str(value)) <= 24 + 10 * weight(value)  # quotes, escapes such as \\U0001F600, brackets, commas


def test_jinja_is_loaded_only_to_render() -> None:
    code = """if True:
        import sys
        from sardonyx.runtime.chat_template import ChatTemplate
        ChatTemplate("", {})
        sys.exit("jinja2" in sys.modules)"""
    subprocess.run([sys.executable, "-c", code], check=True)
