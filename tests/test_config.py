"""Files that people write: every mistake is named with its place and its remedy."""

import pytest

from tests.traffic_makers import TIERS, TIERS_TOML, write_tiers
from training.config import Config, read_config, read_tiers
from training.errors import BadInput


def test_tiers_are_read_as_written(tmp_path):
    assert read_tiers(write_tiers(tmp_path)) == TIERS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected \\[\\[tier\\]\\] tables"),
        ("tier = 3", "expected \\[\\[tier\\]\\] tables"),
        ("tier = [1, 2]", "expected \\[\\[tier\\]\\] tables"),
        (TIERS_TOML + "\n[other]\na = 1\n", "nothing else.*other"),
        ("[[tier]]" + TIERS_TOML.split("[[tier]]")[1], "two or more"),
        (
            TIERS_TOML.replace('model = "vendor/large-1"\n', ""),
            "tier 2 \\('large'\\): missing \\['model'\\]",
        ),
        (
            TIERS_TOML.replace("input_usd", "inptu_usd", 1),
            "tier 1.*'inptu_usd_per_mtok'.*mean 'input_usd",
        ),
        (
            TIERS_TOML + "context = 9",
            "tier 2: unknown key 'context'; did you mean 'context_window'",
        ),
        (TIERS_TOML + "colour = 9", "tier 2: unknown key 'colour'; known: name, model, input_usd"),
        (TIERS_TOML.replace("= 5.0", "= -5.0"), "tier 2: input_usd_per_mtok"),
        (TIERS_TOML.replace("= 5.0", "= nan"), "tier 2: input_usd_per_mtok"),
        (TIERS_TOML.replace("= 5.0", '= "5.0"'), "tier 2: input_usd_per_mtok"),
        (TIERS_TOML.replace("0.1", "50.0"), "cheapest first.*'small'"),
        (TIERS_TOML.replace('"large"', '"small"'), "names must differ"),
        (TIERS_TOML + "context_window = -1", "tier 2: context_window"),
        ("[[tier]\n", "not TOML.*line 1"),
    ],
)
def test_tiers_that_are_refused(text, words, tmp_path):
    with pytest.raises(BadInput, match=f"(?s)tiers.toml.*{words}"):
        read_tiers(write_tiers(tmp_path, text))


def test_a_byte_order_mark_says_nothing(tmp_path):
    """Notepad writes one."""
    assert read_tiers(write_tiers(tmp_path, "\ufeff" + TIERS_TOML)) == TIERS


def test_files_that_are_not_there_or_not_text(tmp_path):
    with pytest.raises(BadInput, match=r"nowhere\.toml"):
        read_tiers(tmp_path / "nowhere.toml")
    with pytest.raises(BadInput, match="directory"):
        read_tiers(tmp_path)
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="not TOML"):
        read_config(tmp_path / "b.toml", {})


def write(folder, text):
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_and_overrides(tmp_path):
    assert read_config(None, {}) == Config()
    path = write(tmp_path, "[label]\nsufficed_at = 0.7\n[policy]\nmin_quality = 0.9\n")
    config = read_config(path, {"confidence": "0.8"})
    assert (config.label.sufficed_at, config.policy.share) == (0.7, 0.9)
    assert config.policy.confidence == 0.8
    assert read_config(path, {"min_quality": "0.95"}).policy.share == 0.95


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[lable]\nmargin = 0.1", "'lable'; did you mean 'label'"),
        ("[label]\nsuficed_at = 0.5", "\\[label\\].*'suficed_at'; did you mean 'sufficed_at'"),
        ("[policy]\nmin_qualty = 0.9", "'min_qualty'; did you mean 'min_quality'"),
        ("[policy]\nzzz = 0.9", "known: min_quality, max_bad"),
        ("label = 3", "\\[label\\] must be a table"),
        ('[label]\nsufficed_at = "x"', "sufficed_at must be a number"),
        ('[label]\nassume_top_suffices = "no"', "assume_top_suffices must be true or false"),
        ("[label]\nmargin = true", "margin must be a number"),
        ("[policy]\nmin_quality = 1.2", "min_quality must be in"),
        ("[policy]\nmin_quality = nan", "min_quality must be in"),
        ("[policy]\nconfidence = 1.0", "confidence must be in"),
    ],
)
def test_config_that_is_refused(text, words, tmp_path):
    with pytest.raises(BadInput, match=words):
        read_config(write(tmp_path, text), {})


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"min_qualty": "0.9"}, "--policy.*did you mean 'min_quality'"),
        ({"min_quality": "much"}, "--policy min_quality=much: not a number"),
        ({"min_quality": "nan"}, "min_quality must be in"),
    ],
)
def test_overrides_that_are_refused(overrides, words):
    with pytest.raises(BadInput, match=words):
        read_config(None, overrides)
