"""What LiteLLM's proxy loads to write its spend log to a file; there is no database behind it.

The rows are made by the proxy's own way of tracking spend. They are caught where it hands them to
its database client.
"""

import json
from pathlib import Path
from typing import Any

from litellm.proxy._types import UserAPIKeyAuth
from litellm.proxy.db.db_spend_update_writer import DBSpendUpdateWriter
from litellm.proxy.hooks.proxy_track_cost_callback import _ProxyDBLogger

ROWS = Path("spend.jsonl")  # in the proxy's folder


async def _keep(self: Any, payload: Any, *_: Any, **__: Any) -> None:
    with ROWS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(payload, default=str) + "\n")


DBSpendUpdateWriter._insert_spend_log_to_db = _keep
logger = _ProxyDBLogger()  # the proxy adds it by itself only where there is a database


async def check(request: Any, api_key: str) -> UserAPIKeyAuth:
    """Let everybody in, as a service of a team."""
    return UserAPIKeyAuth(api_key=api_key, user_id="service-1", team_id="team-a")
