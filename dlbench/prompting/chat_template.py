"""Chat templates: whether a task's prompts use one, and rendering them."""

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
    """Hash of the template's text."""

    def __call__(self, messages: list[dict[str, str]], *, add_generation_prompt: bool = True) -> str:
        """Render messages. Without a generation prompt the last message is left open, to be continued.

        Raises:
            DlbenchError: the template rejects the messages.
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
        except Exception as error:  # jinja's errors, and any that a template raises
            text = " ".join(str(error).split()) or type(error).__name__
            raise DlbenchError(f"the model's chat template refuses a prompt: {text}; --chat-template off") from error


def choose(name: str, tokenizer: Any, wanted: bool, policy: Policy) -> ChatTemplate | None:
    """The chat template for a task's prompts; None for plain prompts.

    Args:
        name: the model's, for messages.
        tokenizer: the model's.
        wanted: whether the task asks for a chat template.
        policy: "auto" follows the task where the tokenizer has a template; "on" and "off" override it.

    Raises:
        DlbenchError: the policy is "on" and the tokenizer has no template.
    """
    template = getattr(tokenizer, "chat_template", None)
    if policy == "on" and not template:
        raise DlbenchError(f"model {name!r} has no chat template: leave --chat-template on away")
    if not template or policy == "off" or (policy == "auto" and not wanted):
        return None
    return ChatTemplate(tokenizer, hashlib.sha256(str(template).encode()).hexdigest())
