"""Files that conversations come from and go to: this library's own lossless JSONL, and those of other programs.

`streams` knows files and lines, `layouts` what is written, `importing` and `exporting` run a whole file. What is no text of
lines stands apart: `deep_agent` (a folder of JSON files), `llm_logs` (an SQLite file), `tables` (views as CSV or Parquet).
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

AUTO: Final = "auto"
NATIVE: Final = "sessionstore"
OPENAI: Final = "openai"
OPENAI_MESSAGES: Final = "openai-messages"
RESPONSES: Final = "responses"
RESPONSES_ITEMS: Final = "responses-items"
DEEP_AGENT: Final = "go-deep-agent"
LLM: Final = "llm"
MARKDOWN: Final = "markdown"
HTML: Final = "html"
CSV: Final = "csv"
PARQUET: Final = "parquet"

ImportFormat: TypeAlias = Literal[
    "auto", "sessionstore", "openai", "openai-messages", "responses", "responses-items", "go-deep-agent", "llm"
]
ExportFormat: TypeAlias = Literal[
    "sessionstore",
    "openai",
    "openai-messages",
    "responses",
    "responses-items",
    "go-deep-agent",
    "markdown",
    "html",
    "csv",
    "parquet",
]
ONE_SESSION_FORMATS: Final = (OPENAI_MESSAGES, RESPONSES_ITEMS)
TABLE_FORMATS: Final = (CSV, PARQUET)
_BOTH_WAYS: Final = (NATIVE, OPENAI, OPENAI_MESSAGES, RESPONSES, RESPONSES_ITEMS, DEEP_AGENT)
EXPORT_FORMATS: Final = (*_BOTH_WAYS, MARKDOWN, HTML, *TABLE_FORMATS)
IMPORT_FORMATS: Final = (AUTO, *_BOTH_WAYS, LLM)
