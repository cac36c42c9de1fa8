"""The SQL text of the hot path, compiled from `queries/statements.py` by `make sql`; not edited by hand."""

from __future__ import annotations

from typing import Final

FIND_SESSION: Final = "SELECT sessions.session_key, sessions.namespace, sessions.session_id, sessions.user_id, sessions.agent_id, sessions.title, sessions.status, sessions.pinned, sessions.metadata, sessions.version, sessions.message_count, sessions.next_seq, sessions.quality_score, sessions.error, sessions.created_at, sessions.updated_at, sessions.ended_at, sessions.archived_at, sessions.expires_at, sessions.ttl_seconds, sessions.max_age_seconds, sessions.tracked, sessions.feedback, sessions.reported_message_count, sessions.asked_at FROM sessions WHERE sessions.namespace = ? AND sessions.session_id = ? AND sessions.status != 'expired' AND (sessions.expires_at IS NULL OR ? < sessions.expires_at)"
FIND_SESSION_KEY: Final = "SELECT sessions.session_key, sessions.message_count FROM sessions WHERE sessions.namespace = ? AND sessions.session_id = ? AND sessions.status != 'expired' AND (sessions.expires_at IS NULL OR ? < sessions.expires_at)"
FIND_HOLDER: Final = "SELECT sessions.session_key, sessions.namespace, sessions.session_id, sessions.user_id, sessions.agent_id, sessions.title, sessions.status, sessions.pinned, sessions.metadata, sessions.version, sessions.message_count, sessions.next_seq, sessions.quality_score, sessions.error, sessions.created_at, sessions.updated_at, sessions.ended_at, sessions.archived_at, sessions.expires_at, sessions.ttl_seconds, sessions.max_age_seconds, sessions.tracked, sessions.feedback, sessions.reported_message_count, sessions.asked_at FROM sessions WHERE sessions.namespace = ? AND sessions.session_id = ? AND sessions.status != 'expired'"
FIND_NEWEST_EXPIRED: Final = "SELECT sessions.session_key, sessions.namespace, sessions.session_id, sessions.user_id, sessions.agent_id, sessions.title, sessions.status, sessions.pinned, sessions.metadata, sessions.version, sessions.message_count, sessions.next_seq, sessions.quality_score, sessions.error, sessions.created_at, sessions.updated_at, sessions.ended_at, sessions.archived_at, sessions.expires_at, sessions.ttl_seconds, sessions.max_age_seconds, sessions.tracked, sessions.feedback, sessions.reported_message_count, sessions.asked_at FROM sessions WHERE sessions.namespace = ? AND sessions.session_id = ? AND sessions.status = 'expired' ORDER BY sessions.session_key DESC LIMIT 1 OFFSET 0"
INSERT_SESSION: Final = "INSERT INTO sessions (namespace, session_id, user_id, agent_id, title, status, pinned, metadata, version, message_count, next_seq, created_at, updated_at, expires_at, ttl_seconds, max_age_seconds, tracked) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (namespace, session_id) WHERE status != 'expired' DO NOTHING RETURNING session_key, namespace, session_id, user_id, agent_id, title, status, pinned, metadata, version, message_count, next_seq, quality_score, error, created_at, updated_at, ended_at, archived_at, expires_at, ttl_seconds, max_age_seconds, tracked, feedback, reported_message_count, asked_at"
READ_STORE_ID: Final = 'SELECT store_info.store_id FROM store_info'
INSERT_TAG: Final = 'INSERT INTO session_tags (session_key, tag) VALUES (?, ?)'
TAGS_OF_SESSION: Final = 'SELECT session_tags.tag FROM session_tags WHERE session_tags.session_key = ? ORDER BY session_tags.tag'
RESERVE_SEQS: Final = "UPDATE sessions SET message_count=(sessions.message_count + ?), next_seq=(sessions.next_seq + ?), updated_at=?, asked_at=coalesce(?, sessions.asked_at) WHERE sessions.namespace = ? AND sessions.session_id = ? AND sessions.status != 'expired' AND (sessions.expires_at IS NULL OR ? < sessions.expires_at) RETURNING session_key, next_seq, asked_at, agent_id, created_at, expires_at, ttl_seconds, max_age_seconds"
SET_ASKED_AT: Final = 'UPDATE sessions SET asked_at=? WHERE sessions.session_key = ?'
SET_EXPIRY: Final = 'UPDATE sessions SET expires_at=? WHERE sessions.session_key = ?'
END_SESSION: Final = 'UPDATE sessions SET status=?, metadata=CASE WHEN ? THEN ? ELSE sessions.metadata END, version=(sessions.version + 1), quality_score=CASE WHEN ? THEN ? ELSE sessions.quality_score END, error=CASE WHEN ? THEN ? ELSE sessions.error END, updated_at=?, ended_at=?, expires_at=NULL, feedback=CASE WHEN ? THEN ? ELSE sessions.feedback END, reported_message_count=CASE WHEN ? THEN ? ELSE sessions.reported_message_count END WHERE sessions.session_key = ? RETURNING session_key, namespace, session_id, user_id, agent_id, title, status, pinned, metadata, version, message_count, next_seq, quality_score, error, created_at, updated_at, ended_at, archived_at, expires_at, ttl_seconds, max_age_seconds, tracked, feedback, reported_message_count, asked_at'
SETTLE_EXPIRY: Final = "UPDATE sessions SET status='expired', ended_at=sessions.expires_at WHERE sessions.session_key = ?"
FIND_DUE: Final = "SELECT sessions.session_key, sessions.namespace, sessions.session_id, sessions.user_id, sessions.agent_id, sessions.title, sessions.status, sessions.pinned, sessions.metadata, sessions.version, sessions.message_count, sessions.next_seq, sessions.quality_score, sessions.error, sessions.created_at, sessions.updated_at, sessions.ended_at, sessions.archived_at, sessions.expires_at, sessions.ttl_seconds, sessions.max_age_seconds, sessions.tracked, sessions.feedback, sessions.reported_message_count, sessions.asked_at FROM sessions WHERE sessions.status = 'open' AND ? >= sessions.expires_at ORDER BY sessions.expires_at LIMIT ? OFFSET 0"
PEEK_DUE: Final = "SELECT 1 FROM sessions WHERE sessions.status = 'open' AND ? >= sessions.expires_at LIMIT 1 OFFSET 0"
READ_REMOTE: Final = 'SELECT store_info.remote_url, store_info.sync_messages, store_info.max_outbox_bytes, store_info.on_full FROM store_info'
INSERT_EVENT: Final = 'INSERT INTO outbox ("key", stream, kind, namespace, body, state, attempts, occurred_at, created_at, size_bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)'
PENDING_SIZE: Final = "SELECT count(*) AS count_1, coalesce(sum(outbox.size_bytes), 0) AS coalesce_1 FROM outbox WHERE outbox.state = 'pending'"
DEAD_SIZE: Final = "SELECT count(*) FILTER (WHERE outbox.last_error LIKE 'unsupported%') AS anon_1, coalesce(sum(outbox.size_bytes), 0) AS coalesce_1 FROM outbox WHERE outbox.state = 'dead' AND outbox.state != 'pending'"
COUNT_DROPPED: Final = 'UPDATE sync_state SET dropped=(sync_state.dropped + ?)'
DELETE_DEAD: Final = "DELETE FROM outbox WHERE outbox.id = ? AND outbox.state = 'dead' AND outbox.state != 'pending'"
PEEK_PENDING: Final = "SELECT outbox.id FROM outbox WHERE outbox.state = 'pending' ORDER BY outbox.id LIMIT 1 OFFSET 0"
NEWEST_PENDING: Final = "SELECT outbox.id FROM outbox WHERE outbox.state = 'pending' ORDER BY outbox.id DESC LIMIT 1 OFFSET 0"
CLAIMABLE: Final = "SELECT outbox.id FROM outbox WHERE outbox.state = 'pending' AND ((outbox.namespace, outbox.stream) NOT IN (SELECT outbox_holds.namespace, outbox_holds.stream FROM outbox_holds WHERE ? < outbox_holds.held_until AND ? >= outbox_holds.held_until AND outbox_holds.token IS NOT ?)) ORDER BY outbox.id LIMIT ? OFFSET 0"
CLAIM: Final = 'SELECT outbox.id, outbox."key", outbox.stream, outbox.kind, outbox.namespace, outbox.body, outbox.attempts, outbox.occurred_at, outbox.size_bytes, outbox.last_status, outbox.sent_before FROM outbox WHERE outbox.id IN (SELECT anon_1.value FROM json_each(?) AS anon_1) AND outbox.state = \'pending\' AND ((outbox.namespace, outbox.stream) NOT IN (SELECT outbox_holds.namespace, outbox_holds.stream FROM outbox_holds WHERE ? < outbox_holds.held_until AND ? >= outbox_holds.held_until AND outbox_holds.token IS NOT ?)) ORDER BY outbox.id'
HOLD_STREAM: Final = 'INSERT OR REPLACE INTO outbox_holds (namespace, stream, token, held_until) VALUES (?, ?, ?, ?)'
STREAMS_HELD: Final = 'SELECT outbox_holds.namespace, outbox_holds.stream FROM outbox_holds WHERE outbox_holds.token = ?'
FREE_STREAMS: Final = 'DELETE FROM outbox_holds WHERE outbox_holds.token = ?'
DELETE_EVENT: Final = "DELETE FROM outbox WHERE outbox.id = ? AND outbox.state = 'pending'"
NEXT_FREE: Final = 'SELECT min(outbox_holds.held_until) AS min_1, min(CASE WHEN (outbox_holds.token IS NULL) THEN outbox_holds.held_until END) AS min_2, count(outbox_holds.token) AS count_1 FROM outbox_holds WHERE ? < outbox_holds.held_until AND ? >= outbox_holds.held_until'
REFUSE_EVENT: Final = "UPDATE outbox SET state=?, attempts=?, next_at=?, last_status=?, last_error=?, settled_at=?, sent_before=? WHERE outbox.id = ? AND outbox.state = 'pending'"
READ_SYNC_STATE: Final = 'SELECT sync_state.retry_at, sync_state.paused, sync_state.failures, sync_state.failing_since, sync_state.sent, sync_state.last_error FROM sync_state'
NOTE_TROUBLE: Final = 'UPDATE sync_state SET failures=?, failing_since=?, retry_at=?, paused=?, last_status=?, last_error=?'
COUNT_SENT: Final = 'UPDATE sync_state SET sent=(sync_state.sent + ?), last_sent_at=?, failures=0, failing_since=NULL, retry_at=NULL, paused=NULL, last_status=NULL, last_error=NULL'
INSERT_METRIC: Final = 'INSERT INTO metric_events (namespace, name, value, unit, agent_id, session_id, attributes, occurred_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)'
DELETE_MESSAGES: Final = 'DELETE FROM messages WHERE messages.id > ? AND messages.id < ?'
DELETE_SESSION: Final = 'DELETE FROM sessions WHERE sessions.session_key = ?'
INSERT_MESSAGE: Final = 'INSERT INTO messages (id, kind, role, text, extra, facts, created_at, crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?)'
MESSAGES_FORWARD: Final = 'SELECT messages.id, messages.kind, messages.role, messages.text, messages.extra, messages.facts, messages.created_at, messages.crc FROM messages WHERE messages.id > ? AND messages.id < ? ORDER BY messages.id LIMIT ? OFFSET 0'
MESSAGES_BACKWARD: Final = 'SELECT messages.id, messages.kind, messages.role, messages.text, messages.extra, messages.facts, messages.created_at, messages.crc FROM messages WHERE messages.id > ? AND messages.id < ? ORDER BY messages.id DESC LIMIT ? OFFSET 0'
MESSAGE_BY_DEDUPE_KEY: Final = 'SELECT messages.id, messages.kind, messages.role, messages.text, messages.extra, messages.facts, messages.created_at, messages.crc FROM messages WHERE messages.session_key = ? AND messages.dedupe_key = ?'

