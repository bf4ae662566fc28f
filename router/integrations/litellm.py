"""LiteLLM: the classifier of its complexity router, and a plugin of its router.

On the proxy, in a file beside config.yaml:

    classifier = SufficeClassifier(Router.load("artifacts/current").watch())

and `classifier_type: custom`, `classifier_plugin: that_file.classifier` in the configuration of a
complexity router, whose tiers are named as in the artifact. In the SDK,
`litellm.Router(plugins=[SufficePlugin(router)])` narrows a model group to the model that it picks.

Both see only messages and metadata. Tools, `max_tokens`, `response_format` and the size of what is
sent beside the messages (`system`) reach them only if `SufficeFacts` is one of the proxy's
`callbacks`, too; and only then do LiteLLM's logs hold a classifier's decision (under
`spend_logs_metadata`, where those of `SufficeHook` always are).
"""

from collections.abc import Mapping
from typing import Any, Final

from router.decision import Decision
from router.integrations import extra
from router.prompt import Prompt
from router.request import read_body, unread_chars
from router.rules import RESERVED_OUTPUT
from router.served import BYTES_A_TOKEN
from router.service import Router

with extra("litellm"):
    from litellm.integrations.custom_logger import CustomLogger
    from litellm.types.router import RoutingContext

_FACTS: Final = "suffice_facts"
_LOGGED: Final = "spend_logs_metadata"  # what LiteLLM carries into all of its logs
_SIGNATURE: Final = "suffice"
_MOST_TOOLS: Final = 128  # of one request, by OpenAI's API
# Types of call that ask for text; others (embeddings, images, moderation) have a model as well.
_CHATS: Final = frozenset(
    """acompletion completion atext_completion text_completion aresponses responses
    acompact_responses _aresponses_websocket anthropic_messages agenerate_content
    agenerate_content_stream acreate_interaction""".split()
)
_TENANT: Final = ("tenant", "user_api_key_team_id", "user_api_key_end_user_id")
_SESSION: Final = ("session_id", "litellm_session_id")


class SufficeClassifier:
    """A `ClassifierPlugin`: answers with the tier of each request."""

    def __init__(self, router: Router, labels: Mapping[str, str] | None = None) -> None:
        """Classify by a router.

        Args:
            router: decides.
            labels: the gateway's name of each tier of the artifact, where it is another one, e.g.
                ``{"small": "SIMPLE", "large": "REASONING"}``.
        """
        self.router = router
        self._labels = dict(labels or {})

    def __deepcopy__(self, _: object) -> "SufficeClassifier":
        """Itself: LiteLLM copies its list of models, and with it what is plugged in there."""
        return self

    async def classify(self, context: RoutingContext) -> str | None:
        """The tier's name as the gateway has it."""
        decision = await _decide(self.router, context)
        logged = context.metadata.get(_LOGGED)
        signature = logged.get(_SIGNATURE) if isinstance(logged, dict) else None
        if isinstance(signature, dict):  # the metadata is a copy, what is in it is not
            signature.update(_signature(decision))
        return self._labels.get(decision.tier, decision.tier)


class SufficePlugin:
    """A `RoutingPlugin`: keeps, of the models of a group, only the one that the router picks.

    Groups of one model are left alone, and so are groups that lack the picked model. The decision
    is in the request's `routing_plugin_signals`, under ``suffice``.
    """

    def __init__(self, router: Router, models: Mapping[str, str] | None = None) -> None:
        """Pick by a router.

        Args:
            router: decides.
            models: the `litellm_params.model` of each tier of the artifact, where it is not the
                artifact's model id, with or without a provider's prefix.
        """
        self.router = router
        self._models = dict(models or {})

    def __deepcopy__(self, _: object) -> "SufficePlugin":
        """Itself, see `SufficeClassifier`."""
        return self

    async def run(self, context: RoutingContext) -> RoutingContext:
        """Narrow the candidates."""
        if len(set(context.candidate_models)) < 2:
            return context
        decision = await _decide(self.router, context)
        model = self._models.get(decision.tier, decision.model)
        left = [name for name in context.candidate_models if _same(name, model)]
        if left:
            context.candidate_models = left
            context.signals[_SIGNATURE] = _signature(decision)
        return context


