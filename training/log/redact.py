"""Masks for what must not be kept: e-mail addresses, phone numbers, keys and card numbers.

A mask keeps the kind (`<email>`, `<phone>`, `<key>`, `<card>`). Phone numbers are those that
`phonenumbers` (Google's library) holds for valid: in international form, or in the national form of
one of REGIONS, if it is grouped as people write numbers or a word before it says so; another run
of digits is left alone, as it is an order number more often. Cards need a network's prefix, its
length and a right check digit (Luhn, 1960). Keys have the shapes that `detect-secrets` (Yelp) lists
for vendors' tokens, or one of ours.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from training.errors import EnvironmentProblem

TEXTS = ("messages", "response", "reference", "source", "tags", "finish_reason", "error")
REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "IN", "AU")  # whose national forms are known
VENDORS = (
    "artifactory.ArtifactoryDetector",
    "aws.AWSKeyDetector",
    "azure_storage_key.AzureStorageKeyDetector",
    "discord.DiscordBotTokenDetector",
    "github_token.GitHubTokenDetector",
    "gitlab_token.GitLabTokenDetector",
    "mailchimp.MailchimpDetector",
    "pypi_token.PypiTokenDetector",
    "sendgrid.SendGridDetector",
    "slack.SlackDetector",
    "square_oauth.SquareOAuthDetector",
    "stripe.StripeDetector",
    "telegram_token.TelegramBotTokenDetector",
    "twilio.TwilioKeyDetector",
)

# The n of "\n" in a text that is itself JSON or code is no part of an address.
_EMAIL = re.compile(
    r"(?<![\w.%+-])(?!(?<=\\)[nrt])[\w.%+-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}"
)
_OWN_KEYS = tuple(
    re.compile(shape)
    for shape in (
        r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*-----|\Z)",
        r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?",  # JSON web token
        r"\b(?:sk|pk|rk)[-_](?=[\w-]*\d)[\w-]{16,}",  # OpenAI, Anthropic, LiteLLM, Stripe, Langfuse
        r"\bgithub_pat_\w{20,}",
        r"\bgh[opsur]_\w{36,}",
        r"\b(?:hf|npm|gsk|xai|dop_v1|shpat|glpat)[_-][A-Za-z0-9]{20,}",
        r"\bAIza[\w-]{35}",  # Google
        r"\bya29\.[\w-]{20,}",
        r"\bxox[abeoprs]-[\w-]{10,}",
        r"(?i)(?<=bearer )(?=[\w.~+/-]*\d)[\w.~+/-]{16,}=*",
        r"(?<=://)[^\s/:@<>]+:[^\s/@<>]+(?=@)",  # user and password in an address
    )
)
# name = value, where the name says that the value is secret and the value looks made by a machine
_NAMED = re.compile(
    r"(?i)((?:api[_-]?key|secret(?:[_-]?key)?|access[_-]?key|token|passw(?:or)?d)\\?[\"']?"
    r"\s{0,3}[:=]\s{0,3}\\?[\"']?)(?=[\w/+=.-]*\d)(?=[\w/+=.-]*[A-Za-z])([\w/+=.-]{16,})"
)
_CARD = re.compile(
    r"(?<![\w.,-])(?:"
    r"(?:\d{4}([ -]?)\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?)|"  # 16 and 19 digits
    r"(?:3\d{3}([ -]?)\d{6}\2\d{4,5})|"  # American Express 15, Diners Club 14
    r"4\d{12})(?![\w-]|[.,]\d)"
)
_NETWORK = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:2[2-9]|[3-6]\d|7[01]|720)\d{12,13}|3[47]\d{13}|"
    r"3(?:0[0-5]|[68]\d)\d{11}|(?:6011|65\d\d|64[4-9]\d)\d{12}|35\d{14}|62\d{14}|62\d{17}"
)
_DIGITS = re.compile(r"\d(?:[^\w\n]{0,3}\d){6}")
_GROUPED = re.compile(r"\d[ .()/-]+\d+[ .()/-]+\d")
_PLUS = re.compile(r"(?<!\w)[+＋]\d(?:[ ()./-]{0,3}\d){6,14}")
_RUN = re.compile(r"(?<!\w)[(\d](?:[ ()./-]{0,3}\d){6,40}(?!\w)")
_LAST_GROUP = re.compile(r"\D+\d+\Z")
_BEFORE = re.compile(r"[=*×/^$€£#-] ?$|[\d.,]$")
_AFTER = re.compile(r" ?[=*×/^%€$]| [-+] ?\d|[,.:]\d")
CUE = 40  # characters before a number in which a word says that it is a phone's
_CUE = re.compile(
    r"(?i)\b(?:phone|tel|telephone|telefon|teléfono|téléphone|telefono|mobile|mobil|móvil|handy|cell|"
    r"whats ?app|sms|fax|call(?: me| us| him| her)?|ring|dial)\b[^\d\n]{0,20}(?:\Z|(?=\d))"
)
_SHORTENED = re.compile(r"[\w.+@%/=~-]+…")
_PART = re.compile(r"[\w.+@%/=~() -]*\Z")
_ESCAPED = re.compile(r"\\u00([2-7][0-9a-fA-F])")


def mask(text: str) -> str:
    """The text with every address, number and key that is found replaced by its kind."""
    for shape in _keys():
        text = shape.sub("<key>", text)
    text = _NAMED.sub(r"\1<key>", text)
    if "@" in text:
        text = _EMAIL.sub("<email>", text)
    if _DIGITS.search(text):
        text = _CARD.sub(lambda found: "<card>" if _is_card(found[0]) else found[0], text)
        text = _mask_phones(text)
    return text


def mask_raw(text: str, cut: bool) -> str:
    """As `mask`, of a damaged record: JSON's \\u00… escapes are decoded first.

    cut: the text was cut off: its last word, which may be half an address, is dropped.
    """
    text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
    return mask(_PART.sub("", text) if cut else _SHORTENED.sub("…", text))


def mask_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """A row by column with its TEXTS masked; ids, times and numbers as they are."""
    return {name: _walk(value) if name in TEXTS else value for name, value in values.items()}


def _walk(value: Any) -> Any:
    """Mask texts at any depth; JSON in a text is masked as what it means, not as it is spelled."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return _from_json(value) or mask(value)
    if isinstance(value, int) and abs(value) >= 10**12:  # a card number in arguments of a tool
        return value if (masked := mask(str(value))) == str(value) else masked
    if isinstance(value, Mapping):
        return {mask(str(name)): _walk(held) for name, held in value.items()}
    return [_walk(held) for held in value] if isinstance(value, list | tuple) else value


