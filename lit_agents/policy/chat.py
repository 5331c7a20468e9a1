"""The only place that turns messages into tokens, and the only one that says which tokens are the agent's.

A conversation is ``first, action, next, action, next, action ...``: `ChatFormat.first` and `ChatFormat.next` make all
that is put in front of an action, the action is whatever was sampled, its end-of-turn token included. Nothing is
rendered twice and nothing sampled is read back as text, so the tokens of a turn are a prefix of those of the next one
by construction. The pieces are cut out of the tokenizer's own chat template, rendered around a placeholder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lit_agents.errors import BadInput

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

_OPEN, _CLOSE = "<|im_start|>", "<|im_end|>"
_USER = f"{_OPEN}user\n"
_ASSISTANT = f"{_CLOSE}\n{_OPEN}assistant\n"
_THINK, _THOUGHT = "<think>", "</think>"
_PLACEHOLDER = "placeholder-{}-zq"  # text that no template holds and no template treats in a special way


@dataclass(frozen=True)
class ChatFormat:
    """How one tokenizer writes a conversation. Made by `from_tokenizer`; the fields are the pieces of its template."""

    end_id: int
    """The end-of-turn token, ``<|im_end|>``: an action is complete when it was sampled."""
    head_ids: tuple[int, ...]
    """Everything up to and including the ``<|im_start|>`` of the first user message, so the system block too."""
    tail_ids: tuple[int, ...]
    """From the end of a user message to the first token the agent samples: the generation prompt."""
    glue_ids: tuple[int, ...]
    """Between the agent's end-of-turn token and the next user message: the newline and ``<|im_start|>``."""
    thinks: bool
    """The agent writes its thoughts before its command."""
    opened: bool
    """The generation prompt itself opens the thought."""
    tokenizer: PreTrainedTokenizerBase
    plain: Tokenizer
    """The same vocabulary and merges without any added token: no text becomes a special token in it."""

    @staticmethod
    def from_tokenizer(
        tokenizer: PreTrainedTokenizerBase, system: str | None = None, thinking: bool = False
    ) -> ChatFormat:
        """Cut the pieces out of the tokenizer's chat template.

        Args:
            tokenizer: a fast tokenizer with a chat template of the ChatML kind (SmolLM2, Qwen2.5, Qwen3, ...).
            system: the system message; None leaves it to the template, which may have one of its own or none.
            thinking: let a thinking model write its thoughts before each command; they stay in the conversation.

        Raises:
            BadInput: no chat template, not ChatML, not append-only, or a ``thinking`` the template cannot follow.
        """
        where = tokenizer.name_or_path or type(tokenizer).__name__
        end_id = _checked_end_id(tokenizer, where)
        plain = _without_added_tokens(tokenizer, where)
        head, tail = _probe(tokenizer, where, system, thinking)
        thinks, opened = _checked_thinking(tokenizer, where, system, thinking)
        head_ids = _with_system(tokenizer, plain, head, system)
        tail_ids = _template_ids(tokenizer, tail)
        glue_ids = _template_ids(tokenizer, f"\n{_OPEN}")
        return ChatFormat(end_id, head_ids, tail_ids, glue_ids, thinks, opened, tokenizer, plain)

    def first(self, text: str) -> list[int]:
        """All tokens before the first action: the head, the first user message, the generation prompt."""
        return [*self.head_ids, *_plain_ids(self.plain, f"user\n{text}"), *self.tail_ids]

    def next(self, text: str) -> list[int]:
        """All tokens between an action's end-of-turn token and the next action."""
        return [*self.glue_ids, *_plain_ids(self.plain, f"user\n{text}"), *self.tail_ids]

    def action_ids(self, text: str) -> list[int]:
        """The tokens of an action nobody sampled, i.e. of a demonstration; a thought that is open is closed, empty."""
        if not self.opened:
            return [*_plain_ids(self.plain, text), self.end_id]
        closing = _template_ids(self.tokenizer, f"\n{_THOUGHT}")
        return [*closing, *_plain_ids(self.plain, f"\n\n{text}"), self.end_id]

    def action_text(self, ids: Sequence[int]) -> str:
        """What the agent wrote, thoughts included, without its end-of-turn token."""
        kept = ids[:-1] if ids and ids[-1] == self.end_id else ids
        return str(self.tokenizer.decode(list(kept), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def command(self, text: str) -> str:
        """What is played of an action's text: all of it, or what a thinking agent wrote after its thoughts.

        A thought that was never closed holds no command: the result is empty.
        """
        if not self.thinks:
            return text
        thought, closed, command = text.rpartition(_THOUGHT)
        if closed:
            return command.lstrip("\n")
        return "" if self.opened or _THINK in thought + command else text


def _checked_end_id(tokenizer: PreTrainedTokenizerBase, where: str) -> int:
    """The id of ``<|im_end|>``, which must be one special token, as ``<|im_start|>`` must be."""
    special = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    missing = [token for token in (_OPEN, _CLOSE) if token not in special]
    if missing:
        reason = f"{' and '.join(missing)} is not a special token of this tokenizer, so its chat format is not ChatML."
        raise BadInput(where, reason, "Choose an instruct model that speaks ChatML (SmolLM2, Qwen2.5, Qwen3, ...).")
    return special[_CLOSE]


def _without_added_tokens(tokenizer: PreTrainedTokenizerBase, where: str) -> Tokenizer:
    """A copy that knows no added token at all.

    ``split_special_tokens=True`` would not do: it still turns the text ``</think>`` into Qwen3's token of that name,
    an added token that is not called special. A copy also shares no state (truncation, padding) with its source.
    """
    from tokenizers import Tokenizer

    if not tokenizer.is_fast:
        reason = "is not a fast tokenizer, so its added tokens cannot be switched off for the text of observations."
        raise BadInput(where, reason, "Save a fast one (tokenizer.json) beside the weights.")
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    parts |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
    plain = Tokenizer.from_str(json.dumps(parts))
    added = tokenizer.added_tokens_decoder
    leaks = [token.content for token in added.values() if set(_plain_ids(plain, token.content)) & set(added)]
    if leaks:
        raise BadInput(where, f"cannot write {leaks[0]} as plain text.", "Choose a model with a byte-level tokenizer.")
    return plain


def _render(tokenizer: PreTrainedTokenizerBase, where: str, system: str | None, thinking: bool) -> str:
    messages = [] if system is None else [{"role": "system", "content": _PLACEHOLDER.format("system")}]
    messages.append({"role": "user", "content": _PLACEHOLDER.format("user")})
    if not tokenizer.chat_template:
        raise BadInput(where, "its tokenizer has no chat template.", "Choose an instruct model, not a base model.")
    from jinja2 import TemplateError

    how: Any = {"tokenize": False, "add_generation_prompt": True}
    try:  # a template that knows no enable_thinking does not look at it
        return str(tokenizer.apply_chat_template(messages, enable_thinking=thinking, **how))
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        reason = f"its chat template cannot be rendered ({type(error).__name__}: {error})."
        way_out = "Mend chat_template.jinja beside the weights"
        way_out += ", or leave system unset, if it is that which it refuses." if system is not None else "."
        raise BadInput(where, reason, way_out) from error


def _probe(tokenizer: PreTrainedTokenizerBase, where: str, system: str | None, thinking: bool) -> tuple[str, str]:
    """The template's text before and after the first user message, refused where it is not ChatML."""
    text = _render(tokenizer, where, system, thinking)
    head, found, tail = text.partition(_PLACEHOLDER.format("user"))
    if not found or not head.endswith(_USER) or not tail.startswith(_ASSISTANT):
        reason = f"its chat template does not write {_USER!r}, the message, {_ASSISTANT!r}, so it is not ChatML."
        raise BadInput(where, reason, "Choose an instruct model that speaks ChatML (SmolLM2, Qwen2.5, Qwen3, ...).")
    if system is not None and head.count(f"{_PLACEHOLDER.format('system')}{_CLOSE}") != 1:
        reason = "its chat template does not write the system message as it is given."
        raise BadInput("system", reason, "Leave system unset and put the text into the first message.")
    if "strftime_now" in str(tokenizer.chat_template):
        reason = "its chat template writes today's date, so a run could not be repeated tomorrow."
        raise BadInput(where, reason, "Replace the template's date by a fixed text in chat_template.jinja.")
    return head, tail


def _checked_thinking(
    tokenizer: PreTrainedTokenizerBase, where: str, system: str | None, thinking: bool
) -> tuple[bool, bool]:
    """Whether the agent thinks, and whether the generation prompt opens the thought."""
    quiet, aloud = (_probe(tokenizer, where, system, choice)[1] for choice in (False, True))
    opened = [tail.rfind(_THINK) > tail.rfind(_THOUGHT) for tail in (quiet, aloud)]
    if thinking and quiet == aloud and not opened[1]:
        raise BadInput("thinking", f"the chat template of {where} knows no thinking.", "Set thinking to false.")
    if not thinking and opened[0]:
        raise BadInput("thinking", f"the chat template of {where} always opens a thought.", "Set thinking to true.")
    return thinking, opened[thinking]


def _with_system(
    tokenizer: PreTrainedTokenizerBase, plain: Tokenizer, head: str, system: str | None
) -> tuple[int, ...]:
    """The ids of the head up to the user message's ``<|im_start|>``; a given system message becomes plain text."""
    head = head.removesuffix("user\n")
    if system is None:
        return tuple(_template_ids(tokenizer, head))
    before, _, after = head.partition(_PLACEHOLDER.format("system"))
    cut = before.rfind(_OPEN) + len(_OPEN)  # template text after the last special token is one piece with the message
    return (
        *_template_ids(tokenizer, before[:cut]),
        *_plain_ids(plain, before[cut:] + system),
        *_template_ids(tokenizer, after),
    )


def _template_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """The ids of text the template itself wrote, its special tokens recognised."""
    return tuple(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=False))


def _plain_ids(plain: Tokenizer, text: str) -> list[int]:
    """The ids of text that came from outside. A lone surrogate, which is no character, becomes the replacement mark."""
    sound = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return list(plain.encode(sound, add_special_tokens=False).ids)
