"""Campaigns: candidates from a source are assembled, checked, trained and stored; resumable at any instant."""

from nngen.campaign.budget import Budget
from nngen.campaign.commands import Command, send_command
from nngen.campaign.protocols import CampaignInputs, CandidateSource, GivenCandidates, StopRule, Suggestion, Watcher
from nngen.campaign.runner import Campaign, StopReason
from nngen.campaign.summary import Status, Summary, read_status, summarise
from nngen.campaign_spec import CampaignSpec

__all__ = [
    "Budget",
    "Campaign",
    "CampaignInputs",
    "CampaignSpec",
    "CandidateSource",
    "Command",
    "GivenCandidates",
    "Status",
    "StopReason",
    "StopRule",
    "Suggestion",
    "Summary",
    "Watcher",
    "read_status",
    "send_command",
    "summarise",
]
