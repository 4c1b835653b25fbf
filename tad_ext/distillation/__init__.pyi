from .dataset import TADBatch as TADBatch
from .dataset import TrajectoryStates as TrajectoryStates
from .dataset import collate as collate
from .objectives import BatchTotals as BatchTotals
from .objectives import TADObjective as TADObjective
from .settings import TADSettings as TADSettings
