"""The kinds of jobs by name."""

from core.jobs.arguments import JobArgs
from core.jobs.building import BuildArgs, SampleArgs
from core.jobs.evaluating import EvaluateArgs
from core.jobs.importing import ImportArgs
from core.jobs.upgrading import PlanArgs, PromoteArgs, PruneArgs, PruneFilesArgs, RollbackArgs
from core.jobs.verifying import AdoptArgs, VerifyArgs

KINDS: dict[str, type[JobArgs]] = {
    "build": BuildArgs,
    "sample": SampleArgs,
    "evaluate": EvaluateArgs,
    "import": ImportArgs,
    "plan": PlanArgs,
    "promote": PromoteArgs,
    "rollback": RollbackArgs,
    "prune": PruneArgs,
    "prune_files": PruneFilesArgs,
    "verify": VerifyArgs,
    "adopt": AdoptArgs,
}
"""Every kind of job and its arguments; the room `jobs` holds what each does, under the same name."""
