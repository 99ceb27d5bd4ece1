from expmgr.api import restore as restore
from expmgr.api import save as save
from expmgr.errors import ExpmgrError as ExpmgrError
from expmgr.repository import open as open
from expmgr.running import log_artifact as log_artifact
from expmgr.running import log_metrics as log_metrics
from expmgr.spec import ExperimentSpec as ExperimentSpec

__version__: str
