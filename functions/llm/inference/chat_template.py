"""From a conversation to the text that a model goes on from, as the model's checkpoint says."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from functions.llm.inference.errors import InvalidOptionError, InvalidPromptError
from functions.llm.tokenizers import Tokenizer

# A vocabulary with the marks of a dialogue was trained on texts that are written with them.
_MARKS = ("<|prompt|>", "<|endprompt|>", "<|answer|>", "<|endanswer|>")
MARKED_TEMPLATE = (
    "{%- set ns = namespace(system='') -%}"
    "{%- for message in messages -%}"
    "{%- if message.role in ('system', 'developer') -%}{%- set ns.system = ns.system + message.content + '\n\n' -%}"
    "{%- elif message.role == 'assistant' -%}<|answer|>{{ message.content }}<|endanswer|>"
    "{%- else -%}<|prompt|>{{ ns.system + message.content }}<|endprompt|>{%- set ns.system = '' -%}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|answer|>{%- endif -%}"
)
# For a model that knows no marks at all: a dialogue as people write it down. It ends where the user's turn would begin.
PLAIN_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message.role in ('system', 'developer') -%}{{ message.content + '\n\n' }}"
    "{%- elif message.role == 'assistant' -%}{{ 'Assistant: ' + message.content + '\n' }}"
    "{%- else -%}{{ 'User: ' + message.content + '\n' }}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}Assistant:{%- endif -%}"
)
PLAIN_STOPS = ("\nUser:",)


@dataclass(frozen=True)
class Conversation:
    """What was said so far, as a chat template reads it.

    Args:
        messages: each with a role and its content; what else they hold is the template's to know.
        tools: that may be called, each as OpenAI's API describes it.
        options: more variables for the template.
        add_generation_prompt: whether the answer begins here.
    """

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    add_generation_prompt: bool = True


@dataclass(frozen=True)
class ChatTemplate:
    """How a model's conversations are written.

    Args:
        source: Jinja, with the names that the transformers library gives to its variables.
        bos_token: the spelling of the mark that begins a text, "" if there is none.
        eos_token: of the one that ends it.
        stops: strings at which an answer ends, besides the request's own.
    """

    source: str
    bos_token: str = ""
    eos_token: str = ""
    stops: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: Path, tokenizer: Tokenizer) -> Self:
        """Return the template of the checkpoint in ``folder``, or one that suits its vocabulary.

        It is `chat_template` of config.json, or chat_template.jinja, or `chat_template` of tokenizer_config.json.
        """
        config, published = _object(folder / "config.json"), _object(folder / "tokenizer_config.json")
        spelled = {token_id: spelling for spelling, token_id in tokenizer.special_tokens.items()}
        eos = _spelling(published.get("eos_token")) or spelled.get(-1 if tokenizer.eos_id is None else tokenizer.eos_id)
        bos = _spelling(published.get("bos_token"))
        found = _template(config) or _text(folder / "chat_template.jinja") or _template(published)
        if found:
            return cls(found, bos or "", eos or "")
        if tokenizer.special_tokens.keys() >= set(_MARKS):
            return cls(MARKED_TEMPLATE, bos or "", eos or "")
        return cls(PLAIN_TEMPLATE, bos or "", eos or "", PLAIN_STOPS)

    def render(self, conversation: Conversation) -> str:
        """Return the text of ``conversation``.

        Raises:
            InvalidPromptError: the template cannot write it.
            InvalidOptionError: it has tools, of which the template knows nothing.
        """
        # Imported where a conversation is read: whoever sends text does not wait for Jinja.
        import jinja2
        from jinja2 import meta

        from functions.llm.inference.template_sandbox import TemplateSandbox

        sandbox = TemplateSandbox()
        try:
            tree = sandbox.parse(self.source)
            if conversation.tools and "tools" not in meta.find_undeclared_variables(tree):
                raise InvalidOptionError("tools", "are given, and this model's chat template has no place for them.")
            return sandbox.from_string(sandbox.limited(tree)).render(
                # First: none of them may stand for what the conversation itself says.
                **{
                    **conversation.options,
                    "messages": conversation.messages,
                    "tools": list(conversation.tools) or None,
                    "documents": None,
                    "bos_token": self.bos_token,
                    "eos_token": self.eos_token,
                    "add_generation_prompt": conversation.add_generation_prompt,
                }
            )
        except (
            jinja2.TemplateError,
            TypeError,
            ValueError,
            ArithmeticError,
            LookupError,
            AttributeError,
            RecursionError,
            MemoryError,
        ) as error:
            if isinstance(error, InvalidOptionError):
                raise
            raise InvalidPromptError(
                f"The messages cannot be written by this model's chat template: {error}."
            ) from error


def _template(config: Mapping[str, Any]) -> str | None:
    found = config.get("chat_template")
    if isinstance(found, Sequence) and not isinstance(found, str):
        # Several, by name.
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _spelling(token: object) -> str | None:
    spelling = token.get("content") if isinstance(token, dict) else token
    return spelling if isinstance(spelling, str) else None


def _object(file: Path) -> Mapping[str, Any]:
    try:
        read = json.loads(_text(file) or "{}")
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
