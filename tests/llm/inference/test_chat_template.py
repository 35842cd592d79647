"""A conversation becomes the text that the model was trained to go on from."""

import json

import pytest

from functions.llm.inference import template_sandbox
from functions.llm.inference.chat_template import MARKED_TEMPLATE, PLAIN_TEMPLATE, ChatTemplate, Conversation
from functions.llm.inference.errors import InvalidOptionError, InvalidPromptError
from functions.llm.tokenizers import ByteTokenizer, train_bpe

TALK = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "A raven."},
    {"role": "user", "content": "Where?"},
)
TOOL = {"type": "function", "function": {"name": "fly", "parameters": {}}}


def test_a_model_without_marks_goes_on_from_a_dialogue(tmp_path):
    """Written as people write one; it ends where the user would speak again."""
    template = ChatTemplate.of(tmp_path, ByteTokenizer())
    assert template.render(Conversation(TALK)) == (
        "Be brief.\n\nUser: Who?\nAssistant: A raven.\nUser: Where?\nAssistant:"
    )
    assert template.stops == ("\nUser:",)
    assert template.source == PLAIN_TEMPLATE


def test_a_vocabulary_with_marks_is_spoken_to_with_them(tmp_path):
    """Every turn between its own, and the end of an answer is a token."""
    tokenizer = train_bpe(["who where raven"], 280)
    template = ChatTemplate.of(tmp_path, tokenizer)
    assert template.source == MARKED_TEMPLATE
    assert template.render(Conversation(TALK)) == (
        "<|prompt|>Be brief.\n\nWho?<|endprompt|><|answer|>A raven.<|endanswer|><|prompt|>Where?<|endprompt|><|answer|>"
    )
    assert (template.eos_token, template.stops) == ("<|endanswer|>", ())
    assert template.render(Conversation(TALK[:2], add_generation_prompt=False)).endswith("<|endprompt|>")


PUBLISHED = "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m.content }}\n{% endfor %}{{ eos_token }}"


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": {"chat_template": PUBLISHED}},
        {"chat_template.jinja": PUBLISHED},
        {"tokenizer_config.json": {"chat_template": PUBLISHED}},
        {"tokenizer_config.json": {"chat_template": [{"name": "x"}, {"name": "default", "template": PUBLISHED}]}},
        {"chat_template.jinja": PUBLISHED, "tokenizer_config.json": {"chat_template": "another"}},
    ],
)
def test_a_checkpoint_brings_its_own(tmp_path, files):
    """In any of the three places where people publish one."""
    marks = {"bos_token": "<s>", "eos_token": {"content": "</s>"}}
    files = {**files, "tokenizer_config.json": {**marks, **files.get("tokenizer_config.json", {})}}
    for name, content in files.items():
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    template = ChatTemplate.of(tmp_path, ByteTokenizer())
    assert template.render(Conversation(TALK[1:2])) == "<s>[user] Who?\n</s>"
    assert template.stops == ()


def test_what_cannot_be_read_is_as_if_it_were_not_there(tmp_path):
    """A broken file of somebody else's does not keep a model from answering."""
    (tmp_path / "tokenizer_config.json").write_text("{")
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    assert ChatTemplate.of(tmp_path, ByteTokenizer()).source == PLAIN_TEMPLATE


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% for %}", "Expected"),
        ("{{ messages[9].content.x }}", "has no"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{{ 1 / 0 }}", "division"),
        ("{{ messages | tojson(1, 2, 3) }}", "argument"),
    ],
)
def test_a_template_that_refuses_or_breaks_is_the_prompts_fault(source, said):
    """Its own words are passed on; nothing of Python is within its reach."""
    with pytest.raises(InvalidPromptError, match=said):
        ChatTemplate(source).render(Conversation(TALK))


def test_tools_need_a_template_that_knows_them():
    """Those that know them see them as they were sent, and whoever does not is not given them in vain."""
    knowing = ChatTemplate("{% if tools %}{{ tools | tojson }}{% endif %}{{ messages[0].content }}")
    assert knowing.render(Conversation(TALK, (TOOL,))) == json.dumps([TOOL]) + "Be brief."
    assert knowing.render(Conversation(TALK)) == "Be brief."
    with pytest.raises(InvalidOptionError, match="no place"):
        ChatTemplate(PLAIN_TEMPLATE).render(Conversation(TALK, (TOOL,)))


def test_options_are_variables_that_replace_nothing():
    """What the conversation itself says stands."""
    template = ChatTemplate("{{ thinking }} {{ messages | length }} {{ 'é<' | tojson }}")
    assert template.render(Conversation(TALK, options={"thinking": "off", "messages": []})) == 'off 4 "é<"'


FOR_EVER = [
    "{% set r = range(99999) %}{% for i in r %}{% for j in r %}{% endfor %}{% endfor %}",
    "{% set r = range(99999) %}{% for i in r if r | select('==', -1) | list %}{% endfor %}",
    "{% for i in range(99999) recursive %}{{ loop(range(99999)) if loop.depth < 9 }}{% endfor %}",
    "{% macro twice(n) %}{% if n %}{{ twice(n - 1) }}{{ twice(n - 1) }}{% endif %}{% endmacro %}{{ twice(80) }}",
]


@pytest.mark.parametrize("source", FOR_EVER)
def test_a_template_that_would_go_on_for_ever_is_ended(source, monkeypatch):
    """Its thread would be busy long after the client has left."""
    monkeypatch.setattr(template_sandbox, "MAX_SECONDS", 0.05)
    with pytest.raises(InvalidPromptError, match=r"takes more than 0\.05 s"):
        ChatTemplate(source).render(Conversation(TALK))


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 10**9 }}",
        "{{ 10**9 * 'a' }}",
        "{{ [1] * 10**9 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{% set n = namespace(x=9) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
        "{% macro deeper() %}{{ deeper() }}{% endmacro %}{{ deeper() }}",
    ],
)
def test_what_a_template_computes_has_bounds(source):
    """What takes all memory, or time that nothing can interrupt, is not begun; endless recursion is nobody's crash."""
    with pytest.raises(InvalidPromptError, match=r"too large|recursion"):
        ChatTemplate(source).render(Conversation(TALK))


def test_a_limited_template_says_what_it_said():
    """Loops with all that belongs to them, and products that are not large."""
    source = (
        "{% for m in messages if m.role != 'system' %}{{ loop.index }}/{{ loop.length }}{{ ' ' * 2 }}{{ m.content }}"
        "{% if loop.last %}.{% else %}{% continue %}{% endif %}{% endfor %}{% for x in [] %}{% else %}none{% endfor %}"
        "{% for x in [[1, [2]], 3] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}{{ 2 ** 3 * 1.5 }}"
    )
    assert ChatTemplate(source).render(Conversation(TALK)) == "1/3  Who?2/3  A raven.3/3  Where?.none12312.0"
