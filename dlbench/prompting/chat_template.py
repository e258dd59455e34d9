"""Chat templates: whether a prompt goes into one, and rendering it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

from dlbench.errors import DlbenchError

Policy = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class ChatTemplate:
    """The chat template of one tokenizer."""

    tokenizer: Any
    sha256: str
    """Of the template's text."""

    def __call__(self, messages: list[dict[str, str]], *, add_generation_prompt: bool = True) -> str:
        """Render messages; without a generation prompt, so that the last one can be continued.

        Raises:
            DlbenchError: the template refuses the messages.
        """
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    continue_final_message=not add_generation_prompt,
                )
            )
        except Exception as error:  # jinja's errors, and whatever a template raises by itself
            text = " ".join(str(error).split()) or type(error).__name__
            raise DlbenchError(f"the model's chat template refuses a prompt: {text}; --chat-template off") from error


def choose(name: str, tokenizer: Any, wanted: bool, policy: Policy) -> ChatTemplate | None:
    """The template to put a task's prompts into; None where they stay as they are.

    Args:
        name: the model's, for messages.
        tokenizer: the model's.
        wanted: whether the task says that its prompts belong into one.
        policy: "auto" follows the task where the tokenizer has a template; "on" and "off" overrule it.

    Raises:
        DlbenchError: a template is asked for, and the tokenizer has none.
    """
    template = getattr(tokenizer, "chat_template", None)
    if policy == "on" and not template:
        raise DlbenchError(f"model {name!r} has no chat template: leave --chat-template on away")
    if not template or policy == "off" or (policy == "auto" and not wanted):
        return None
    return ChatTemplate(tokenizer, hashlib.sha256(str(template).encode()).hexdigest())