COLUMNS: Final = {
    'agent_activity': ('id', 'namespace', 'agent_id', 'kind', 'action', 'status', 'previous_status', 'details', 'duration_seconds', 'occurred_at'),
    'agents': ('namespace', 'agent_id', 'sdk_version', 'status', 'previous_status', 'metadata', 'registered_at', 'status_at', 'last_seen_at', 'stale_after_seconds'),
    'messages': ('id', 'session_key', 'seq', 'kind', 'role', 'text', 'extra', 'facts', 'created_at', 'crc', 'tool_call_ids', 'tool_call_id', 'dedupe_key', 'model', 'finish_reason', 'input_tokens', 'output_tokens', 'cache_read_tokens', 'reasoning_tokens', 'response_time_ms', 'metadata', 'elapsed_ms', 'answer_time_ms'),
    'metric_events': ('id', 'namespace', 'name', 'value', 'unit', 'agent_id', 'session_id', 'attributes', 'occurred_at'),
    'outbox': ('id', 'key', 'stream', 'kind', 'namespace', 'body', 'state', 'attempts', 'occurred_at', 'created_at', 'next_at', 'last_status', 'last_error', 'settled_at', 'sent_before', 'size_bytes'),
    'outbox_holds': ('namespace', 'stream', 'token', 'held_until'),
    'received_events': ('tenant', 'key', 'body_hash', 'received_at'),
    'sessions': ('session_key', 'namespace', 'session_id', 'user_id', 'agent_id', 'title', 'status', 'pinned', 'metadata', 'version', 'message_count', 'next_seq', 'quality_score', 'error', 'created_at', 'updated_at', 'ended_at', 'archived_at', 'expires_at', 'ttl_seconds', 'max_age_seconds', 'tracked', 'feedback', 'reported_message_count', 'asked_at'),
    'store_info': ('id', 'store_id', 'created_at', 'remote_url', 'swept_at', 'sweeper', 'sweeper_until', 'remote_since', 'sync_messages', 'max_outbox_bytes', 'on_full'),
    'sync_state': ('id', 'sent', 'dropped', 'last_sent_at', 'failures', 'failing_since', 'retry_at', 'paused', 'last_status', 'last_error', 'backfilled_sessions', 'backfilled_metrics', 'backfilled_activity'),
    'session_tags': ('session_key', 'tag'),
}
