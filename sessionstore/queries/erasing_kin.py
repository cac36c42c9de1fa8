"""Sessions that keep what others are about to lose, because both were forked from one another or from the same.

Who shares rows is told by their ranges. Who replaced a message that was shared has it among the superseded ones, though nothing
tells any more whose it was: a message is known again by its place, its time and its kind.
"""

# ruff: noqa: S608 - put together from constants only

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ..database.transaction import Transaction
from ..inputs import encode_json
from ..values import SEQ_BITS

# No message behind it was ever shared.
_DEEPEST: Final = "SELECT max(forked_at) FROM sessions"
_GOING: Final = "(SELECT value FROM json_each(:going))"
_LOW: Final = f"(s.session_key << {SEQ_BITS})"
_OWNER: Final = f"(r.owner_key << {SEQ_BITS})"
_AS_MESSAGE: Final = "m.seq, m.created_at, m.kind, m.role, s.forked_at"
_EACH: Final = f"FROM (SELECT session_key, forked_at FROM sessions WHERE session_key IN {_GOING}) s CROSS JOIN"
_REPLACED: Final = f"SELECT {_AS_MESSAGE} {_EACH} superseded_messages m ON m.session_key = s.session_key AND m.seq <= :deepest"
_HELD: Final = (
    f"SELECT {_AS_MESSAGE} {_EACH} messages m ON m.id BETWEEN {_LOW} AND {_LOW} + :deepest "
    f"UNION ALL SELECT {_AS_MESSAGE} {_EACH} inherited_ranges r ON r.session_key = s.session_key CROSS JOIN messages m "
    f"ON m.id BETWEEN {_OWNER} + r.first_seq AND {_OWNER} + r.last_seq UNION ALL {_REPLACED}"
)
_SAME: Final = "h.seq = e.seq AND h.created_at = e.created_at AND h.kind = e.kind AND h.role IS e.role"
# One of the two was forked behind it.
_IS_SHARED: Final = "<= max(ifnull(x.forked_at, 0), ifnull(h.forked_at, 0))"
# What others replaced and these had.
_REPLACED_THERE: Final = (
    f"WITH held AS MATERIALIZED ({_HELD}) SELECT DISTINCT e.session_key FROM superseded_messages e JOIN held h ON {_SAME} "
    f"JOIN sessions x ON x.session_key = e.session_key WHERE e.seq {_IS_SHARED} AND x.session_key NOT IN {_GOING}"
)
# What these replaced and others have still; it takes a look at every message.
_ANY_REPLACED: Final = f"SELECT EXISTS ({_REPLACED})"
_REPLACED_HERE: Final = (
    f"WITH held AS MATERIALIZED ({_REPLACED}), found AS MATERIALIZED ("
    f"SELECT e.session_key AS owner_key, e.seq, h.forked_at FROM messages e CROSS JOIN held h ON {_SAME}) "
    f"SELECT x.session_key FROM found h JOIN sessions x ON x.session_key = h.owner_key WHERE h.seq {_IS_SHARED} "
    f"AND x.session_key NOT IN {_GOING} UNION SELECT r.session_key FROM found h JOIN inherited_ranges r "
    f"ON r.owner_key = h.owner_key AND h.seq BETWEEN r.first_seq AND r.last_seq WHERE r.session_key NOT IN {_GOING}"
)


def holders(db: Transaction, keys: Iterable[int]) -> set[int]:
    """The keys of other sessions that keep messages of some as superseded ones, or share what these replaced."""
    deepest = db.driver.execute(_DEEPEST).fetchall()[0][0]
    if not deepest:
        return set()
    values = {"going": encode_json(sorted(keys)), "deepest": deepest}
    found = db.driver.execute(_REPLACED_THERE, values).fetchall()
    if db.driver.execute(_ANY_REPLACED, values).fetchall()[0][0]:
        found += db.driver.execute(_REPLACED_HERE, values).fetchall()
    return {key for (key,) in found}
