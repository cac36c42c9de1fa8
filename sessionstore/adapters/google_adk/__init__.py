"""SessionStoreService: a store as the session service of Google's Agent Development Kit (ADK).

    from google.adk.runners import Runner
    from sessionstore.adapters.google_adk import SessionStoreService

    runner = Runner(app_name="trips", agent=agent, session_service=SessionStoreService("agent.db"), auto_create_session=True)

Each event is one message of a session, and is stored in one transaction with the state that it changes.
"""

from ...errors import MissingExtraError

try:
    import google.adk.sessions.base_session_service  # noqa: F401 - to name the extra where it is missing
except ModuleNotFoundError as error:
    raise MissingExtraError("the session service for Google ADK", "google-adk") from error

from .names import parts_of, stored_id
from .service import SessionStoreService

__all__ = ["SessionStoreService", "parts_of", "stored_id"]
