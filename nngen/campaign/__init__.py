"""The loop that joins the rooms: sample, assemble, check, train, store."""

from nngen.campaign.budget import Budget
from nngen.campaign.control import Wish, wish_for
from nngen.campaign.run import Campaign
from nngen.campaign.seams import Bench, Engine, Silent, Watcher
from nngen.campaign.spec import CampaignSpec
from nngen.campaign.standing import Standing, standing
from nngen.campaign.summary import Summary, summarise

__all__ = [
    "Bench",
    "Budget",
    "Campaign",
    "CampaignSpec",
    "Engine",
    "Silent",
    "Standing",
    "Summary",
    "Watcher",
    "Wish",
    "standing",
    "summarise",
    "wish_for",
]