class SufficeFacts(CustomLogger):
    """A callback of the proxy that notes what plugins do not see: tools, output, JSON, whose it is.

    It also makes a place in the logs for what `SufficeClassifier` decides.
    """

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: Any
    ) -> dict[str, Any]:
        """Note a request's facts in its metadata."""
        facts = read_body(data)[1]
        metadata = _metadata(data)
        offered = facts["tools"]
        metadata[_FACTS] = {
            "tools": len(offered) if isinstance(offered, list) else 0,
            "beside": _beside(data, offered),
            "session": _session(data),
            # Of the responses API, and of Anthropic's, LiteLLM shows other metadata than these.
            **{key: facts[key] for key in ("tenant", "max_tokens", "json_mode")},
        }
        _sign(metadata, {})
        return data


class SufficeHook(CustomLogger):
    """A callback of the proxy that puts a tier's model group in place of ``"auto"``.

    The cheapest integration: it sees the whole request, and LiteLLM's complexity router is not
    asked. LiteLLM has checked a key's permissions before, for ``"auto"`` and not for the tier.
    """

    def __init__(self, router: Router, model: str = "auto") -> None:
        """Pick by a router where a chat asks for `model`; model groups are named as the tiers."""
        super().__init__()
        self.router = router
        self._model = model

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: Any
    ) -> dict[str, Any]:
        """Pick the model group of a request."""
        if data.get("model") == self._model and call_type in _CHATS:
            prompt, facts = read_body(data)
            metadata = _metadata(data)
            facts["tenant"] = facts["tenant"] or _first(metadata, _TENANT)
            facts["session"] = facts["session"] or _session(data)
            decision = await self.router.aroute(prompt, **facts, tags=_tags(metadata))
            data["model"] = decision.tier
            _sign(metadata, _signature(decision))
        return data


async def _decide(router: Router, context: RoutingContext) -> Decision:
    metadata = context.metadata
    facts = metadata.get(_FACTS)
    known: Mapping[str, Any] = facts if isinstance(facts, dict) else {}
    tools = known.get("tools")
    offered = min(tools, _MOST_TOOLS) if type(tools) is int and tools > 0 else 0
    return await router.aroute(
        context.structured_messages or context.raw_messages,
        [None] * offered or None,
        max_tokens=_room(known),
        json_mode=bool(known.get("json_mode")),
        session=_first(metadata, _SESSION) or _first(known, ("session",)),
        tenant=_first(known, ("tenant",)) or _first(metadata, _TENANT),
        tags=_tags(metadata),
    )


def _beside(data: Mapping[str, Any], tools: Any) -> int:
    """Characters of a request that a plugin does not see, as they are not in the messages.

    They are in the tools, and in what Anthropic's and the responses API take beside the messages.
    """
    told = (data.get(name) for name in ("system", "instructions"))
    system = [{"role": "system", "content": text} for text in told if text]
    try:
        return Prompt.of(system).chars + unread_chars((), tools)
    except RecursionError:  # nested so deeply that nobody can send it on
        return 0


def _room(known: Mapping[str, Any]) -> int | None:
    """Room needed beside the messages: the requested output, and input that plugins do not see."""
    wanted, beside = (
        value if type(value) is int and value > 0 else 0
        for value in (known.get("max_tokens"), known.get("beside"))
    )
    if not beside:
        return wanted or None
    return (wanted or RESERVED_OUTPUT) + beside // BYTES_A_TOKEN


def _metadata(data: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a request, to write to; made where there is none."""
    name = "litellm_metadata" if "litellm_metadata" in data else "metadata"
    if not isinstance(data.get(name), dict):
        data[name] = {}
    found: dict[str, Any] = data[name]
    return found


def _session(data: dict[str, Any]) -> str | None:
    """The session of a request: in its metadata, or beside it, where LiteLLM's clients put it."""
    return _first(_metadata(data), _SESSION) or _first(data, _SESSION[1:])


def _signature(decision: Decision) -> dict[str, Any]:
    """A decision as `suffice ingest` reads it in LiteLLM's logs."""
    told = {name: getattr(decision, name) for name in ("tier", "model", "reason", "propensity")}
    return {"decision_id": decision.id, **told}


def _sign(metadata: dict[str, Any], signature: dict[str, Any]) -> None:
    logged = metadata.get(_LOGGED)
    metadata[_LOGGED] = {**(logged if isinstance(logged, dict) else {}), _SIGNATURE: signature}


def _tags(metadata: Mapping[str, object]) -> list[str]:
    tags = metadata.get("tags")
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def _first(metadata: Mapping[str, object], names: tuple[str, ...]) -> str | None:
    found = (metadata.get(name) for name in names)
    return next((value for value in found if isinstance(value, str) and value), None)


def _same(candidate: str, model: str) -> bool:
    return candidate == model or candidate.endswith(f"/{model}")
