import json
from pathlib import Path

import pytest

from tad_ext.cli import main
from tad_ext.decoding import PRESETS, parse_policy
from tad_ext.decoding.policies import policies_by_name, text_form


def test_every_policy_and_preset_is_listed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["policies"]) == 0
    printed = capsys.readouterr().out
    for name, policy in policies_by_name.items():
        assert name in printed
        assert policy.rule in printed
        assert policy.source in printed
    assert "localleap:threshold=0.9,relaxed=0.75,radius=4" in printed
    for name, preset in PRESETS.items():
        assert f"{name} " in printed
        assert preset.source in printed


@pytest.mark.parametrize("width", ["40", "80"])
def test_a_narrow_terminal_loses_nothing(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    assert main(["policies"]) == 0
    assert "…" not in capsys.readouterr().out


def test_as_json(capsys):
    assert main(["policies", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [policy["name"] for policy in found["policies"]] == sorted(policies_by_name)
    assert parse_policy(next(policy["text"] for policy in found["policies"] if policy["name"] == "klass"))
    assert found["presets"][1] == {
        "name": "tad",
        "gen_length": "256",
        "block_length": "32",
        "policy": "entropy:0.5",
        "block_add_threshold": "0.1",
        "decoded_token_threshold": "0.95",
        "forced_progress": "row",
        "cache": "none",
        "hide_future_blocks": "False",
        "block_causal": "False",
        "stop_when": "revealed",
        "drafts": "1",
        "branches": "1",
        "temperature": "0.0",
        "top_p": "1.0",
        "source": "TAD, arXiv 2605.09536",
        "note": "",
    }


def test_the_documentation_has_every_policy_and_preset():
    text = (Path(__file__).resolve().parents[1] / "docs" / "decoding.md").read_text()
    for policy in policies_by_name.values():
        assert f"| `{policy.__name__}` | `{text_form(policy)}` |" in text
    for name, preset in PRESETS.items():
        schedule = f"{preset.block_add_threshold:g} | {preset.decoded_token_threshold:g} | `{preset.forced_progress}`"
        cache = "" if preset.cache is None else f"`{preset.cache}` "
        assert f"| `{name}` | `{preset.policy}` | {schedule} | {cache}|" in text
