"""Bulk work as its callers see it: what can be asked for, and how far it has come."""

from core.jobs.arguments import JobArgs
from core.jobs.building import BuildArgs, SampleArgs
from core.jobs.evaluating import CANDIDATE, EnsembleArgs, EvaluateArgs
from core.jobs.importing import ImportArgs
from core.jobs.kinds import KINDS
from core.jobs.record import Job, JobState, Progress
from core.jobs.upgrading import PlanArgs, PromoteArgs, PruneArgs, PruneFilesArgs, RollbackArgs
from core.jobs.verifying import AdoptArgs, VerifyArgs

__all__ = [
    "CANDIDATE",
    "KINDS",
    "AdoptArgs",
    "BuildArgs",
    "EnsembleArgs",
    "EvaluateArgs",
    "ImportArgs",
    "Job",
    "JobArgs",
    "JobState",
    "PlanArgs",
    "Progress",
    "PromoteArgs",
    "PruneArgs",
    "PruneFilesArgs",
    "RollbackArgs",
    "SampleArgs",
    "VerifyArgs",
]
