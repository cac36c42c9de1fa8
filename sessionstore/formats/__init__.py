"""Files that conversations come from and go to: OpenAI chat JSONL in two layouts, and a lossless JSONL of this library's own.

`streams` knows files and lines, `openai` and `native` what the lines mean, `importing` and `exporting` run a whole file.
"""

from __future__ import annotations

from typing import Final

AUTO: Final = "auto"
NATIVE: Final = "sessionstore"
OPENAI: Final = "openai"
OPENAI_MESSAGES: Final = "openai-messages"

EXPORT_FORMATS: Final = (NATIVE, OPENAI, OPENAI_MESSAGES)
IMPORT_FORMATS: Final = (AUTO, *EXPORT_FORMATS)
