"""The reference pages name every setting and every command there is."""

import re
from pathlib import Path

import msgspec
import pytest
import typer

from cloud_hub.__main__ import app as hub_app
from cloud_hub.access.setting import AccessSetting, OidcSetting
from cloud_hub.channels.sms import SmsSetting
from cloud_hub.channels.smtp import EmailSetting
from cloud_hub.channels.webhook import WebhookSetting
from cloud_hub.events import Pace
from cloud_hub.nextstep import RedeliveryRule
from cloud_hub.notices import NoticeSetting
from cloud_hub.promises import Rule
from cloud_hub.settings import (
    AuthoritySetting,
    DepotSetting,
    HttpTlsSetting,
    HubSettings,
    LockerSetting,
    Privacy,
    TlsSetting,
    VehicleSetting,
)
from deploy.__main__ import app as front_door
from edge_agent.__main__ import COMMANDS
from edge_agent.settings import AgentSettings
from firmware_sim.__main__ import app as sim_app
from firmware_sim.devices.gnss import GnssFaults
from firmware_sim.twin_process import TwinSettings
from firmware_sim.van import VanSettings
from shared.costs import Costs

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize(
    "kind",
    [
        AgentSettings, HubSettings, DepotSetting, VehicleSetting, Privacy, Rule, Pace, VanSettings, GnssFaults,
        TwinSettings, NoticeSetting, EmailSetting, SmsSetting, WebhookSetting, RedeliveryRule, LockerSetting, Costs,
        AuthoritySetting, HttpTlsSetting, TlsSetting,
        AccessSetting, OidcSetting,
    ],
)  # fmt: skip
def test_every_setting_is_documented(kind: type[msgspec.Struct]) -> None:
    page = (DOCS / "settings.md").read_text()
    assert [field for field in kind.__struct_fields__ if f"`{field}`" not in page] == []


@pytest.mark.parametrize(
    ("program", "app"), [("waywarden", front_door), ("cloud-hub", hub_app), ("firmware-sim", sim_app)]
)
def test_every_command_is_documented(program: str, app: typer.Typer) -> None:
    page = (DOCS / "commands.md").read_text()
    assert [words for words in commands(program, app) if f"`{words}`" not in page] == []


def test_every_command_of_the_agent_is_documented() -> None:
    page = (DOCS / "commands.md").read_text()
    assert [name for name in COMMANDS if f"`edge-agent {name}`" not in page] == []


def commands(program: str, app: typer.Typer) -> list[str]:
    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    own = [f"{program} {name}" for name in names]
    groups = [
        words
        for group in app.registered_groups
        if group.typer_instance is not None
        for words in commands(f"{program} {group.name}", group.typer_instance)
    ]
    return own + groups


@pytest.mark.parametrize("house", ["cloud_hub", "edge_agent"])
def test_every_module_has_its_place_in_the_tour(house: str) -> None:
    page = (DOCS / "architecture.md").read_text()
    modules = [file.stem for file in (DOCS.parent / house).glob("*.py") if file.stem != "__init__"]
    assert [module for module in sorted(modules) if f"`{module}`" not in page] == []


def test_no_page_leads_to_one_that_is_not_there() -> None:
    root = DOCS.parent
    for page in (root / "README.md", root / "CHANGELOG.md", *DOCS.rglob("*.md")):
        for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            assert "://" in link or (page.parent / link).exists(), f"{page.name} leads to {link}"
