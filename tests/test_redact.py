"""What must not be kept is masked in every text before anything is written; other numbers stay."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.log.ingest import ingest
from training.log.redact import mask, mask_raw, mask_values
from training.log.traffic import read_traffic

SECRETS = {
    "<email>": ["ana.b+c@example.co.uk", "ANA@X.ORG", "o'brien@firm.ie"[2:], "ana@bücher.de"],
    "<phone>": [
        "+49 30 901820",
        "+1 212-555-0123",
        "+442079460958",
        "(212) 555-0123",
        "212-555-0187",
        "020 7946 0958",
        "06 12 34 56 78",
    ],
    "<card>": ["4111 1111 1111 1111", "5555-5555-5555-4444", "378282246310005", "4222222222222"],
    "<key>": [
        "sk-proj-abc123def456ghi789jkl012",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_0123456789abcdefghijklmnopqrstuvwxyz",
        "xoxb-123456789012-abcdefABCDEF",
        "AIzaSyA1234567890abcdefghijklmnopqrstuv",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc\n-----END RSA PRIVATE KEY-----",
    ],
}
EACH = [(kind, secret) for kind, secrets in SECRETS.items() for secret in secrets]
WORDS = st.text("abc äß中,;:!?()'\n ", max_size=30)


@pytest.mark.parametrize(("kind", "secret"), EACH)
def test_each_kind_is_masked_by_its_name(kind: str, secret: str) -> None:
    assert mask(f"see {secret} please") == f"see {kind} please"
    assert mask(f"one: {secret}, two: {secret}.") == f"one: {kind}, two: {kind}."


@settings(max_examples=60)
@given(st.sampled_from(EACH), WORDS, WORDS, st.integers(0, 3))
def test_no_secret_survives_at_any_depth(
    which: tuple[str, str], before: str, after: str, depth: int
) -> None:
    """Texts within JSON within JSON, as arguments of tools are; escapes and all."""
    kind, secret = which
    value: object = f"{before} {secret} {after}"
    for level in range(depth):
        value = json.dumps({"arguments": value}, ensure_ascii=bool(level % 2))
    masked = mask_values({"messages": value, "response": value})
    for text in masked.values():
        held = text
        for _ in range(depth):
            held = json.loads(held)["arguments"]
        assert secret not in held
        assert kind in held


@settings(max_examples=100)
@given(st.text(max_size=200))
def test_masking_again_changes_nothing(text: str) -> None:
    once = mask(text)
    assert mask(once) == once


@pytest.mark.parametrize(
    "text",
    [
        "Compute 123456789 * 987654321 = ?",
        "x = 3.14159265358979; 2 + 2025550123 - 17",
        "212 555 0123 - 17 = ?",
        "order 4111-2222-3333, invoice 1234567890123456, ticket 2025550123",
        "$1,234,567.89 or 9 876 543,21 €",
        "2026-11-24 12:30:45, 24.11.2026, epoch 1764021600000",
        "192.168.100.200 and 10.0.0.1:8080",
        "sequence 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024",
        "100 200 300 400 500; 10 20 30 40 50 60 70",
        "4111111111111112",
        "ISBN 978-3-16-148410-0",
        "@dataclass class A: x = y @ z; a@b",
        "sk_learn_model_selection, sk-learn, pk_table_identifier_name",
        "token = get_next_token_from_stream(); password: required",
        "commit 4f2a9c0e4b1d4f2a9c0e4b1d4f2a9c0e4b1d4f2a",
        "550e8400-e29b-41d4-a716-446655440000",
        "for i in range(1000000): total += 0x7fffffff",
    ],
)
def test_other_numbers_and_code_stay(text: str) -> None:
    assert mask(text) == text


@settings(max_examples=100)
@given(st.integers(0, 10**12), st.integers(0, 10**12), st.sampled_from("+-*/"))
def test_sums_stay(a: int, b: int, operator: str) -> None:
    text = f"What is {a} {operator} {b}? Answer: {a + b}"
    assert mask(text) == text


def test_the_sample_of_maths_and_code_mostly_stays() -> None:
    root = Path(__file__).parents[1]
    lines = (root / "data" / "sample" / "log.jsonl").read_text("utf-8").splitlines()[:300]
    changed = [line for line in lines if mask(line) != line]
    assert len(changed) <= len(lines) // 100, changed[:3]


@pytest.mark.parametrize("compressed", [False, True])
def test_nothing_unmasked_is_written_the_quarantine_included(
    tmp_path: Path, compressed: bool
) -> None:
    secrets = [secret for _, secret in EACH]
    rows = [
        {
            "request_id": f"r{n}",
            "messages": [
                {"role": "system", "content": f"Mind {secret}"},
                {"role": "user", "content": [{"type": "text", "text": f"It is\n{secret}"}]},
            ],
            "model": "m",
            "response": f"You said {secret}?",
            "reference": secret,
            "error": f"bad key {secret}",
            "tags": [f"to {secret}"],
            "user_id": f"u{n}",
            "score": 0.5,
        }
        for n, secret in enumerate(secrets)
    ]
    bad = [row | {"request_id": f"b{n}", "score": 7} for n, row in enumerate(rows)]
    text = "".join(json.dumps(row) + "\n" for row in rows + bad)
    text += f'{{"request_id": "cut", "messages": "write to {secrets[0]}\n'
    text += '{"request_id": "at", "messages": "x", "model": "m", "at": "%s"}\n' % (
        "y" * 50 + " a@b.org"
    )
    source = tmp_path / ("log.jsonl.gz" if compressed else "log.jsonl")
    source.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    out = tmp_path / "out" / "traffic.parquet"
    report = ingest([source], out, max_bad=1, redact=True)
    assert report.total["quarantined"] == len(bad) + 2
    written = (tmp_path / "out" / "traffic.parquet.quarantine.jsonl").read_text()
    frame = read_traffic(out).frame
    written += "".join(str(value) for value in frame.to_numpy().ravel())
    for secret in secrets:
        assert secret not in written
        assert json.dumps(secret)[1:-1] not in written
    for kind in SECRETS:
        assert kind in written
    assert "a@b" not in written
    user = json.loads(frame["messages"][0])[1]["content"][0]["text"]
    assert user == "It is\n<email>"


def test_a_word_that_is_cut_off_is_left_out() -> None:
    assert mask_raw('{"to": "me", "from": "ana@exam', cut=True) == '{"to": "me", "from": "'
    assert mask_raw(r'{"to": "ana\u0040x.org"', cut=False) == '{"to": "<email>"'


def test_ids_and_times_are_not_touched() -> None:
    row = {"request_id": "ana@x.org", "user_id": "ana@x.org", "at": "2026-11-24", "score": 1}
    assert mask_values(row) == row
