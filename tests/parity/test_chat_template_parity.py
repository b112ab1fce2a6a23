"""Chat templates render to what transformers renders: shapes of well-known models, many kinds of chat."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from sardonyx.runtime.chat_template import ChatTemplate
from sardonyx.runtime.errors import RequestError

pytestmark = pytest.mark.parity

TEMPLATES = {path.stem: path.read_text() for path in (Path(__file__).parent / "templates").glob("*.jinja")}

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": 'The weather, "now" <or> later & there: 天気',
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Zürich", "days": 2}}}
USER = {"role": "user", "content": "  What's <b>new</b>?\n\n\tNothing & 世界 👩‍👩‍👧 "}
SYSTEM = {"role": "system", "content": "Be brief.\n"}
ANSWER = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nNot much.\n"}
CHATS: dict[str, list[dict[str, Any]]] = {
    "one": [USER],
    "system": [SYSTEM, USER],
    "turns": [USER, ANSWER, USER, ANSWER, USER],
    "ends with an answer": [SYSTEM, USER, ANSWER],
    "two users": [USER, USER],
    "empty content": [{"role": "user", "content": ""}],
    "parts": [{"role": "user", "content": [{"type": "text", "text": " a "}, {"type": "image"}]}],
    "tool use": [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": '{"degrees": 21}'},
        ANSWER,
    ],
    "two calls": [USER, {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]}],
}
TEXTS = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.mark.parametrize("tools", [None, [TOOL], [TOOL, TOOL]], ids=["no tools", "a tool", "two tools"])
@pytest.mark.parametrize("prompt", [True, False], ids=["prompt", "no prompt"])
@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_renders_what_transformers_renders(
    name: str, chat: str, prompt: bool, tools: list[Any] | None
) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    template = ChatTemplate(TEMPLATES[name], TEXTS)
    try:
        ((expected,), _) = render_jinja_template(
            [CHATS[chat]], tools, chat_template=TEMPLATES[name], add_generation_prompt=prompt, **TEXTS
        )
    except Exception:  # a template's own refusal, or a TypeError within it
        with pytest.raises(RequestError):
            template.render(CHATS[chat], add_generation_prompt=prompt, tools=tools)
        return
    if tools and "tools" not in template.names:  # transformers ignores what we refuse
        with pytest.raises(RequestError, match="takes no 'tools'"):
            template.render(CHATS[chat], add_generation_prompt=prompt, tools=tools)
        return
    assert template.render(CHATS[chat], add_generation_prompt=prompt, tools=tools) == expected


def test_variables_reach_the_template_as_they_do_there() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    given = {"enable_thinking": False}
    ((expected,), _) = render_jinja_template(
        [[USER]], chat_template=TEMPLATES["qwen"], add_generation_prompt=True, **given
    )
    assert "</think>" in expected
    assert ChatTemplate(TEMPLATES["qwen"], {}).render([USER], variables=given) == expected


def test_most_of_the_chats_render_and_some_are_refused() -> None:
    """The comparison above is not one of errors with errors."""
    rendered = 0
    for source in TEMPLATES.values():
        for messages in CHATS.values():
            try:
                rendered += bool(ChatTemplate(source, TEXTS).render(messages, now=datetime(2025, 1, 1)))
            except RequestError:
                continue
    assert len(TEMPLATES) * len(CHATS) * 0.6 < rendered < len(TEMPLATES) * len(CHATS)
