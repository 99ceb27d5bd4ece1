from expmgr.api.repository import Repository as Repository
from expmgr.api.repository import compare as compare
from expmgr.api.repository import open as open
from expmgr.api.save_restore import restore as restore
from expmgr.api.save_restore import save as save
from expmgr.api.scripts import fit as fit
from expmgr.api.scripts import params as params
from expmgr.api.scripts import seed as seed
from expmgr.errors import BadArgument as BadArgument
from expmgr.errors import Busy as Busy
from expmgr.errors import CheckpointRefused as CheckpointRefused
from expmgr.errors import DataProblem as DataProblem
from expmgr.errors import ExpmgrError as ExpmgrError
from expmgr.errors import NoTensorFlow as NoTensorFlow
from expmgr.errors import SpecProblem as SpecProblem
from expmgr.errors import Stopped as Stopped
from expmgr.errors import TrainingFailed as TrainingFailed
from expmgr.errors import UserCodeFailed as UserCodeFailed
from expmgr.runs.user_logging import log_artifact as log_artifact
from expmgr.runs.user_logging import log_metrics as log_metrics
from expmgr.spec.experiment import ExperimentSpec as ExperimentSpec

__version__: str