def _from_json(text: str) -> str | None:
    if text.lstrip()[:1] not in ("[", "{", '"'):
        return None
    try:
        value = json.loads(text)
        masked = _walk(value)
    except (ValueError, RecursionError):
        return None
    return text if masked == value else json.dumps(masked, ensure_ascii=False)


def _mask_phones(text: str) -> str:
    parts, done = [], 0
    for start, end in sorted(_phones(text), key=lambda place: (place[0], -place[1])):
        if start >= done:
            parts += [text[done:start], "<phone>"]
            done = end
    return "".join([*parts, text[done:]])


def _phones(text: str) -> Iterator[tuple[int, int]]:
    library = _phonenumbers()
    for found in _PLUS.finditer(text):
        number = found[0]
        while number and not _is_valid(library, number):
            shorter = _LAST_GROUP.sub("", number)
            number = shorter if shorter != number else ""
        if number:
            yield found.start(), found.start() + len(number)
    for run in _RUN.finditer(text):  # the library takes milliseconds for a page, so only these
        if not (
            _GROUPED.search(run[0]) or _CUE.search(text[max(run.start() - CUE, 0) : run.start()])
        ):
            continue
        for region in REGIONS:
            for found in library.PhoneNumberMatcher(run[0], region, max_tries=len(run[0])):
                start, end = run.start() + found.start, run.start() + found.end
                shaped = _GROUPED.search(found.raw_string) or _CUE.search(
                    text[max(start - CUE, 0) : start]
                )
                if shaped and not _in_formula(text, start, end):
                    yield start, end


def _in_formula(text: str, start: int, end: int) -> bool:
    """Whether it is a number to reckon with: an operator, a currency or more digits beside it."""
    before, after = text[max(start - 3, 0) : start], text[end : end + 4]
    return bool(_BEFORE.search(before) or _AFTER.match(after))


def _is_card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    if not _NETWORK.fullmatch(digits):
        return False
    doubled = [int(d) * (1 + place % 2) for place, d in enumerate(reversed(digits))]
    return sum(d - 9 * (d > 9) for d in doubled) % 10 == 0


@lru_cache(maxsize=1)
def _keys() -> tuple[re.Pattern[str], ...]:
    from importlib import import_module

    try:
        found = [getattr(import_module(f"detect_secrets.plugins.{m}"), c) for m, c in _vendors()]
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return (*_OWN_KEYS, *(shape for detector in found for shape in detector.denylist))


def _vendors() -> Iterator[tuple[str, str]]:
    for name in VENDORS:
        module, _, detector = name.partition(".")
        yield module, detector


def _is_valid(library: Any, number: str) -> bool:
    try:
        return bool(library.is_valid_number(library.parse(number)))
    except library.NumberParseException:
        return False


def _phonenumbers() -> Any:
    try:
        import phonenumbers
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return phonenumbers


def _missing(error: ModuleNotFoundError) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"--redact needs {error.name}, which is not installed; pip install 'suffice[train]'"
    )
