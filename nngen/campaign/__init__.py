"""The loop that joins the rooms: sample, assemble, check, train, store."""

from nngen.campaign.run import Campaign
from nngen.campaign.seams import Bench, Engine, Silent, Watcher
from nngen.campaign.spec import CampaignSpec
from nngen.campaign.summary import Summary, summarise

__all__ = ["Bench", "Campaign", "CampaignSpec", "Engine", "Silent", "Summary", "Watcher", "summarise"]
