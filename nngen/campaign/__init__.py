"""The loop that joins the rooms: sample, assemble, check, train, store."""

from nngen.campaign.budget import Budget
from nngen.campaign.commands import Command, send_command
from nngen.campaign.protocols import CampaignInputs, Silent, Watcher
from nngen.campaign.runner import Campaign
from nngen.campaign.spec import CampaignSpec
from nngen.campaign.status import Status, standing
from nngen.campaign.summary import Summary, summarise

__all__ = [
    "Budget",
    "Campaign",
    "CampaignInputs",
    "CampaignSpec",
    "Command",
    "Silent",
    "Status",
    "Summary",
    "Watcher",
    "send_command",
    "standing",
    "summarise",
]
