"""The SQL text of the hot path, compiled from `queries/statements.py` by `make sql`; not edited by hand."""

from __future__ import annotations

from typing import Final

FIND_SESSION: Final = "SELECT sessions.session_key, sessions.namespace, sessions.session_id, sessions.user_id, sessions.agent_id, sessions.title, sessions.status, sessions.pinned, sessions.metadata, sessions.version, sessions.message_count, sessions.next_seq, sessions.quality_score, sessions.error, sessions.created_at, sessions.updated_at, sessions.ended_at, sessions.archived_at, sessions.expires_at FROM sessions WHERE sessions.namespace = ? AND sessions.session_id = ? AND sessions.status != 'expired'"
FIND_SESSION_KEY: Final = "SELECT sessions.session_key, sessions.message_count FROM sessions WHERE sessions.namespace = ? AND sessions.session_id = ? AND sessions.status != 'expired'"
INSERT_SESSION: Final = "INSERT INTO sessions (namespace, session_id, user_id, agent_id, title, status, pinned, metadata, version, message_count, next_seq, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (namespace, session_id) WHERE status != 'expired' DO NOTHING RETURNING session_key, namespace, session_id, user_id, agent_id, title, status, pinned, metadata, version, message_count, next_seq, quality_score, error, created_at, updated_at, ended_at, archived_at, expires_at"
READ_STORE_ID: Final = 'SELECT store_info.store_id FROM store_info'
INSERT_TAG: Final = 'INSERT INTO session_tags (session_key, tag) VALUES (?, ?)'
TAGS_OF_SESSION: Final = 'SELECT session_tags.tag FROM session_tags WHERE session_tags.session_key = ? ORDER BY session_tags.tag'
RESERVE_SEQS: Final = "UPDATE sessions SET message_count=(sessions.message_count + ?), next_seq=(sessions.next_seq + ?), updated_at=? WHERE sessions.namespace = ? AND sessions.session_id = ? AND sessions.status != 'expired' RETURNING session_key, next_seq"
INSERT_MESSAGE: Final = 'INSERT INTO messages (id, kind, role, text, extra, facts, created_at, crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?)'
MESSAGES_FORWARD: Final = 'SELECT messages.id, messages.kind, messages.role, messages.text, messages.extra, messages.facts, messages.created_at, messages.crc FROM messages WHERE messages.id > ? AND messages.id < ? ORDER BY messages.id LIMIT ? OFFSET 0'
MESSAGES_BACKWARD: Final = 'SELECT messages.id, messages.kind, messages.role, messages.text, messages.extra, messages.facts, messages.created_at, messages.crc FROM messages WHERE messages.id > ? AND messages.id < ? ORDER BY messages.id DESC LIMIT ? OFFSET 0'
MESSAGE_BY_DEDUPE_KEY: Final = 'SELECT messages.id, messages.kind, messages.role, messages.text, messages.extra, messages.facts, messages.created_at, messages.crc FROM messages WHERE messages.session_key = ? AND messages.dedupe_key = ?'

COLUMNS: Final = {
    'messages': ('id', 'session_key', 'seq', 'kind', 'role', 'text', 'extra', 'facts', 'created_at', 'crc', 'tool_call_ids', 'tool_call_id', 'dedupe_key', 'model', 'finish_reason', 'input_tokens', 'output_tokens', 'cache_read_tokens', 'reasoning_tokens', 'response_time_ms', 'metadata'),
    'sessions': ('session_key', 'namespace', 'session_id', 'user_id', 'agent_id', 'title', 'status', 'pinned', 'metadata', 'version', 'message_count', 'next_seq', 'quality_score', 'error', 'created_at', 'updated_at', 'ended_at', 'archived_at', 'expires_at'),
    'store_info': ('id', 'store_id', 'created_at'),
    'session_tags': ('session_key', 'tag'),
}
