"""The settings of `tad generate`."""

from dataclasses import dataclass

from tad_ext.decoding.config import DecodeConfig
from tad_ext.jobs.common import ModelSettings
from tad_ext.settings import PathText, group, setting


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(ModelSettings):
    """Decodes responses, several tokens per forward pass where the policy allows it. One prompt (--prompt) and a chat
    (--interactive) are shown in the terminal while the canvas fills. The responses to a file (--prompts) are written as
    they finish, with --output to generations.jsonl with their tokens and forwards; a run that was stopped goes on where
    it was when the same command is given again. --preset takes published decoding settings by their name; the defaults
    decode one token per forward, block by block.
    """

    summary = "answer a prompt, a file of prompts, or a chat"
    example = 'tad generate --model runs/distilled --prompt "..." --preset tad'

    allow_other_model: bool = setting(False, help="allow an adapter, or earlier responses in output, of another model")
    prompt: str | None = setting(None, help="one prompt; give this, --prompts or --interactive")
    prompts: PathText | None = setting(None, help='file of prompts, one a line; .jsonl: {"prompt": "..."} a line')
    interactive: bool = setting(False, help="chat; Ctrl-C stops an answer, Ctrl-D ends the chat")
    output: PathText | None = setting(
        None, help="folder for generations.jsonl, the same one to continue; none: only print"
    )
    trace: bool = setting(False, help="also write trace.jsonl, which forward revealed which token, for tad plot trace")
    chat: bool = setting(True, help="put prompts into the chat template, if there is one; not with --infill")
    decoding: DecodeConfig = group(DecodeConfig, presets="tad_ext.decoding.presets:preset")

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in ("prompt", "prompts", "interactive") if getattr(self, name) not in (None, False)]
        if len(given) != 1:
            found = f", got {' and '.join(given)}" if given else ""
            raise ValueError(f"prompt, prompts and interactive: expected exactly one of the three{found}")
        if self.interactive and self.output is not None:
            raise ValueError(f"output is '{self.output}': a chat (interactive) writes nothing, expected none")
        if self.interactive and not self.chat:
            raise ValueError("chat is false: a chat (interactive) needs the chat template, expected true")
        if self.decoding.infill and self.chat:
            raise ValueError("infill is true and so is chat: expected --no-chat, a text is filled in as it stands")
        if self.decoding.infill and self.trace:
            raise ValueError("infill and trace are true: expected one of them, a trace shows whole canvases")
        if self.trace and hasattr(self.decoding.policy, "resize"):
            raise ValueError(
                f"trace is true, and policy {self.decoding.policy} changes the canvas's length: expected false, as a "
                f"trace shows whole canvases"
            )
        if self.trace and self.output is None:
            raise ValueError("trace is true and output is none: expected the folder to write trace.jsonl to")
